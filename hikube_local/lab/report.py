"""Reports of a trial as text, JSON, JUnit, CI annotations and one self-contained HTML page; from the same values."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hikube_local.lab.evidence import Problem
from hikube_local.lab.guest import needs
from hikube_local.lab.looked import Report
from hikube_local.readiness.stages import WORDS, Result, Stage
from hikube_local.text import sanitize, workflow_command

_NO_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SHOWN = 2_000_000  # bytes of a log in the page, from its first
TOLD = 12  # lines of output that are told beside the result
Place = Callable[[Report, int], tuple[str, int]]  # line of user-data to (file, line)


def word(report: Report) -> str:
    return "passed" if report.passed else "timed out" if report.timed_out else "failed"


def title(report: Report) -> str:
    return report.machine.name + (f" on {report.image}" if report.image else "")


def cause(report: Report) -> str:
    """Why it failed, in one sentence; empty when it did not."""
    if report.error:
        return report.error.what
    v = report.verdict
    if v and v.trouble:
        return v.trouble.message
    if report.problems:
        return report.problems[0].message
    failed = [o for o in report.outcomes if not o.passed]
    return f"{len(failed)} of {len(report.outcomes)} checks failed" if failed else ""


def text(report: Report, place: Place, timings: bool) -> list[str]:
    """What a person reads."""
    seconds = f" after {report.verdict.seconds:.0f} s" if report.verdict else ""
    lines = [f"{title(report)}: {word(report).upper()}{seconds}" + (f": {cause(report)}" if cause(report) else "")]
    v = report.verdict
    if v and v.trouble:
        lines += [f"    | {line[:200]}" for line in v.trouble.lines[-8:]]
        lines += [f"  fix: {v.trouble.remedy}"] if v.trouble.remedy else []
    if report.error and report.error.fix:
        lines.append(f"  fix: {report.error.fix}")
    if report.warm:
        lines.append("  warm start: resumed from the state after cloud-init; nothing relevant has changed")
    if v and v.result is Result.READY and "at the end of cloud-init" in v.message:
        lines.append(f"  {v.message}")
    if report.way_in:
        lines.append(f"  access: {report.way_in}")
    if report.evidence.modules:
        longest = sorted(report.evidence.modules, key=lambda m: -m.seconds)[:3]
        slow = ", ".join(f"{m.name} {m.seconds:.1f} s" for m in longest)
        lines.append(f"  cloud-init: {report.evidence.status}; {len(report.evidence.modules)} modules, longest: {slow}")
    for problem in report.evidence.problems:
        lines += _problem(report, problem, place)
    if said := report.evidence.said:
        left = f" (the last {TOLD} of {len(said)} lines)" if len(said) > TOLD else ""
        lines += [f"  output of packages, runcmd and scripts{left}:", *(f"    | {line[:200]}" for line in said[-TOLD:])]
    for outcome in report.outcomes:
        at = outcome.check.place
        where = f"{at.file}:{at.line}: " if at.line and not outcome.passed else ""
        lines.append(f"  {'ok    ' if outcome.passed else 'FAILED'} {where}{outcome.check.title}")
        lines += [f"         {found}" for found in outcome.found]
    if timings:
        lines += ["  where the time went:"]
        lines += [f"    {WORDS[Stage(s)]:<22} {seconds:6.1f} s" for s, seconds in durations(report)]
        lines += [
            f"      {m.name:<22} {m.seconds:6.1f} s" + ("" if m.result == "SUCCESS" else f"  {m.result}")
            for m in report.evidence.modules
        ]
    # A line of the guest's stays one: what follows a break in it is set in, so that it is nobody's command or verdict.
    return [sanitize(line).replace("\n", "\n         | ") for line in lines]


def closing(reports: Sequence[Report]) -> str:
    """The last line of a run: how many machines and checks passed."""
    checks = [o for r in reports for o in r.outcomes]
    good = sum(r.passed for r in reports)
    words = f"{good} of {len(reports)} machine{'s' if len(reports) != 1 else ''} passed"
    return words + (f", {sum(o.passed for o in checks)} of {len(checks)} checks" if checks else "")


def _problem(report: Report, problem: Problem, place: Place) -> list[str]:
    where = ""
    if problem.line:
        file, line = place(report, problem.line)
        where = f"{file}:{line}: "
    kind = "warning" if problem.recoverable else "error"
    return [f"  {where}{kind}: {problem.message}", *(f"    | {line[:200]}" for line in problem.lines[:6])]


def durations(report: Report) -> list[tuple[str, float]]:
    """(stage, seconds) of the boot."""
    end = report.verdict.seconds if report.verdict else 0.0
    times = [*report.stages, ("", end)]
    return [(name, max(0.0, times[i + 1][1] - at)) for i, (name, at) in enumerate(report.stages)]


def as_json(report: Report, place: Place) -> dict[str, Any]:
    v = report.verdict
    return {
        "machine": report.machine.name,
        "namespace": report.machine.namespace,
        "image": report.image or None,
        "warm": report.warm,
        "result": word(report),
        "cause": cause(report) or None,
        "stage": str(v.stage) if v else None,
        "seconds": round(v.seconds, 1) if v else None,
        "wayIn": report.way_in,
        "cloudInit": report.evidence.status,
        "stages": [{"stage": s, "seconds": round(n, 2)} for s, n in durations(report)],
        "modules": [
            {
                "stage": m.stage,
                "name": m.name,
                "start": round(m.start, 3),
                "seconds": round(m.seconds, 3),
                "result": m.result,
            }
            for m in report.evidence.modules
        ],
        "problems": [
            {
                "message": p.message,
                "lines": list(p.lines),
                "recoverable": p.recoverable,
                "file": place(report, p.line)[0] if p.line else None,
                "line": place(report, p.line)[1] if p.line else None,
            }
            for p in report.evidence.problems
        ],
        "output": "\n".join(report.evidence.said),
        "checks": [
            {"kind": o.check.kind, "title": o.check.title, "passed": o.passed, "found": list(o.found)}
            for o in report.outcomes
        ],
    }


def junit(reports: Sequence[Report], place: Place, target: Path) -> None:
    """JUnit's XML: a suite for each machine, a case for its boot, its user-data and each check."""
    needs("junitparser", "--junit needs")
    import junitparser

    document = junitparser.JUnitXml("hikube-local test")
    for report in reports:
        suite = junitparser.TestSuite(_clean(title(report)))
        for name, seconds, failures in _cases(report, place):
            case = junitparser.TestCase(_clean(name), f"{report.machine.namespace}.{report.machine.name}", seconds)
            if failures:
                case.result = [junitparser.Failure(_clean(failures[0]), "failed")]
                case.result[0].text = _clean("\n".join(failures))
            suite.add_testcase(case)
        suite.update_statistics()
        document.add_testsuite(suite)
    document.update_statistics()
    document.write(str(target), pretty=True)


def _cases(report: Report, place: Place) -> list[tuple[str, float, list[str]]]:
    v = report.verdict
    booted = (
        []
        if v and v.result in ("ready", "cloud-init-failed") and not report.error
        else [cause(report) or "it did not boot"]
    )
    booted += list(v.trouble.lines) if booted and v and v.trouble else []
    rows = [("boot", v.seconds if v else 0.0, booted)]
    told = [line.strip() for p in report.problems for line in _problem(report, p, place)]
    if not booted and not told and v and v.result == "cloud-init-failed":
        told = [cause(report)]
    rows.append(("cloud-init", sum(m.seconds for m in report.evidence.modules), told))
    return rows + [(o.check.title, 0.0, list(o.found)) for o in report.outcomes]


def _clean(text: str) -> str:
    """Text that XML can hold."""
    return _NO_XML.sub("", sanitize(text))


def in_ci(reports: Sequence[Report], place: Place) -> list[str]:
    """For CI: each finding at its line, each check that failed, and what else was the cause."""
    out = []
    for r in reports:
        rows = [
            ("warning" if p.recoverable else "error", place(r, p.line or 1), p.message) for p in r.evidence.problems
        ]
        for o in (o for o in r.outcomes if not o.passed):
            at = o.check.place
            where = (at.file, at.line) if at.line else place(r, 1)
            rows.append(("error", where, "; ".join([o.check.title, *o.found])))
        if not r.passed and not any(level == "error" for level, _, _ in rows):
            rows.append(("error", place(r, 1), cause(r)))
        for level, where, message in rows:
            out.append(workflow_command(level, *where, f"{title(r)}: {message}"))
    return out


def summary(reports: Sequence[Report]) -> str:
    """A table in Markdown, for a job's summary."""
    rows = ["| machine | result | seconds | checks | cause |", "|---|---|---|---|---|"]
    for r in reports:
        seconds = f"{r.verdict.seconds:.0f}" if r.verdict else ""
        passed = f"{sum(o.passed for o in r.outcomes)} of {len(r.outcomes)}" if r.outcomes else ""
        cells = [title(r), word(r), seconds, passed, cause(r)[:200]]
        rows.append("| " + " | ".join(sanitize(c).replace("|", "\\|").replace("\n", " ") for c in cells) + " |")
    return "\n".join(rows) + "\n"


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1b1f24;background:#fff}
h2{margin-top:2.5rem}.passed{color:#116329}.failed,.timed{color:#a40e26}
.row{display:grid;grid-template-columns:13rem 1fr 5rem;gap:.5rem;align-items:center;font-size:13px}
.track{background:#eef1f4;height:1.1rem;position:relative}.bar{position:absolute;height:100%;background:#2f6fdb;min-width:2px}
.bar.module{background:#8a63d2}.bar.unit{background:#1a7f64}.bar.FAIL{background:#cf222e}pre{background:#f6f8fa;padding:.8rem;overflow:auto;max-height:30rem}
li.bad{color:#a40e26}.num{text-align:right}@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}
pre,.track{background:#161b22}.passed{color:#3fb950}.failed,.timed,li.bad{color:#ff7b72}}
"""


def page(reports: Sequence[Report], place: Place) -> str:
    """One page without anything from elsewhere: timeline, findings, checks, console. Every foreign text is escaped."""
    e = html.escape
    out = [
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>hikube-local test</title>",
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style></head><body><h1>hikube-local test</h1>",
    ]
    for r in reports:
        out.append(f"<h2>{e(title(r))}: <span class='{word(r)}'>{word(r)}</span></h2>")
        out.append(f"<p>{e(sanitize(cause(r)))}</p>" if cause(r) else "")
        out.append(f"<p>access: {e(r.way_in)}</p>" if r.way_in else "")
        out += ["<h3>Where the time went</h3>", *_timeline(r)]
        if r.evidence.problems:
            out.append("<h3>Findings</h3><ul>")
            for p in r.evidence.problems:
                told = "\n".join(line.strip() for line in _problem(r, p, place))
                out.append(f"<li class='{'' if p.recoverable else 'bad'}'><pre>{e(sanitize(told))}</pre></li>")
            out.append("</ul>")
        if r.outcomes:
            out.append("<h3>Checks</h3><ul class=checks>")
            for o in r.outcomes:
                found = e(sanitize("; ".join(o.found)))
                kind = "" if o.passed else "bad"
                out.append(f"<li class='{kind}'>{'passed' if o.passed else 'FAILED'}: {e(o.check.title)} {found}</li>")
            out.append("</ul>")
        for name in ("cloud-init-output.log", "console.log"):
            if content := r.files.get(name):
                left = max(0, len(content) - SHOWN)
                more = f"\n… {left} bytes more: use --artifacts DIR to keep the whole file" if left else ""
                shown = e(sanitize(content[:SHOWN]) + more)
                out.append(f"<details><summary>{name}</summary><pre>{shown}</pre></details>")
    return "\n".join([*out, "</body></html>", ""])


def _timeline(report: Report) -> list[str]:
    """Stages of the boot, systemd's units, then the modules of cloud-init, as bars on one scale."""
    last = max((m.start + m.seconds for m in report.evidence.modules), default=0.0) if report.warm else 0.0
    end = max(report.verdict.seconds if report.verdict else 0.0, last, 0.1)
    rows = [(WORDS[Stage(s)], at, n, "stage") for (s, at), (_, n) in zip(report.stages, durations(report), strict=True)]
    # cloud-init's log has the guest's clock: its first line falls together with its first stage on the console.
    first = next((at for s, at in report.stages if s.startswith("cloud")), 0.0)
    kernel = next((at for s, at in report.stages if s == Stage.KERNEL), 0.0)
    rows += [(u.name, kernel + u.start, u.seconds, "unit") for u in report.units]
    rows += [(m.name, first + m.start, m.seconds, f"module {m.result}") for m in report.evidence.modules]
    out = []
    for name, at, seconds, kind in rows:
        left, width = 100 * min(at, end) / end, 100 * min(seconds, max(0.0, end - at)) / end
        bar = f"<div class='bar {kind}' style='left:{left:.2f}%;width:{width:.2f}%'></div>"
        row = f"<span>{html.escape(name)}</span><div class=track>{bar}</div><span class=num>{seconds:.1f} s</span>"
        out.append(f"<div class=row>{row}</div>")
    return out
