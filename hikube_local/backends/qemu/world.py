"""Real machines: QEMU through a libvirt of our own, in the tenant carrier."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

from hikube_local import files, locks
from hikube_local.api import names
from hikube_local.api.objects import INSTANCE, Object, RunStrategy
from hikube_local.backends.protocol import View
from hikube_local.backends.qemu import (
    checkpoints,
    described,
    firmware,
    follow,
    libvirt,
    looks,
    plugs,
    pod,
    power,
    sizes,
    starts,
    views,
)
from hikube_local.backends.qemu.alone import UserNet, carrier_of
from hikube_local.backends.qemu.disks import Disks
from hikube_local.backends.qemu.tenants import Tenants
from hikube_local.backends.qemu.ways import Ways
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType, ignore
from hikube_local.host import accelerator
from hikube_local.host.accelerator import host_facts
from hikube_local.host.facts import HostFacts
from hikube_local.images import sources
from hikube_local.images.cache import Cache
from hikube_local.locks import locked
from hikube_local.paths import Layout
from hikube_local.plan.steps import DiskObserved, MachineDesired, MachineObserved, RunOptions, RunState, Step, Verb
from hikube_local.readiness.stages import Result, Verdict
from hikube_local.render import domain, seed
from hikube_local.render.machine import SEED, SEED_MARK, Machine
from hikube_local.store import db
from hikube_local.store.db import Store

STARTING = 60.0  # seconds that a look waits for a libvirt that somebody is starting


class Qemu:
    """Backend of the name `qemu`."""

    name = "qemu"

    def __init__(
        self,
        layout: Layout,
        store: Store,
        images: sources.Settings,
        own_networks: dict[str, str],
        throwaway: bool = False,
        oem: tuple[str, ...] = (),
        link_local: bool = False,
    ) -> None:
        self.throwaway, self.oem = throwaway, oem
        self.layout, self.store, self.images = layout, store, images
        self.carrier = carrier_of(layout)
        self.tenants = Tenants(self.carrier, store, own_networks if layout.root else {}, link_local)
        self.ways = Ways(self.carrier.out, store, layout.id)
        self.cache = Cache(layout.images, layout.mode)
        self._connection: Any = None
        self._served_by: int | None = None  # the libvirtd that it leads to
        self._connecting = threading.Lock()  # threads share it
        self.disks = Disks(self)

    def observe_disk(self, obj: Object) -> DiskObserved:
        return self.disks.observe(obj)

    @cached_property
    def facts(self) -> HostFacts:
        return host_facts(self.layout)

    def network_lock(self) -> contextlib.AbstractContextManager[None]:
        return locked(self.layout.locks / "network")

    def existing_connection(self) -> Any | None:
        """For a look: the libvirt of our machines as it is; None when nothing of ours is up, HK610 when it has ended."""
        end = time.monotonic() + STARTING
        while self.carrier.lives():
            # Whoever holds the lock may just be starting it. Asked first: who lets go of it after that has started it.
            free = locks.holder(self.layout.locks / "network") is None
            if self.carrier.daemon.pid() and self.carrier.holder() is not None:
                with contextlib.suppress(HikubeError):
                    return self._connected()
            if free or time.monotonic() > end:
                what = "libvirt, which runs the machines, has ended or does not answer"
                raise HikubeError("HK610", what, "the machines themselves go on", "hikube-local up brings it back")
            time.sleep(0.1)
        return None

    def existing_domain(self, obj: Object) -> Any | None:
        """For a look: the machine's domain as it is."""
        connection = self.existing_connection()
        return libvirt.domain(connection, names.domain(obj.namespace, obj.name)) if connection else None

    def connection(self) -> Any | None:
        """The libvirt of our machines; None when nothing of ours is up. A libvirtd that died is started again."""
        if not self.carrier.lives():
            return None
        if self.carrier.daemon.pid() and self.carrier.holder() is not None:
            with contextlib.suppress(HikubeError):  # just starting, by somebody who holds the lock until it answers
                return self._connected()
        with self.network_lock():
            if not self.carrier.lives():
                return None  # the last machine went while we waited for the lock
            pid = self.carrier.ensure(self.tenants.range(), out=False)
            with contextlib.suppress(HikubeError):  # what cannot be reached can still be looked at and removed
                self.carrier.out.ensure(pid, self.tenants.range())
        return self._connected()

    def _connected(self) -> Any:
        pid = self.carrier.daemon.pid()
        with self._connecting:
            if self._connection is None or self._served_by != pid or not self._connection.isAlive():
                self._connection = libvirt.connect(self.carrier.daemon.uri)
                self._served_by = pid
            return self._connection

    def domain(self, obj: Object) -> Any | None:
        connection = self.connection()
        return libvirt.domain(connection, names.domain(obj.namespace, obj.name)) if connection else None

    def running(self, obj: Object) -> Any:
        """The domain of a machine that runs, or HK805."""
        dom = self.domain(obj)
        if dom is None or not dom.isActive():
            raise HikubeError("HK805", f"{obj.name} is not running", fix=f"hikube-local start {obj.name}")
        return dom

    @contextlib.contextmanager
    def connector(self, obj: Object, port: int) -> Iterator[list[str]]:
        """The words of a program that carries its standard input and output to a TCP port of the machine."""
        _, lease, guest = self.store.records(obj.key)
        if lease.lan and guest.lan_ip in self.tenants.lan.taken(lease.lan, self.tenants.mac(obj)):
            what = f"{obj.name} says that {guest.lan_ip} is its address, which this host, a router or a neighbour has"
            raise HikubeError("HK806", what, fix="look at the machine's console: it takes somebody else's address")
        # On the host's bridge it is a neighbour of the host's; else it is reached from inside.
        pid, ip = (0, guest.lan_ip) if lease.lan else (self.carrier.holder(), self.tenants.ip(obj))
        if pid is None or not ip:
            raise HikubeError("HK805", f"the network of {obj.name} is not up", fix=f"hikube-local start {obj.name}")
        if isinstance(self.carrier.out, UserNet):
            with self.carrier.out.passing(ip, port) as (address, near):
                yield self.carrier.enter_words(0, "connect", address, str(near))
        else:
            yield self.carrier.enter_words(pid, "connect", ip, str(port))

    def folder(self, obj: Object) -> Path:
        return (self.layout.machine if obj.kind == INSTANCE else self.layout.disk)(obj.namespace, obj.name)

    def make_folder(self, obj: Object) -> Path:
        folder = self.folder(obj)
        files.own_way(folder, self.layout.state)
        return files.make_folder(folder, self.layout.mode)

    # reading

    def observe_machine(self, obj: Object) -> MachineObserved:
        folder = self.folder(obj)
        recorded = db.recorded(folder) or {}
        mark = files.read_json(folder / SEED_MARK) or {}
        if not (folder / SEED).exists():
            mark = {}
        dom = self.existing_domain(obj)
        state = libvirt.state(dom)[0] if dom else RunState.ABSENT
        on = state in (RunState.RUNNING, RunState.PAUSED)
        kept = dom.XMLDesc(libvirt.module().VIR_DOMAIN_XML_INACTIVE) if dom else ""
        live = dom.XMLDesc(0) if dom and on else ""
        ip = self.tenants.ip(obj)
        rows = starts.all(folder)
        return MachineObserved(
            state=state,
            # One that names other layers than its disks have now is no definition of the machine.
            definition=domain.digest(kept) if kept and not checkpoints.strayed(self, obj, kept) else "",
            live_definition=domain.digest(live, cold=True) if live else "",
            hot=plugs.attached(live, described.fixed(self, obj)) if live else frozenset(),
            seed=mark.get("digest"),
            forwards=self.ways.observed(ip) if on and ip else frozenset(),
            network=self.tenants.is_up(obj) and (on or self.lan(obj) == self._seated(obj)),
            folder=folder.is_dir(),
            generation=recorded.get("generation", 0),
            started=rows[-1]["time"] if rows else None,
            renamed=on and dom is not None and dom.UUIDString() != self.uuid(obj),
        )

    # deciding what it should be

    def lan(self, obj: Object) -> str:
        """The bridge of the host's that the machine is to sit on: WholeIP, as root, where one was named."""
        bridge = self.store.intent(obj.key).bridge
        return bridge if self.layout.root and obj.instance.whole_ip else ""

    def _seated(self, obj: Object) -> str:
        """The one that it sits on."""
        return self.store.lease(obj.key).lan

    def machine(self, obj: Object, options: RunOptions) -> Machine:
        return described.machine(self, obj, options)

    def uuid(self, obj: Object) -> str:
        """By the formula; a seed that is set back to empty keeps the UUID that the machine has."""
        new = names.firmware_uuid(obj.namespace, obj.name, obj.instance.cloudInitSeed)
        kept = self.store.lease(obj.key).uuid
        return kept if kept and not obj.instance.cloudInitSeed else new

    def _uuid_of_another(self, obj: Object) -> bool:
        """Whether another machine of the store has this one's UUID: its TPM is not ours to take."""
        mine = {self.uuid(obj), names.firmware_uuid(obj.namespace, obj.name, obj.instance.cloudInitSeed)}
        others = [o for o in self.store.objects(INSTANCE) if o.key != obj.key]
        return any(self.uuid(o) in mine for o in others)

    def prepare(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        """Heal what a kill cut short, and choose what must stay the same from now on: UUID, size, host ports."""
        if obj.kind != INSTANCE:
            return
        self.connection()
        checkpoints.settle(self, obj, emit, going=bool(obj.deletion))
        if obj.deletion:
            return
        self._heal_stop(obj)
        accelerator.keep(self.layout)
        if self.store.lease(obj.key).uuid != (uuid := self.uuid(obj)):
            self.store.keep(obj.key, uuid=uuid)
        sizes.allocate(self.store, self.facts, obj, options.exact)

        def say(text: str) -> None:
            emit(Event(EventType.DIFFERENCE, text, obj.ref, obj.namespace, code="HK507"))

        self.ways.allocate(obj, say)

    def desired(self, obj: Object, options: RunOptions) -> MachineDesired:
        if obj.deletion:
            return MachineDesired("", None)
        spec = self.machine(obj, options)
        xml = domain.domain(spec)
        content = seed.seed(obj, self.uuid(obj))
        return MachineDesired(
            domain.digest(xml),
            content.digest if content else None,
            self.ways.wanted(obj),
            cold=domain.digest(xml, cold=True),
            hot=frozenset(d.name for d in spec.disks if d.hot),
        )

    def _heal_stop(self, obj: Object) -> None:
        """A `stop` that was cut short has told libvirt that the machine stays off."""
        dom = self.domain(obj)
        if dom is not None and dom.isActive() and self.store.intent(obj.key).power != "stop":
            libvirt.ends(dom, obj.instance.strategy is RunStrategy.ALWAYS)

    # doing

    def perform(self, step: Step, obj: Object, options: RunOptions, emit: Emit) -> None:
        table = self._machine_steps() if obj.kind == INSTANCE else self.disks.steps()
        table[step.verb](obj, options, emit)

    def _machine_steps(self) -> dict[Verb, Callable[[Object, RunOptions, Emit], None]]:
        return {
            Verb.RECORD: lambda o, options, emit: db.record(self.make_folder(o), o),
            Verb.SEED: self._seed,
            Verb.NETWORK: self._network,
            Verb.DEFINE: self._define,
            Verb.START: partial(power.start, self),
            Verb.PLUG: self._plug,
            Verb.FORWARDS: self._forwards,
            Verb.STOP: partial(power.stop, self),
            Verb.DELETE: self._delete_machine,
        }

    def _seed(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        folder = self.make_folder(obj)
        content = seed.seed(obj, self.uuid(obj))
        if content is None:
            for name in (SEED, SEED_MARK):
                (folder / name).unlink(missing_ok=True)
            return
        mark = {"digest": content.digest, "userData": content.asked}
        before = files.read_json(folder / SEED_MARK)
        if isinstance(before, dict) and before.get("userData") != content.asked:
            emit(
                Event(
                    EventType.HINT,
                    "the seed is new for the next boot; cloud-init acts on it only with a new cloudInitSeed",
                    obj.ref,
                    obj.namespace,
                )
            )
        files.write(folder / SEED, seed.volume(content), 0o600)
        files.write_json(folder / SEED_MARK, mark)

    def _network(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        dom = self.domain(obj)  # before the lock, which it may want itself
        with self.network_lock():
            if self.lan(obj) != self._seated(obj) and not (dom and dom.isActive()):
                self.store.keep(obj.key, lan=self.lan(obj) or None, lan_ip=None)
            self.tenants.ensure(obj)

    def _define(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        connection = self.connection()
        if connection is None:
            with self.network_lock():
                self.tenants.ensure(obj)
            connection = self.connection()
        assert connection is not None
        lv = libvirt.module()
        xml = domain.domain(self.machine(obj, options))
        try:
            old = libvirt.domain(connection, names.domain(obj.namespace, obj.name))
            if old is not None and old.UUIDString() != self.uuid(obj) and not old.isActive():
                # A new seed gives a new UUID, which libvirt takes for another machine.
                if not self._uuid_of_another(obj):
                    firmware.move_tpm(self.layout, old.UUIDString(), self.uuid(obj))
                old.undefineFlags(lv.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | lv.VIR_DOMAIN_UNDEFINE_KEEP_TPM)
            connection.defineXMLFlags(xml, lv.VIR_DOMAIN_DEFINE_VALIDATE)
        except lv.libvirtError as e:
            raise libvirt.translated(e, f"libvirt refused the machine {obj.name}") from None

    def _plug(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        plugs.bring(self.running(obj), self.machine(obj, options), obj, emit)

    def _forwards(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        looks.apply(self, obj, self.ways.allocate(obj))

    def _delete_machine(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        checkpoints.before_machine(self, obj, emit)
        lv = libvirt.module() if self.carrier.daemon.pid() else None
        dom = self.domain(obj) if lv else None
        if dom is not None and lv is not None:
            try:
                dom.undefineFlags(
                    lv.VIR_DOMAIN_UNDEFINE_NVRAM
                    | lv.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                    | lv.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                )
            except lv.libvirtError as e:
                raise libvirt.translated(e, f"{obj.name} could not be removed") from None
        with self.network_lock():
            if ip := self.tenants.ip(obj):
                with contextlib.suppress(OSError, HikubeError):
                    self.ways.set(ip, frozenset())
            self.tenants.drop(obj)
            files.remove_folder(self.carrier.sockets(self.tenants.tap(obj)), self.carrier.run)
            files.remove_object(self.folder(obj), self.layout.state)
            if not self._uuid_of_another(obj):
                firmware.forget_tpm(self.layout, self.uuid(obj))
            checkpoints.after_machine(self, obj, emit)
            self.store.forget(obj.key)
            if not any(o.namespace == obj.namespace for o in self.store.objects(INSTANCE)):
                self.tenants.free(obj.namespace)
            self._tidy()

    def tidy(self) -> None:
        """End helpers that no machine needs, such as those of an `up` that was killed before it had one."""
        if self.carrier.run.exists() and self.carrier.holder():
            with self.network_lock():
                self._tidy()

    def _tidy(self) -> None:
        """After the last machine the helpers go; else the others' names and rules are brought up to date."""
        left = [o for o in self.store.objects(INSTANCE) if o.backend == "qemu"]
        pid = self.carrier.holder()
        if not left:
            connection = self._connected() if self.carrier.daemon.pid() else None
            if connection is None or not connection.listDomainsID():
                if connection is not None:
                    with contextlib.suppress(Exception):
                        connection.close()
                self.tenants.lan.drop_all()
                self.carrier.finish()
        elif pid:
            self.tenants.refresh(pid)

    def power(self, obj: Object, action: str) -> None:
        dom = self.running(obj)
        dom.suspend() if action == "pause" else dom.resume()

    # looking

    def follow(self, obj: Object, timeout: float | None, emit: Emit) -> Verdict:
        # The instance-id under which cloud-init was seen to be done.
        done_as = self.store.guest(obj.key).done_as
        verdict = follow.Follower(self, obj, emit, fresh=done_as != self.uuid(obj)).run(timeout)
        rows = starts.all(self.folder(obj))
        start = rows[-1]["time"] if rows else 0
        if verdict.result in (Result.READY, Result.NO_SIGNAL):
            self.store.keep(obj.key, up=start)
        if verdict.cloud_init is not None:
            message = verdict.trouble.message if verdict.trouble else ""
            kept = {"start": start, "ok": verdict.cloud_init, "message": message}
            self.store.keep(obj.key, cloud_init=kept, done_as=self.uuid(obj))
        if (dom := self.domain(obj)) is not None and dom.isActive():
            looks.look(self, obj, dom, emit, soon=True)
        return verdict

    def execute(self, namespace: str, command: list[str]) -> NoReturn:
        """Become a command of this host inside a tenant's network."""
        pod.run(self, namespace, command)

    def view(self, obj: Object) -> View:
        return views.view(self, obj)

    def refresh(self, obj: Object, emit: Emit = ignore) -> None:
        """Act on what a running guest does now: its ways in (WholeIP), its clock, a disk that ran out of space."""
        if obj.kind == INSTANCE and (dom := self.domain(obj)) is not None and dom.isActive():
            looks.look(self, obj, dom, emit)
