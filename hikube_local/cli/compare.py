"""`compare`: the same machines in two places, fact by fact and check by check."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from hikube_local import __version__, files
from hikube_local.cli.app import App
from hikube_local.cli.options import common, option, output_option
from hikube_local.errors import ExitCode, HikubeError, NotFound, UsageError
from hikube_local.language import tr
from hikube_local.osdep import require_unix
from hikube_local.text import timestamp

WIDTH = 60  # of a value in the table


@click.command("compare")
@click.argument("file", metavar="FILE")
@option("--checks", "checks_file", type=click.Path(path_type=Path), default=None, help="A YAML list of checks.")
@option(
    "--record",
    type=click.Path(path_type=Path),
    default=None,
    help="Write what was found in the context, to compare with later.",
)
@option(
    "--against", type=click.Path(path_type=Path), default=None, help="Compare with a record instead of another place."
)
@option("--all", "everything", is_flag=True, help="Show what is the same, too.")
@output_option("json")
@common
def compare(
    app: App,
    file: str,
    checks_file: Path | None,
    record: Path | None,
    against: Path | None,
    everything: bool,
    output: str,
) -> int:
    """Compare the machines of FILE as they run on this machine with those in a context, or in a record.

    Exit codes: 0 where nothing unexpected differs, 1 where something does. A record alone (--record in one place) is no
    comparison and ends with 0.
    """
    from hikube_local.cli.tables import as_json, table
    from hikube_local.lab import facts

    if against is not None and record is not None:
        raise UsageError("HK810", "--record and --against exclude each other", fix="choose one")
    if app.context.local and against is None and record is None:
        fix = "add --context NAME, --record OUT or --against RECORD"
        raise UsageError("HK810", "there is nothing to compare with", fix=fix)
    require_unix("to compare machines")
    machines, wanted = _machines(app, file, checks_file)
    before = _record(against) if against else {}
    found = _facts(app, machines, wanted)
    if record is not None:
        row = facts.record(app.context.where, __version__, timestamp(time.time()), found)
        files.write(record, json.dumps(row, indent=1, ensure_ascii=False) + "\n", 0o644)
        print(tr(f"written: {record}"), file=sys.stderr)
    if against is not None:
        here, there = found, before
        if not wanted and any(facts.is_check(what) for row in before.values() for what in row):
            print(tr("the record's checks are not compared: add --checks"), file=sys.stderr)
            there = {name: {k: v for k, v in row.items() if not facts.is_check(k)} for name, row in before.items()}
    elif app.context.local:
        return ExitCode.DONE
    else:
        here, there = _facts(App(context="local", namespace=None), machines, wanted), found
    rows = [
        r
        for name in dict.fromkeys((*here, *there))
        for r in facts.compare(name, here.get(name, {}), there.get(name, {}))
    ]
    unexpected = [r for r in rows if r.verdict == facts.UNEXPECTED]
    if output == "json":
        names = ("machine", "what", "here", "there", "verdict", "code")
        print(as_json([{n: getattr(r, n) for n in names} for r in rows]))
    else:
        shown = [r for r in rows if everything or r.verdict != facts.SAME]
        cells = [
            [r.machine, r.what, _short(r.here), _short(r.there), r.verdict + (f" [{r.code}]" if r.code else "")]
            for r in shown
        ]
        if cells:
            print(table(["MACHINE", "WHAT", "HERE", "THERE", "VERDICT"], cells))
        expected = sum(r.verdict == facts.AS_EXPECTED for r in rows)
        same = len(rows) - len(unexpected) - expected
        print(tr(f"{same} the same, {expected} different as expected, {len(unexpected)} unexpected"), file=sys.stderr)
    return ExitCode.FAILED if unexpected else ExitCode.DONE


def _say(text: str) -> None:
    print(tr(text), file=sys.stderr)


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def _machines(app: App, file: str, checks_file: Path | None) -> tuple[list[Any], list[Any]]:
    """The machines and the checks of a manifest, judged by themselves."""
    from hikube_local.cli.test import loaded_with_checks

    result, wanted = loaded_with_checks(app, (file,), checks_file)
    machines = [i.object for i in result.objects if i.object.kind == "VMInstance"]
    if not machines:
        raise UsageError("HK112", "no VMInstance in the input: there is nothing to compare")
    return machines, wanted


def _record(path: Path) -> dict[str, dict[str, str]]:
    from hikube_local.lab import facts

    try:
        found = facts.from_record(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        found = None
    if found is None:
        raise UsageError("HK101", f"{path} is not a record", fix="write one: compare FILE --context NAME --record OUT")
    return found


def _facts(app: App, machines: list[Any], wanted: list[Any]) -> dict[str, dict[str, str]]:
    """Of each machine as it runs in this app's context, by its name."""
    from hikube_local.access import commands
    from hikube_local.engine.session import capabilities
    from hikube_local.lab import checks, facts
    from hikube_local.lab.guest import host

    out: dict[str, dict[str, str]] = {}
    names = [m.name for m in machines]
    for machine in machines:
        try:
            obj = _found(app, machine)
        except HikubeError as e:
            where = "" if app.context.local else f" --context {app.context.name}"
            raise HikubeError(
                e.code, f"{e.what} ({app.context.where})", e.why, f"hikube-local{where} up FILE"
            ) from None
        app.session.require(obj, capabilities.Dials)
        with (
            tempfile.TemporaryDirectory(prefix="hkc-") as folder,
            commands.entered(app.session, obj, Path(folder), _say) as guest,
        ):
            found = facts.read(guest.run(facts.COMMAND)[1].decode("utf-8", "replace"))
            if mine := [c for c in wanted if c.concerns(machine.name)]:
                inside = host(guest, machine.name)
                found |= facts.outcomes(checks.probe(c, inside, _from_inside(guest)) for c in mine)
            out[machine.name if names.count(machine.name) == 1 else f"{machine.namespace}/{machine.name}"] = found
    return out


def _found(app: App, machine: Any) -> Any:
    """In the manifest's own namespace, or in this place's own one: a tenant's is no laptop's."""
    try:
        return app.find("VMInstance", machine.name)
    except NotFound:
        if machine.namespace == app.namespace or app.context.kind == "kube":
            raise
        return app.find("VMInstance", machine.name, machine.namespace)


def _from_inside(guest: Any) -> Any:
    """`http` checks are asked inside the guest: from outside the two places are not reached alike."""

    def http(port: int, path: str) -> tuple[int, str]:
        import shlex

        url = shlex.quote(f"http://127.0.0.1:{port}{path}")
        line = f"curl -s -o - -w '\\n%{{http_code}}' {url} || {{ wget -q -O - {url} && printf '\\n200'; }}"
        body, _, code = guest.run(line)[1].decode("utf-8", "replace").strip().rpartition("\n")
        return (int(code), body) if code.isdigit() and code != "000" else (0, f"nobody answers on port {port}")

    return http
