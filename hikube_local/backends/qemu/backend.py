"""Real machines: QEMU through a libvirt of our own, inside a sandbox. The facade; nothing inside imports it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hikube_local import files
from hikube_local.api.objects import INSTANCE, Key, Object
from hikube_local.backends import capabilities, hostplan
from hikube_local.backends.capabilities import Figures, Snapshot
from hikube_local.backends.protocol import Settings, View
from hikube_local.backends.qemu import NAME, boot_marks, firmware, libvirt
from hikube_local.backends.qemu.agent import Agent
from hikube_local.backends.qemu.checkpoints import operations, records, warm
from hikube_local.backends.qemu.context import Context
from hikube_local.backends.qemu.machine import (
    definition,
    follow,
    observe,
    power,
    refresh,
    resize,
    screen,
    sizes,
    spec,
    stopped,
    usage,
    view,
)
from hikube_local.backends.qemu.machine.disks import Disks
from hikube_local.backends.qemu.machine.logs import Log
from hikube_local.backends.qemu.network import leftovers, tenant_exec
from hikube_local.backends.qemu.network.checks import address_range
from hikube_local.backends.qemu.network.processes import processes
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.host import accelerator
from hikube_local.host.check import HostCheck
from hikube_local.host.doctor import require
from hikube_local.host.facts import HostFacts
from hikube_local.paths import Layout
from hikube_local.plan.running import comes_back
from hikube_local.plan.steps import DiskObserved, MachineDesired, MachineObserved, Planned, RunOptions, Step, Verb
from hikube_local.readiness.stages import Result, Verdict
from hikube_local.render import domain
from hikube_local.render.machine import profile_of
from hikube_local.store import bodies
from hikube_local.store.db import Store
from hikube_local.store.records import Intent

Perform = Callable[[Object, RunOptions, Emit], object]


def make(layout: Layout, store: Store, settings: Settings) -> QemuBackend:
    return QemuBackend(Context(layout, store, settings))


class QemuBackend(
    capabilities.Agents,
    capabilities.Consoles,
    capabilities.Dials,
    capabilities.Executes,
    capabilities.Libvirt,
    capabilities.Logs,
    capabilities.Measures,
    capabilities.Networks,
    capabilities.OnThisHost,
    capabilities.Pauses,
    capabilities.Reboots,
    capabilities.Screens,
    capabilities.Snapshots,
    capabilities.Uploads,
    capabilities.WarmStates,
):
    """Real machines, with the capabilities that its bases name."""

    name = NAME

    def __init__(self, context: Context) -> None:
        self.context = context
        self._disks = Disks(context)

    # looking

    def observe_disk(self, obj: Object) -> DiskObserved:
        return self._disks.observe(obj)

    def observe_machine(self, obj: Object) -> MachineObserved:
        return observe.machine(self.context, obj)

    def desired(self, obj: Object, options: RunOptions, seen: MachineObserved) -> MachineDesired:
        return observe.desired(self.context, obj, options, seen)

    def plan(self, obj: Object, intent: Intent, options: RunOptions) -> Planned:
        return hostplan.plan(self, obj, intent, options)

    def view(self, obj: Object) -> View:
        return view.view(self.context, obj)

    # doing

    def prepare(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        """Heal what a kill cut short, and choose what must stay the same from now on: UUID, size, host ports."""
        if obj.kind != INSTANCE:
            return
        context = self.context
        context.connection.ensure()
        warm.settle(context, obj)
        operations.settle(context, obj, emit, going=bool(obj.deletion))
        if obj.deletion:
            return
        self._heal_stop(obj)
        accelerator.keep(context.layout)
        if context.store.lease(obj.key).uuid != (uuid := context.uuid(obj)):
            context.store.keep(obj.key, uuid=uuid)
        sizes.allocate(context.store, context.facts, obj, options.exact)

        def say(text: str) -> None:
            emit(Event(EventType.DIFFERENCE, text, obj.ref, obj.namespace, code="HK507"))

        context.forwards.allocate(obj, say)

    def _heal_stop(self, obj: Object) -> None:
        """A `stop` that was cut short has told libvirt that the machine stays off."""
        asked = self.context.store.intent(obj.key).power
        if asked != "stop" and (dom := self.context.active(obj)) is not None:
            libvirt.ends(dom, comes_back(obj))

    def perform(self, step: Step, obj: Object, options: RunOptions, emit: Emit) -> None:
        self._steps(obj)[Verb(step.verb)](obj, options, emit)

    def _steps(self, obj: Object) -> dict[Verb, Perform]:
        context, record = self.context, lambda o, options, emit: bodies.record(self.context.make_folder(o), o)
        if obj.kind != INSTANCE:
            return {
                Verb.RECORD: record,
                Verb.IMPORT: self._disks.fill,
                Verb.GROW: lambda o, options, emit: self._disks.grow(o),
                Verb.DELETE: lambda o, options, emit: self._delete_disk(o),
            }
        return {
            Verb.RECORD: record,
            Verb.SEED: lambda o, options, emit: definition.write_seed(context, o, emit),
            Verb.NETWORK: lambda o, options, emit: definition.network(context, o),
            Verb.DEFINE: lambda o, options, emit: definition.define(context, o, options),
            Verb.START: self._switch_on,
            Verb.RESIZE: lambda o, options, emit: resize.grow(context, o, options, emit),
            Verb.PLUG: lambda o, options, emit: definition.plug(context, o, options, emit),
            Verb.FORWARDS: lambda o, options, emit: definition.open_ports(context, o),
            Verb.STOP: lambda o, options, emit: power.stop(context, o, options, emit),
            Verb.DELETE: lambda o, options, emit: self._delete_machine(o, emit),
        }

    def _switch_on(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        power.tell(self.context, obj, options, emit)
        if not warm.start(self.context, obj, options, emit):
            power.start(self.context, obj, options)

    def _delete_disk(self, obj: Object) -> None:
        operations.after_disk(self.context, obj)
        files.remove_object(self.context.folder(obj), self.context.layout.state)
        self.context.store.forget(obj.key)

    def _delete_machine(self, obj: Object, emit: Emit) -> None:
        context = self.context
        operations.before_machine(context, obj, emit)
        self._undefine(obj)
        with context.network_lock():
            if ip := context.tenants.ip(obj):
                with contextlib.suppress(OSError, HikubeError):
                    context.forwards.set(ip, frozenset())
            context.tenants.drop(obj)
            files.remove_folder(context.sockets(obj), context.sandbox.run)
            files.remove_object(context.folder(obj), context.layout.state)
            if not context.uuid_of_another(obj):
                firmware.forget_tpm(context.layout, context.uuid(obj))
            operations.after_machine(context, obj, emit)
            context.store.forget(obj.key)
            context.tenants.free(obj.namespace)

    def _undefine(self, obj: Object) -> None:
        lv = libvirt.module() if self.context.sandbox.daemon.pid() else None
        dom = self.context.domain(obj) if lv else None
        if dom is None or lv is None:
            return
        flags = lv.VIR_DOMAIN_UNDEFINE_NVRAM | lv.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        try:
            dom.undefineFlags(flags | lv.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
        except lv.libvirtError as e:
            raise libvirt.translated(e, f"{obj.name} could not be removed") from None

    def follow(self, obj: Object, timeout: float | None, emit: Emit) -> Verdict:
        context = self.context
        # The instance-id under which cloud-init was seen to be done.
        done_as = context.store.guest(obj.key).done_as
        watch = follow.Watch(
            context.folder(obj),
            context.facts,
            lambda: context.domain(obj),
            context.settings.throwaway,
            stopped.log(context, obj),
            context.accelerator(obj).kvm,
        )
        verdict = follow.Follower(watch, obj, emit, fresh=done_as != context.uuid(obj)).run(timeout)
        rows = boot_marks.all(context.folder(obj))
        start = rows[-1]["time"] if rows else 0
        verdict = warm.told(context, obj, verdict, start)
        if verdict.result in (Result.READY, Result.NO_SIGNAL):
            context.store.keep(obj.key, up=start)
        if verdict.cloud_init is not None:
            kept = {"start": start, "ok": verdict.cloud_init, **(verdict.trouble.as_json() if verdict.trouble else {})}
            context.store.keep(obj.key, cloud_init=kept, done_as=context.uuid(obj))
        if (dom := context.active(obj)) is not None:
            refresh.look(context, obj, dom, emit, soon=True)
        return verdict

    def refresh(self, obj: Object, emit: Emit) -> None:
        """Act on what a running guest does now: its ways in (WholeIP), its clock, a disk that ran out of space."""
        if obj.kind == INSTANCE and (dom := self.context.active(obj)) is not None:
            refresh.look(self.context, obj, dom, emit)

    def discard(self, obj: Object) -> None:
        if obj.kind != INSTANCE:
            operations.after_disk(self.context, obj)
        files.remove_folder(self.context.folder(obj), self.context.layout.state)
        self.context.store.forget(obj.key)

    # Pauses, Reboots, Uploads

    def soft_reboot(self, obj: Object) -> None:
        power.soft_reboot(self.context, obj)

    def pause(self, obj: Object) -> None:
        self.context.running(obj).suspend()

    def unpause(self, obj: Object) -> None:
        self.context.running(obj).resume()

    def upload(self, disk: Object, file: Path, emit: Emit) -> None:
        self._disks.upload(disk, file, emit)

    # Dials, Consoles, Screens, Logs, Agents, Measures, Executes

    @contextlib.contextmanager
    def connector(self, obj: Object, port: int) -> Iterator[list[str]]:
        self.context.running(obj)
        _, lease, guest = self.context.store.records(obj.key)
        ip = self._lan_ip(obj, lease.lan, guest.lan_ip) if lease.lan else self.context.tenants.ip(obj)
        if not ip:
            raise HikubeError("HK805", f"the network of {obj.name} is not up", fix=f"hikube-local start {obj.name}")
        if lease.lan:  # on the host's bridge it is a neighbour of the host's
            yield self.context.sandbox.enter_words(0, "connect", ip, str(port))
            return
        with self.context.sandbox.dial(ip, port) as words:
            yield words

    def _lan_ip(self, obj: Object, bridge: str, ip: str) -> str:
        """Its address on the host's bridge, or HK806 where somebody else has it."""
        tenants = self.context.tenants
        if ip in tenants.lan.taken(bridge, tenants.mac(obj)):
            what = f"{obj.name} uses the address {ip}, which belongs to this host, a router or a neighbour"
            raise HikubeError("HK806", what, fix="check the network configuration of the guest on its console")
        return ip

    def direct(self, obj: Object, port: int) -> list[str]:
        if not self.context.sandbox.has_tenant_network:
            return []
        with self.connector(obj, port) as words:
            return words

    def carry(self, obj: Object, port: int) -> int:
        if words := self.direct(obj, port):
            os.execv(words[0], words)
        with self.connector(obj, port) as words:
            return subprocess.run(words).returncode

    def console(self, obj: Object) -> Path:
        self.context.running(obj)
        return self.context.sockets(obj) / "console.sock"

    def screen(self, obj: Object) -> Path:
        self._has_screen(obj)
        self.context.running(obj)
        return self.context.sockets(obj) / "vnc.sock"

    def _has_screen(self, obj: Object) -> None:
        if not (profile := profile_of(obj.instance)).graphics:
            what = f"{obj.name} has no screen: its profile {profile.name} has none, as on Hikube"
            raise HikubeError("HK806", what, fix=f"hikube-local console {obj.name}")

    def screenshot(self, obj: Object) -> bytes:
        self._has_screen(obj)
        return screen.screenshot(self.context.connection.ensure(), self.context.running(obj))

    def log(self, obj: Object, name: str = "console") -> Log:
        return Log(obj, self.context.folder(obj), name)

    def agent(self, obj: Object, slowness: float = 1.0) -> Agent:
        return Agent(self.context.running(obj), slowness)

    def figures(self, objects: Sequence[Object]) -> dict[Key, Figures]:
        connection = self.context.connection.existing()
        return usage.figures(connection, objects) if connection is not None else {}

    def reach(self) -> dict[str, Any]:
        return self.context.tenants.reach()

    def execute(self, namespace: str, command: list[str]) -> NoReturn:
        self.context.connection.ensure()  # what died of the sandbox comes back
        tenant_exec.run(self.context.tenants, namespace, command)

    # Snapshots, WarmStates

    def snapshots(self, obj: Object) -> Sequence[Snapshot]:
        return records.all(self.context, obj)

    def take_snapshot(self, obj: Object, name: str, emit: Emit, keep: int | None = None) -> None:
        operations.take(self.context, obj, name, emit, keep)

    def restore_snapshot(self, obj: Object, snapshot: Snapshot, emit: Emit) -> float:
        return operations.go_back(self.context, obj, snapshot, emit)

    def delete_snapshot(self, obj: Object, name: str, emit: Emit) -> None:
        with operations.held(self.context, obj, emit) as obj:
            operations.delete(self.context, obj, name, emit)

    def keep_first_boot(self, obj: Object, emit: Emit) -> None:
        operations.keep_first_boot(self.context, obj, emit)

    def keep_warm(self, obj: Object, folder: Path, emit: Emit) -> None:
        warm.keep(self.context, obj, folder, emit)

    # Libvirt

    def libvirt_uri(self) -> str | None:
        return self.context.sandbox.daemon.uri if self.context.connection.ensure() is not None else None

    def domain_xml(self, obj: Object) -> str:
        return domain.domain(spec.machine(self.context, obj, RunOptions()))

    def live_xml(self, obj: Object) -> str | None:
        dom = self.context.active(obj)
        return dom.XMLDesc(0) if dom is not None else None

    # OnThisHost

    def host_facts(self) -> HostFacts:
        return self.context.facts

    def preflight(self, objects: Iterable[Object]) -> None:
        machines = [o for o in objects if o.kind == INSTANCE]
        lacking = {package for o in machines for package in firmware.missing(profile_of(o.instance))}
        require(self.context.layout, bool(machines), sorted(lacking))

    def checks(self) -> list[HostCheck]:
        return [address_range(self.context.store)]

    def processes(self) -> list[str]:
        return [f"process {pid} ({name})" for pid, name in processes(self.context.layout)]

    def folders(self, disks: bool, images: bool) -> list[Path]:
        return leftovers.folders(self.context.layout, disks, images)

    def end(self) -> None:
        leftovers.end(self.context.sandbox)

    def sweep(self, disks: bool, images: bool) -> None:
        context = self.context
        with context.network_lock():
            context.tenants.lan.drop_all()
            leftovers.end(context.sandbox)
            leftovers.remove(context.layout, disks, images)

    def scratch(self, obj: Object) -> Path:
        return self.context.sockets(obj)

    def tidy(self) -> None:
        if self.context.sandbox.run.exists():
            with self.context.network_lock():
                self._tidy()

    def _tidy(self) -> None:
        """After the last machine the helpers go; else the others' names and rules are brought up to date."""
        context = self.context
        left = [o for o in context.store.objects(INSTANCE) if o.backend == NAME]
        pid = context.sandbox.holder()
        if not left:
            connection = context.connection.connected() if context.sandbox.daemon.pid() else None
            if connection is None or not connection.listDomainsID():
                if connection is not None:
                    with contextlib.suppress(Exception):
                        connection.close()
                context.tenants.lan.drop_all()
                context.sandbox.finish()  # with all devices
                return
        if pid:
            context.tenants.take_away(pid)
        if pid and left:
            context.tenants.refresh(pid)
