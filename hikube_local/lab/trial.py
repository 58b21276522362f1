"""One trial: the machines of a manifest booted as throw-aways, followed, looked at, checked, and taken down again."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hikube_local.api.objects import DEFAULT_BACKEND, DISK, INSTANCE, Key, Object
from hikube_local.backends import registry
from hikube_local.backends.capabilities import (
    MOST,
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
from hikube_local.errors import ExitCode, HikubeError, unexpected
from hikube_local.events import Emit, Event, EventType
from hikube_local.host.accelerator import chosen
from hikube_local.images.settings import Settings
from hikube_local.lab import checks, evidence, units
from hikube_local.lab.checklist import Check
from hikube_local.lab.evidence import Problem
from hikube_local.lab.guest import Guest, cut, host, read
from hikube_local.lab.overssh import SAID, OverSsh, credential
from hikube_local.paths import Layout
from hikube_local.plan.steps import RunOptions, Step, Verb
from hikube_local.readiness.stages import Result, Verdict
from hikube_local.render.seed import user_data
from hikube_local.store.db import Store
from hikube_local.text import sanitize

FILES = {
    "status.json": "/run/cloud-init/status.json",
    "cloud-init.log": "/var/log/cloud-init.log",
    "cloud-init-output.log": "/var/log/cloud-init-output.log",
}


AGENT = (
    "guest agent (user-data, users and their keys are untouched; as in every test guest there is a root key in /run, "
    "with a drop-in for sshd, for images that have no agent)"
)
SSH_PATIENCE = 20.0  # seconds, for a guest whose cloud-init has ended


@dataclass(slots=True)
class Report:
    """What became of one machine; seconds since its start."""

    machine: Object
    image: str = ""
    verdict: Verdict | None = None
    error: HikubeError | None = None
    way_in: str = ""
    evidence: evidence.Evidence = field(default_factory=evidence.Evidence)
    outcomes: list[checks.Outcome] = field(default_factory=list)
    stages: list[tuple[str, float]] = field(default_factory=list)  # stage, when it began
    files: dict[str, bytes] = field(default_factory=dict)
    units: list[units.Unit] = field(default_factory=list)
    started: float = 0.0  # Unix seconds

    @property
    def warm(self) -> bool:
        """Whether it was resumed, not booted."""
        return self.verdict is not None and self.verdict.warm

    @property
    def problems(self) -> list[Problem]:
        return [p for p in self.evidence.problems if not p.recoverable]

    @property
    def timed_out(self) -> bool:
        return self.verdict is not None and self.verdict.result is Result.TIMEOUT

    @property
    def exit_code(self) -> ExitCode:
        """What `test` ends with for this machine alone."""
        return ExitCode.DONE if self.passed else ExitCode.TIMEOUT if self.timed_out else ExitCode.FAILED

    @property
    def passed(self) -> bool:
        booted = self.verdict is not None and self.verdict.result is Result.READY
        return booted and not self.error and not self.problems and all(o.passed for o in self.outcomes)


class Trial:
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
        broken = {k: d.error for k, d in results.items() if d.error and k.kind == DISK}
        for key, report in self.reports.items():
            if key in results:
                report.verdict, report.error = results[key].verdict, results[key].error
            report.started = begin
            with contextlib.suppress(Exception):
                report.started = self.backend.observe_machine(report.machine).started or begin
            report.stages = [(stage, max(0.0, at - report.started)) for stage, at in report.stages]
            if report.error is None and report.verdict is None:
                report.error = next(iter(broken.values()), HikubeError("HK805", f"{report.machine.name} did not start"))
            ready = report.verdict is not None and report.verdict.result is Result.READY and report.verdict.cloud_init
            if self.options.warm and ready:
                with contextlib.suppress(HikubeError, OSError):
                    self._able(WarmStates).keep_warm(report.machine, self.options.warm, self._emit)
            try:
                self._look(report)
            except Exception as e:
                # What one guest answers keeps no other from its report; without evidence nothing passes.
                report.error = report.error or unexpected(e)
            self._check(report, [c for c in wanted if c.machine in ("", report.machine.name)])

    def guest(self, report: Report) -> tuple[Guest, str]:
        """The way into a running machine, and its name: the image's agent, else ssh; HK806 where neither gets in."""
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
        report.files |= dict(zip(FILES, read(guest, *FILES.values()), strict=True))
        spec = report.machine.instance
        text = user_data(report.machine).decode() if spec.has_seed else ""
        report.evidence = evidence.read(
            report.files["status.json"],
            report.files["cloud-init.log"],
            report.files["cloud-init-output.log"],
            text if spec.cloudInit else "",
            any(cut(report.files[name]) for name in FILES),
        )
        if self.thorough:
            # Beside the evidence: a guest that does not give them is judged as it is.
            with contextlib.suppress(HikubeError):
                journal = "journalctl -b -o short-monotonic --no-pager 2>&1"
                report.files["journal.log"] = guest.run(f"{journal} | tail -c {MOST}")[1]
                report.units = units.read(sanitize(guest.run(f"{units.COMMAND} 2>/dev/null | head -c {MOST}")[1]))

    def _unseen(self, report: Report, why: str) -> None:
        """A guest that came up and could not be looked at proves nothing."""
        ready = report.verdict is not None and report.verdict.result is Result.READY
        if ready and report.machine.instance.cloudInit and not self.trust_console and report.error is None:
            fix = "use an image with a guest agent, or with systemd 252 or newer; --trust-console skips this check"
            report.error = HikubeError("HK806", f"cannot check what cloud-init did: {why}", fix=fix)

    def _check(self, report: Report, wanted: Sequence[Check]) -> None:
        first = [c for c in wanted if not c.after_reboot]
        later = [c for c in wanted if c.after_reboot]
        if not wanted:
            return
        booted = report.verdict is not None and report.verdict.result in (Result.READY, Result.CLOUD_INIT_FAILED)
        if not booted:
            report.outcomes = [checks.Outcome(c, ("the machine did not come up",)) for c in wanted]
            return
        report.outcomes += self._probe(report, first)
        if later:
            try:
                self._reboot(report)
            except Exception as e:
                why = f"the machine did not come up after the reboot: {unexpected(e).what}"
                report.outcomes += [checks.Outcome(c, (why,)) for c in later]
                return
            report.outcomes += self._probe(report, later)

    def _probe(self, report: Report, wanted: Sequence[Check]) -> list[checks.Outcome]:
        try:
            machine = host(self.guest(report)[0], report.machine.name)
        except HikubeError as e:
            return [checks.Outcome(c, (f"the check could not run: {e.what}",)) for c in wanted]
        return [checks.probe(c, machine, lambda port, path: self._http(report.machine, port, path)) for c in wanted]

    def _reboot(self, report: Report) -> None:
        """Off and on again, as a power cut with manners: stopped through ACPI, started anew."""
        obj = report.machine
        self._leave(obj.key)
        self._emit(Event(EventType.STEP, "rebooting for the checks with after: reboot", obj.ref, obj.namespace))
        for verb in (Verb.STOP, Verb.START):
            self.backend.perform(Step(verb, obj.key), obj, self.options, self._emit)
        verdict = self.backend.follow(obj, self.timeout, self._emit)
        if verdict.result not in (Result.READY, Result.CLOUD_INIT_FAILED):
            raise HikubeError("HK910", verdict.message)

    def _http(self, obj: Object, port: int, path: str) -> tuple[int, str]:
        """From the tenant's network, as somebody outside the guest: (status, body), or (0, why not)."""
        try:
            patience = 30.0 * self._able(OnThisHost).host_facts().effort
            with self._able(Dials).connector(obj, port) as words, _pipe(words, patience) as stream:
                end = time.monotonic() + patience
                request = f"GET {path} HTTP/1.0\r\nHost: {obj.name}\r\nConnection: close\r\n\r\n"
                stream.sendall(request.encode())
                raw = b""
                while len(raw) < 1 << 20 and (block := stream.recv(65536)):
                    raw += block
                    if time.monotonic() > end:
                        return 0, f"port {port}: the response did not end within {patience:.0f} s"
        except (OSError, HikubeError) as e:
            return 0, f"nobody answers on port {port}: {getattr(e, 'strerror', None) or e}"
        head, _, body = raw.partition(b"\r\n\r\n")
        status = head.split(None, 2)
        if len(status) < 2 or not status[1].isdigit():
            return (
                0,
                f"port {port} does not speak HTTP: {sanitize(raw[:60])!r}" if raw else f"port {port} gave no answer",
            )
        return int(status[1]), sanitize(body)


@contextlib.contextmanager
def _pipe(words: list[str], patience: float) -> Iterator[socket.socket]:
    """A program's standard input and output as a socket."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(patience)
        process = subprocess.Popen(words, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL)
        theirs.close()
        try:
            yield ours
        finally:
            process.kill()
            process.wait()


def _closed(obj: Object) -> Object:
    """As the manifest has it, but with no port on the host, and running whatever it says."""
    if obj.kind != INSTANCE:
        return replace(obj, backend=DEFAULT_BACKEND)
    changes: dict[str, Any] = {"external": False, "running": True, "runStrategy": None}
    return replace(obj, backend=DEFAULT_BACKEND, spec=obj.instance.but(**changes))
