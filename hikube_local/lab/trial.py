"""One trial: the machines of a manifest booted as throw-aways, followed, looked at, checked, and taken down again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hikube_local.api.objects import DEFAULT_BACKEND, DISK, INSTANCE, Key, Object
from hikube_local.backends import registry
from hikube_local.backends.capabilities import (
    Agents,
    Dials,
    Libvirt,
    Logs,
    OnThisHost,
    WarmStates,
)
from hikube_local.backends.protocol import Backend
from hikube_local.backends.protocol import Settings as BackendSettings
from hikube_local.backends.registry import Able
from hikube_local.engine.reconcile import Reconciler
from hikube_local.errors import HikubeError, unexpected
from hikube_local.events import Emit, Event, EventType
from hikube_local.host.accelerator import chosen
from hikube_local.images.settings import Settings
from hikube_local.lab import outside
from hikube_local.lab.checklist import Check
from hikube_local.lab.guest import Guest
from hikube_local.lab.looked import Checking, Report, look
from hikube_local.lab.overssh import SAID, OverSsh, credential
from hikube_local.paths import Layout
from hikube_local.plan.steps import RunOptions, Step, Verb
from hikube_local.readiness.stages import Result
from hikube_local.store.db import Store

AGENT = (
    "guest agent (user-data, users and their keys are untouched; as in every test guest there is a root key in /run, "
    "with a drop-in for sshd, for images that have no agent)"
)
SSH_PATIENCE = 20.0  # seconds, for a guest whose cloud-init has ended


class Trial(Checking):
    """A manifest's objects in a throw-away root."""

    def __init__(
        self,
        layout: Layout,
        settings: Settings,
        emit: Emit,
        options: RunOptions,
        timeout: float | None,
        key: Path,
        thorough: bool = False,
        trust_console: bool = False,
        stretch: float | None = None,
    ) -> None:
        self.key = key  # a private one, its .pub beside it: for guests without an agent
        self.thorough = thorough  # read the guest's journal and its units too
        self.trust_console = trust_console  # a guest that cannot be entered may pass
        self.store = Store(layout)
        oem = (credential(key.with_suffix(".pub").read_text()),)
        how = BackendSettings(settings, throwaway=True, oem=oem, stretch=stretch, accelerator=chosen())
        self.backend: Backend = registry.make(DEFAULT_BACKEND, layout, self.store, how)
        self.layout, self.options, self.timeout = layout, options, timeout
        self._emit = emit
        self.reports: dict[Key, Report] = {}
        self._guests: dict[Key, tuple[Guest, str]] = {}  # with the way in, in words

    def _able(self, capability: type[Able]) -> Able:
        return registry.require(self.backend, capability)

    def emit(self, event: Event) -> None:
        for report in self.reports.values():
            mine = (event.object, event.namespace) == (report.machine.ref, report.machine.namespace)
            if event.type is EventType.STAGE and mine and report.verdict is None:
                report.stages.append((event.stage, event.time))
        self._emit(event)

    def run(self, objects: Sequence[Object], wanted: Sequence[Check], image: str = "") -> list[Report]:
        """Boot, follow, look, check. What happens to one machine does not keep the others from their end."""
        closed = [_closed(o) for o in objects]
        machines = [o for o in closed if o.kind == INSTANCE]
        self.reports = {o.key: Report(o, image) for o in machines}
        begin = time.time()
        stored = self.store.put(closed)
        reconciler = Reconciler(self.layout, self.store, lambda name: self.backend, self.emit, self.options)
        results = reconciler.reconcile([o.key for o in stored], wait=True, timeout=self.timeout)
        try:
            self._judge(results, wanted, begin)
        finally:
            self.close()
        return list(self.reports.values())

    def _judge(self, results: dict[Key, Any], wanted: Sequence[Check], begin: float) -> None:
        """Each machine's report: how it came up, what its guest says, what its checks found."""
        broken = [d.error for k, d in results.items() if d.error and k.kind == DISK]
        for key, report in self.reports.items():
            started = begin
            with contextlib.suppress(Exception):
                started = self.backend.observe_machine(report.machine).started or begin
            report.take(results.get(key), broken, started)
            ready = report.verdict is not None and report.verdict.result is Result.READY and report.verdict.cloud_init
            if self.options.warm and ready:
                with contextlib.suppress(HikubeError, OSError):
                    self._able(WarmStates).keep_warm(report.machine, self.options.warm, self._emit)
            try:
                self._look(report)
            except Exception as e:
                # What one guest answers keeps no other from its report; without evidence nothing passes.
                report.error = report.error or unexpected(e)
            self.check(report, wanted)

    def guest(self, report: Report) -> tuple[Guest, str]:
        """The image's agent, else ssh."""
        key = report.machine.key
        if key not in self._guests:
            effort = self._able(OnThisHost).host_facts().effort
            agent = self._able(Agents).agent(report.machine, effort)
            if agent.may_run():
                self._guests[key] = (agent, AGENT)
            else:
                self._guests[key] = (self._over_ssh(report, effort), SAID)
        return self._guests[key]

    def _over_ssh(self, report: Report, effort: float) -> OverSsh:
        obj = report.machine
        folder = self._able(OnThisHost).scratch(obj)
        try:
            return OverSsh(lambda: self._able(Dials).connector(obj, 22), self.key, folder, effort).open(SSH_PATIENCE)
        except HikubeError as e:
            raise HikubeError("HK806", f"the image has no guest agent that runs commands, and {e.what}") from None

    def close(self) -> None:
        """End the connections to the guests."""
        for key in list(self._guests):
            self._leave(key)

    def _leave(self, key: Key) -> None:
        guest, _ = self._guests.pop(key, (None, ""))
        if isinstance(guest, OverSsh):
            guest.close()

    def _look(self, report: Report) -> None:
        """The guest's own words about its cloud-init, and the console."""
        for name in ("console", "firmware"):
            report.files[f"{name}.log"] = self._able(Logs).log(report.machine, name).raw()
        xml = self._able(Libvirt).live_xml(report.machine)
        if xml is None:
            self._unseen(report, "the machine is off")
            return
        report.files["domain.xml"] = xml.encode()
        try:
            guest, report.way_in = self.guest(report)
        except HikubeError as e:
            report.way_in = f"none: {e.what}; only the console was read"
            self._unseen(report, e.what)
            return
        look(report, guest, self.thorough)

    def _unseen(self, report: Report, why: str) -> None:
        """A guest that came up and could not be looked at proves nothing."""
        ready = report.verdict is not None and report.verdict.result is Result.READY
        if ready and report.machine.instance.cloudInit and not self.trust_console and report.error is None:
            fix = "use an image with a guest agent, or with systemd 252 or newer; --trust-console skips this check"
            report.error = HikubeError("HK806", f"cannot check what cloud-init did: {why}", fix=fix)

    def reboot(self, report: Report) -> None:
        """Off and on again, as a power cut with manners: stopped through ACPI, started anew."""
        obj = report.machine
        self._leave(obj.key)
        self._emit(Event(EventType.STEP, "rebooting for the checks with after: reboot", obj.ref, obj.namespace))
        for verb in (Verb.STOP, Verb.START):
            self.backend.perform(Step(verb, obj.key), obj, self.options, self._emit)
        verdict = self.backend.follow(obj, self.timeout, self._emit)
        if verdict.result not in (Result.READY, Result.CLOUD_INIT_FAILED):
            raise HikubeError("HK910", verdict.message)

    def http(self, report: Report, port: int, path: str) -> tuple[int, str]:
        obj = report.machine
        patience = 30.0 * self._able(OnThisHost).host_facts().effort
        return outside.http(lambda: self._able(Dials).connector(obj, port), obj.name, port, path, patience)


def _closed(obj: Object) -> Object:
    """As the manifest has it, but with no port on the host, and running whatever it says."""
    if obj.kind != INSTANCE:
        return replace(obj, backend=DEFAULT_BACKEND)
    changes: dict[str, Any] = {"external": False, "running": True, "runStrategy": None}
    return replace(obj, backend=DEFAULT_BACKEND, spec=obj.instance.but(**changes))
