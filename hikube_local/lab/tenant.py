"""A trial in a tenant: copies of a manifest's machines there, entered by ssh, looked at and checked.

What says there that cloud-init is done is cloud-init itself: the platform does not know it.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from hikube_local.api.objects import DISK, INSTANCE, Key, Object
from hikube_local.backends.capabilities import Dials
from hikube_local.engine import power
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError, unexpected
from hikube_local.events import Emit, Event, EventType
from hikube_local.lab import outside
from hikube_local.lab.checklist import Check
from hikube_local.lab.guest import Guest
from hikube_local.lab.looked import Checking, Report, look
from hikube_local.plan.steps import RunOptions
from hikube_local.readiness.stages import Result, Stage, Verdict
from hikube_local.userdata.whole import ending

AGAIN = 3.0  # seconds between two attempts to log in
HTTP = 30.0  # seconds for an answer of a web server in the guest
_DONE = "command -v cloud-init >/dev/null || exit 0; cloud-init status --wait >/dev/null 2>&1; exit 0"
_WHO = "id -un; id -u; sudo -n true 2>/dev/null && echo yes"
Enter = Callable[[Object], AbstractContextManager[Guest]]


class AsRoot:
    """What checks ask is root's to know."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def run(self, command: str, timeout: float = 60.0) -> tuple[int, bytes, bytes]:
        return self._guest.run(f"sudo -n /bin/sh -c {shlex.quote(command)}", timeout)


class TenantTrial(Checking):
    """`enter`: ssh into a machine, as the user whom the run's key lets in. `timeout`: seconds for each machine."""

    def __init__(self, session: Session, emit: Emit, enter: Enter, timeout: float, thorough: bool = False) -> None:
        self.session, self._emit, self._enter = session, emit, enter
        self.timeout, self.thorough = timeout, thorough
        self.reports: dict[Key, Report] = {}
        self._copies: dict[Key, Object] = {}
        self._guests: dict[Key, tuple[Guest, str]] = {}
        self._open: dict[Key, contextlib.ExitStack] = {}
        self._deadline = 0.0

    def emit(self, event: Event) -> None:
        """As an event of the object that was copied: by the copies' names nobody knows them."""
        of = next((key for key, copy in self._copies.items() if copy.ref == event.object), None)
        report = self.reports.get(of) if of is not None else None
        # Another word is the platform's own.
        if (
            report is not None
            and report.verdict is None
            and event.type is EventType.STAGE
            and event.stage in list(Stage)
        ):
            report.stages.append((event.stage, event.time))
        self._emit(replace(event, object=of.ref, namespace=of.namespace) if of is not None else event)

    def run(
        self, objects: Sequence[Object], copies: dict[Key, Object], wanted: Sequence[Check], image: str = ""
    ) -> list[Report]:
        """`copies`: by the key of the object that each is a copy of."""
        self._copies = copies
        self.reports = {o.key: Report(o, image) for o in objects if o.kind == INSTANCE}
        begin = time.time()
        self._deadline = time.monotonic() + self.timeout
        self.session.store.put(copies.values())
        keys = [o.key for o in copies.values()]
        results = self.session.reconciler(self.emit, RunOptions()).reconcile(keys, wait=True, timeout=self.timeout)
        broken = [d.error for k, d in results.items() if d.error and k.kind == DISK]
        try:
            for key, report in self.reports.items():
                report.take(results.get(copies[key].key), broken, begin)
                try:
                    if report.verdict is not None and report.verdict.result is Result.READY:
                        self._look(report)
                except Exception as e:
                    report.error = report.error or unexpected(e)
                self.check(report, wanted)
        finally:
            for key in list(self._open):
                self._leave(key)
        return list(self.reports.values())

    def _look(self, report: Report) -> None:
        end = ending(report.machine.instance.cloudInit)
        while True:
            try:
                self._wait(report)
                if end is not None and end.how == "reboot":
                    self._rebooted(report, end.patience)
                    end = None
                guest, report.way_in = self.guest(report)
                look(report, guest, self.thorough)
                break
            except HikubeError:  # it reboots, or its network is set up anew
                self._leave(report.machine.key)
                if time.monotonic() > self._deadline:
                    raise
        if report.verdict is not None and report.verdict.result is Result.READY:
            seconds = time.time() - report.started
            report.verdict = Verdict(Result.READY, Stage.DONE, "ready", cloud_init=True, seconds=seconds)

    def _wait(self, report: Report) -> None:
        """Until cloud-init says that it is done."""
        while True:
            guest, _ = self.guest(report)
            try:
                guest.run(_DONE, max(1.0, self._deadline - time.monotonic()))
                return
            except HikubeError:
                if time.monotonic() < self._deadline:
                    self._leave(report.machine.key)
                    continue
            what = "timed out: cloud-init is not done"
            report.verdict = Verdict(Result.TIMEOUT, Stage.CLOUD_FINAL, what, seconds=time.time() - report.started)
            return

    def _rebooted(self, report: Report, patience: float) -> None:
        """The boot that the user-data asks for at its end, if it comes within so many seconds; a lost connection is its sign."""
        end = min(self._deadline, time.monotonic() + patience)
        try:
            while time.monotonic() < end:
                self.guest(report)[0].run("sleep 1")
        except HikubeError:
            self._leave(report.machine.key)
            self._wait(report)

    def guest(self, report: Report) -> tuple[Guest, str]:
        """By ssh, tried until the machine's time is over."""
        key = report.machine.key
        while key not in self._guests:
            stack = contextlib.ExitStack()
            try:
                guest = stack.enter_context(self._enter(self._copies[key]))
                said = guest.run(_WHO)[1].decode("utf-8", "replace")
            except HikubeError as e:
                stack.close()
                if time.monotonic() > self._deadline:
                    raise HikubeError("HK806", f"nobody could log in: {e.what}", e.why) from None
                time.sleep(AGAIN)
                continue
            name, uid, sudo = (*said.split(), "", "", "")[:3]
            powers = "" if uid == "0" else ", with sudo" if sudo else ", who is not root and has no sudo"
            inside = AsRoot(guest) if uid != "0" and sudo else guest
            self._open[key] = stack
            self._guests[key] = (inside, f"ssh as {name}{powers}, by a key that was added to sshKeys")
        return self._guests[key]

    def _leave(self, key: Key) -> None:
        self._guests.pop(key, None)
        if stack := self._open.pop(key, None):
            stack.close()

    def reboot(self, report: Report) -> None:
        copy = self._copies[report.machine.key]
        asked = "cat /proc/sys/kernel/random/boot_id"
        before = self.guest(report)[0].run(asked)[1]
        self._emit(
            Event(EventType.STEP, "rebooting for the checks with after: reboot", report.machine.ref, copy.namespace)
        )
        self._leave(report.machine.key)
        power.ask(self.session, [copy], "restart")
        self._deadline = time.monotonic() + self.timeout
        while True:
            with contextlib.suppress(HikubeError):  # it is just going down
                if self.guest(report)[0].run(asked)[1] not in (before, b""):
                    return self._wait(report)
            self._leave(report.machine.key)
            if time.monotonic() > self._deadline:
                raise HikubeError("HK907", f"it did not come back within {self.timeout:.0f} s")
            time.sleep(AGAIN)

    def http(self, report: Report, port: int, path: str) -> tuple[int, str]:
        copy = self._copies[report.machine.key]
        dials = self.session.require(copy, Dials)
        return outside.http(lambda: dials.connector(copy, port), copy.name, port, path, HTTP)
