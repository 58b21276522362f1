"""`catalog instancetypes|profiles|images`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common, output_option
from hikube_local.errors import ExitCode


@click.group("catalog")
def catalog() -> None:
    """Instance types, profiles and images by name."""


def _show(rows: list[dict[str, Any]], output: str, header: list[str], cells: Any) -> int:
    from hikube_local.cli import tables

    if output == "name":
        print("\n".join(r["name"] for r in rows))
    else:
        print(tables.show(rows, output, lambda: tables.table(header, [cells(r) for r in rows])))
    return ExitCode.DONE


@catalog.command("instancetypes")
@output_option("json", "yaml", "name")
@common
def instancetypes(app: App, output: str) -> int:
    """vCPUs and memory of each instance type."""
    from hikube_local.catalogue import data
    from hikube_local.text import size

    rows = [asdict(t) for t in data.instancetypes().values()]
    return _show(
        rows,
        output,
        ["NAME", "VCPU", "MEMORY", "HIKUBE"],
        lambda r: [r["name"], str(r["vcpu"]), size(r["memory"]), "yes" if r["hikube"] else "no"],
    )


@catalog.command("profiles")
@output_option("json", "yaml", "name")
@common
def profiles(app: App, output: str) -> int:
    """What each instance profile prefers and requires."""
    from hikube_local.catalogue import data
    from hikube_local.text import size

    rows = [asdict(p) for p in data.profiles().values()]
    return _show(
        rows,
        output,
        ["NAME", "OS", "FIRMWARE", "DISK", "NIC", "MIN-VCPU", "MIN-MEMORY", "HIKUBE"],
        lambda r: [
            r["name"],
            r["os"],
            r["firmware"],
            r["disk_bus"],
            r["nic"],
            str(r["min_vcpu"]),
            size(r["min_memory"]),
            "yes" if r["hikube"] else "no",
        ],
    )


@catalog.command("images")
@output_option("json", "yaml", "name")
@common
def images(app: App, output: str) -> int:
    """The named images, under both families of names, and those of the configuration."""
    from hikube_local.catalogue import data
    from hikube_local.text import size

    rows = [{**asdict(image), "name": name} for name, image in data.images().items()]
    own = [
        {"name": n, "user": v.get("user", ""), "smallest": 0, "url": v["url"], "hikube": False}
        for n, v in app.config.images.items()
    ]
    return _show(
        rows + own,
        output,
        ["NAME", "USER", "SMALLEST", "HIKUBE", "SOURCE"],
        lambda r: [
            r["name"],
            r["user"] or "<none>",
            size(r["smallest"]),
            "yes" if r["hikube"] else "no",
            r["url"] or f"none: {r.get('reason', '')}",
        ],
    )
