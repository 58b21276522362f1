"""`system df` and `system prune`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from hikube_local.cli.app import App, confirm
from hikube_local.cli.options import common, option, output_option
from hikube_local.errors import ExitCode
from hikube_local.language import tr


@click.group("system")
def system() -> None:
    """Space on this host: df, prune."""


def waits(who: str) -> None:
    print(tr(f"waits for {who}, which uses the images"), file=sys.stderr)


@system.command("df")
@output_option("json")
@common
def df(app: App, output: str) -> int:
    """What images, disks, snapshots and tests take, and what `system prune` would free."""
    from hikube_local.cli import tables
    from hikube_local.text import size

    rows = _rows(app)
    cells = [[u.kind, str(u.total), str(u.active), size(u.size), size(u.reclaimable)] for u in rows]
    header = ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    print(tables.show([asdict(u) for u in rows], output, lambda: tables.table(header, cells)))
    return ExitCode.DONE


def _rows(app: App) -> list[Any]:
    from hikube_local.engine import space
    from hikube_local.lab import results, root

    lab = root.folder(app.layout)
    roots = [lab / name for name in root.stale(app.layout)]
    kept = results.folder(app.layout)
    every = [p for p in lab.glob("t*") if p.is_dir()]
    tests = space.Use("Test roots", len(every), len(every) - len(roots), space.total(every), space.total(roots))
    reports = space.Use("Test reports", len(results.all(app.layout)), 0, space.on_disk(kept) if kept.is_dir() else 0, 0)
    return [*space.survey(app.session), tests, reports]


@system.command("prune")
@option(
    "--all",
    "everything",
    is_flag=True,
    help="Also imported images, which cannot be downloaded again, and test reports.",
)
@option("--dry-run", is_flag=True, help="Say what would be removed, and do nothing.")
@option("--yes", is_flag=True, help="Answer questions with yes.")
@common
def prune(app: App, everything: bool, dry_run: bool, yes: bool) -> int:
    """Remove unused images, incomplete downloads, and what `test` left; never a machine, a disk or a snapshot."""
    from hikube_local.engine import sent, space
    from hikube_local.lab import results, root
    from hikube_local.text import size

    spare, states, roots = space.unused(app.session, everything), space.warm(app.layout), root.stale(app.layout)
    reports, received = results.ended(app.layout) if everything else [], sent.all(app.layout)
    lab = root.folder(app.layout)
    for digest, (count, origin) in sorted(spare.images.items()):
        print(f"image {digest[:12]}  {size(count)}  {origin}")
    lines = [(f"incomplete download {p.name[:12]}", count) for p, count in sorted(spare.files.items())]
    lines += [(f"warm state {p.name[:12]}", space.total([p], lone=True)) for p in states]
    lines += [(f"file sent to this box {p.name[:12]}", space.on_disk(p)) for p in received]
    lines += [(f"test root {name}", space.on_disk(lab / name)) for name in roots]
    lines += [(f"test report {p.name}", space.on_disk(p)) for p in reports]
    for words, count in lines:
        print(f"{words}  {size(count)}")
    if not spare.images and not lines:
        print(tr("nothing to remove"), file=sys.stderr)
        return ExitCode.DONE
    freed = sum(count for count, _ in spare.images.values()) + sum(count for _, count in lines)
    if dry_run:
        print(tr(f"{size(freed)} would be freed"))
        return ExitCode.DONE
    confirm(f"Remove these ({size(freed)})?", yes)
    kept = space.drop_unused(app.session, spare, everything, waits)
    space.remove([*states, *reports, *received])
    for name in roots:
        root.remove(app.layout, name)
    print(tr(f"{kept} kept: now in use" if kept else f"{size(freed)} freed"))
    return ExitCode.DONE
