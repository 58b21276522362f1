"""`top`: what the machines use."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from hikube_local.cli.app import App, common, option, output_option
from hikube_local.errors import ExitCode

INTERVAL = 1.0  # seconds over which rates are measured


def _sample(dom: Any) -> dict[str, int]:
    """Counters of a running domain: CPU ns, memory and disk and network bytes."""
    import xml.etree.ElementTree as ET

    info = dom.info()
    memory = dom.memoryStats()
    out = {
        "cpu": info[4],
        "vcpus": info[3],
        "memory": memory.get("rss", 0) * 1024,
        "read": 0,
        "written": 0,
        "received": 0,
        "sent": 0,
    }
    root = ET.fromstring(dom.XMLDesc(0))
    for target in root.iterfind("devices/disk/target"):
        stats = dom.blockStats(target.get("dev"))
        out["read"] += stats[1]
        out["written"] += stats[3]
    for target in root.iterfind("devices/interface/target"):
        stats = dom.interfaceStats(target.get("dev"))
        # The guest's side of the tap.
        out["received"] += stats[0]
        out["sent"] += stats[4]
    return out


@click.command("top")
@option("-A", "--all-namespaces", is_flag=True, help="Of every namespace.")
@click.argument("words", metavar="[NAME]...", nargs=-1)
@output_option("json")
@common
def top(app: App, all_namespaces: bool, words: tuple[str, ...], output: str) -> int:
    """CPU (milliprocessors), memory, disk and network of each running machine, over one second."""
    from hikube_local.api.objects import INSTANCE, KIND_WORDS
    from hikube_local.cli import tables
    from hikube_local.text import size

    named = [w for w in words if w.lower() not in KIND_WORDS]
    objects = [app.machine(w) for w in named] or app.store.objects(INSTANCE, None if all_namespaces else app.namespace)
    domains = []
    for obj in objects:
        if obj.backend == "qemu" and (dom := app.session.real(obj).existing_domain(obj)) is not None and dom.isActive():
            domains.append((obj, dom))
    for obj in objects:
        if obj.backend != "qemu":
            print(f"{obj.ref} is simulated: there is nothing to measure", file=sys.stderr)
    before = [_sample(d) for _, d in domains]
    begin = time.monotonic()
    if domains:
        time.sleep(INTERVAL)
    spent = time.monotonic() - begin
    rows: list[dict[str, Any]] = []
    for (obj, dom), a in zip(domains, before, strict=True):
        b = _sample(dom)
        rate = {k: int((b[k] - a[k]) / spent) for k in ("read", "written", "received", "sent")}
        milli = int((b["cpu"] - a["cpu"]) / spent / 1e6)
        rows.append(
            {
                "namespace": obj.namespace,
                "name": obj.name,
                "cpuMillis": milli,
                "memory": b["memory"],
                **{f"{k}PerSecond": v for k, v in rate.items()},
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
