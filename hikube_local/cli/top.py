"""`top`: what the machines use."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common, option, output_option, seconds
from hikube_local.errors import ExitCode
from hikube_local.language import tr

INTERVAL = 1.0  # seconds over which rates are measured
FIGURES = ["CPU", "MEMORY", "READ/S", "WRITE/S", "RX/S", "TX/S"]


@click.command("top")
@option("-A", "--all-namespaces", is_flag=True, help="Of every namespace.")
@option("--history", default=None, callback=seconds, help="Show the usage over this time (10m), recorded by `serve`.")
@click.argument("words", metavar="[NAME]...", nargs=-1)
@output_option("json")
@common
def top(app: App, all_namespaces: bool, history: float | None, words: tuple[str, ...], output: str) -> int:
    """Show CPU (millicores), memory, disk and network use of each running machine, over one second."""
    from hikube_local.api.objects import INSTANCE, KIND_WORDS
    from hikube_local.cli import tables
    from hikube_local.engine import usage
    from hikube_local.engine.session import capabilities

    named = [w for w in words if w.lower() not in KIND_WORDS]
    objects = [app.machine(w) for w in named] or app.store.objects(INSTANCE, None if all_namespaces else app.namespace)
    if history is not None:
        return _history(app, objects, history, output)
    for obj in objects:
        if not app.session.able(obj, capabilities.Measures):
            print(tr(f"{obj.ref} is not measured: its backend is the {obj.backend}"), file=sys.stderr)
    begin, before = time.monotonic(), usage.look(app.session, objects)
    if before:
        time.sleep(INTERVAL)
    after, spent = usage.look(app.session, objects), time.monotonic() - begin
    rows: list[dict[str, Any]] = [
        {
            "namespace": obj.namespace,
            "name": obj.name,
            **dataclasses.asdict(usage.between(before[obj.key], after[obj.key], spent)),
        }
        for obj in objects
        if obj.key in before and obj.key in after
    ]
    cells = [[r["namespace"], r["name"], *_cells(r)] for r in rows]
    print(tables.show(rows, output, lambda: tables.table(["NAMESPACE", "NAME", *FIGURES], cells)))
    return ExitCode.DONE


def _cells(row: dict[str, Any]) -> list[str]:
    from hikube_local.engine.usage import COLUMNS
    from hikube_local.text import size

    return [f"{row['cpuMillis']}m", *(size(row[name]) for name in COLUMNS[1:])]


def _history(app: App, objects: list[Any], since: float, output: str) -> int:
    from hikube_local.cli import tables
    from hikube_local.engine import usage

    found = [{"namespace": o.namespace, "name": o.name, **usage.history(app.layout, o, since)} for o in objects]
    if not any(f["time"] for f in found):
        print(tr("no history: it is recorded while `hikube-local serve` runs"), file=sys.stderr)
    cells = []
    for f in found:
        columns = {name: f[name] for name in ("time", *usage.COLUMNS)}
        for at in range(len(f["time"])):
            row = {name: column[at] for name, column in columns.items()}
            cells.append(
                [f["namespace"], f["name"], time.strftime("%H:%M:%S", time.localtime(row["time"])), *_cells(row)]
            )
    print(tables.show(found, output, lambda: tables.table(["NAMESPACE", "NAME", "TIME", *FIGURES], cells)))
    return ExitCode.DONE
