"""`top`: what the machines use."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common, option, output_option
from hikube_local.errors import ExitCode

INTERVAL = 1.0  # seconds over which rates are measured


@click.command("top")
@option("-A", "--all-namespaces", is_flag=True, help="Of every namespace.")
@click.argument("words", metavar="[NAME]...", nargs=-1)
@output_option("json")
@common
def top(app: App, all_namespaces: bool, words: tuple[str, ...], output: str) -> int:
    """CPU (milliprocessors), memory, disk and network of each running machine, over one second."""
    from hikube_local.api.objects import INSTANCE, KIND_WORDS
    from hikube_local.cli import tables
    from hikube_local.engine.session import capabilities
    from hikube_local.text import size

    named = [w for w in words if w.lower() not in KIND_WORDS]
    objects = [app.machine(w) for w in named] or app.store.objects(INSTANCE, None if all_namespaces else app.namespace)
    measured = []
    for obj in objects:
        if backend := app.session.able(obj, capabilities.Measures):
            measured.append((obj, backend))
        else:
            print(f"{obj.ref} is not measured: its backend is the {obj.backend}", file=sys.stderr)
    before = {o.key: counted for o, b in measured if (counted := b.counters(o)) is not None}
    begin = time.monotonic()
    if before:
        time.sleep(INTERVAL)
    spent = time.monotonic() - begin
    rows: list[dict[str, Any]] = []
    for obj, backend in measured:
        if (a := before.get(obj.key)) is None or (now := backend.counters(obj)) is None:
            continue
        rates = {k: int((getattr(now, k) - getattr(a, k)) / spent) for k in ("read", "written", "received", "sent")}
        rows.append(
            {
                "namespace": obj.namespace,
                "name": obj.name,
                "cpuMillis": int((now.cpu - a.cpu) / spent / 1e6),
                "memory": now.memory,
                **{f"{k}PerSecond": rate for k, rate in rates.items()},
            }
        )
    header = ["NAMESPACE", "NAME", "CPU", "MEMORY", "READ/S", "WRITE/S", "RX/S", "TX/S"]
    cells = [
        [
            r["namespace"],
            r["name"],
            f"{r['cpuMillis']}m",
            size(r["memory"]),
            *(size(r[f"{k}PerSecond"]) for k in ("read", "written", "received", "sent")),
        ]
        for r in rows
    ]
    print(tables.show(rows, output, lambda: tables.table(header, cells)))
    return ExitCode.DONE
