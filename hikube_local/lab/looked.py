"""What is seen of a machine that was tried, wherever it runs: its report, what its guest says, what its checks found."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import field

from hikube_local.api.objects import Object
from hikube_local.backends.capabilities import MOST
from hikube_local.engine.reconcile import Done
from hikube_local.errors import ExitCode, HikubeError, unexpected
from hikube_local.lab import checks, evidence, units
from hikube_local.lab.checklist import Check
from hikube_local.lab.evidence import Problem
from hikube_local.lab.guest import Guest, cut, host, read
from hikube_local.readiness.stages import Result, Verdict
from hikube_local.records import dataclass
from hikube_local.render.seed import user_data
from hikube_local.text import sanitize

FILES = {
    "status.json": "/run/cloud-init/status.json",
    "cloud-init.log": "/var/log/cloud-init.log",
    "cloud-init-output.log": "/var/log/cloud-init-output.log",
}


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

    def take(self, done: Done | None, broken: Sequence[HikubeError], started: float) -> None:
        """What bringing it up came to. `broken`: what became of disks; `started`: Unix seconds, from which its stages are counted."""
        self.verdict, self.error = (done.verdict, done.error) if done else (None, None)
        self.started = started
        self.stages = [(stage, max(0.0, at - started)) for stage, at in self.stages]
        if self.error is None and self.verdict is None:
            self.error = next(iter(broken), HikubeError("HK805", f"{self.machine.name} did not start"))

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


def look(report: Report, guest: Guest, thorough: bool) -> None:
    """What the guest itself says of its cloud-init; `thorough`: of its journal and its units, too."""
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
    if thorough:
        # Beside the evidence: a guest that does not give them is judged as it is.
        with contextlib.suppress(HikubeError):
            journal = "journalctl -b -o short-monotonic --no-pager 2>&1"
            report.files["journal.log"] = guest.run(f"{journal} | tail -c {MOST}")[1]
            report.units = units.read(sanitize(guest.run(f"{units.COMMAND} 2>/dev/null | head -c {MOST}")[1]))


class Checking:
    """Checks, by whoever has a way into the guests."""

    def guest(self, report: Report) -> tuple[Guest, str]:
        """The way into a running machine, and its name; HK806 where there is none."""
        raise NotImplementedError

    def reboot(self, report: Report) -> None:
        """The machine off and on again, until it is up."""
        raise NotImplementedError

    def http(self, report: Report, port: int, path: str) -> tuple[int, str]:
        """From outside of the guest: (status, body), or (0, why not)."""
        raise NotImplementedError

    def check(self, report: Report, wanted: Sequence[Check]) -> None:
        """Those of its machine, into the report; with `after: reboot` the last ones."""
        mine = [c for c in wanted if c.concerns(report.machine.name)]
        first = [c for c in mine if not c.after_reboot]
        later = [c for c in mine if c.after_reboot]
        if not mine:
            return
        booted = report.verdict is not None and report.verdict.result in (Result.READY, Result.CLOUD_INIT_FAILED)
        if not booted:
            report.outcomes = [checks.Outcome(c, ("the machine did not come up",)) for c in mine]
            return
        report.outcomes += self._probe(report, first)
        if later:
            try:
                self.reboot(report)
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
        return [checks.probe(c, machine, lambda port, path: self.http(report, port, path)) for c in wanted]
