"""`snapshot create|list|restore|delete` and `reset`."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from hikube_local.cli.app import App, confirm
from hikube_local.cli.options import common, complete_machine, option, output_option
from hikube_local.errors import ExitCode
from hikube_local.language import tr


@click.group("snapshot")
def snapshot() -> None:
    """Checkpoints of a machine: its disks; of a running machine also memory, firmware variables and TPM."""


@snapshot.command("create")
@click.argument("name", shell_complete=complete_machine)
@click.argument("snap", default="")
@option("--keep", type=click.IntRange(1), default=None, help="Keep the newest N taken with --keep, delete older ones.")
@common
def create(app: App, name: str, snap: str, keep: int | None) -> int:
    """Take a checkpoint: snapshot create NAME [SNAP]; the machine keeps running."""
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.engine import snapshots

    obj = app.machine(name)
    with ProgressPrinter(app) as progress:
        snap = snapshots.create(app.session, obj, snap, progress, keep)
    print(tr(f"snapshot {snap} of {obj.name} created"))
    return ExitCode.DONE


@snapshot.command("list")
@click.argument("name", default="", shell_complete=complete_machine)
@output_option("json")
@common
def list_(app: App, name: str, output: str) -> int:
    """List the checkpoints of a machine, or of all machines of the namespace."""
    from hikube_local.api.objects import INSTANCE
    from hikube_local.cli import tables
    from hikube_local.engine import snapshots
    from hikube_local.engine.session import capabilities
    from hikube_local.text import age, size, timestamp

    machines = [app.machine(name)] if name else app.store.objects(INSTANCE, app.namespace)
    found = []
    for obj in machines:
        if name or app.session.able(obj, capabilities.Snapshots) is not None:
            found += [(obj, c) for c in snapshots.all(app.session, obj)]
    rows = [
        {
            "machine": o.name,
            "name": c.name,
            "created": timestamp(c.created),
            "memory": c.memory,
            "size": c.size,
            "disks": c.disks,
            "instanceID": c.instance_id,
            "kept": c.kept,
        }
        for o, c in found
    ]
    cells = [
        [c.name, "yes" if c.memory else "no", size(c.size), str(len(c.disks)), age(time.time() - c.created)]
        for _, c in found
    ]
    header = ["NAME", "MEMORY", "SIZE", "DISKS", "AGE"]
    if not name:
        header, cells = ["MACHINE", *header], [[o.name, *row] for (o, _), row in zip(found, cells, strict=True)]
    print(tables.show(rows, output, lambda: tables.table(header, cells)))
    return ExitCode.DONE


@snapshot.command("restore")
@click.argument("name", shell_complete=complete_machine)
@click.argument("snap")
@option("--yes", is_flag=True, help="Answer questions with yes.")
@common
def restore(app: App, name: str, snap: str, yes: bool) -> int:
    """Restore a checkpoint; everything that the machine did since then is lost."""
    from hikube_local.engine import snapshots

    obj = app.machine(name)
    point = snapshots.find(app.session, obj, snap)
    return _back(app, obj, point, yes, f"Go back to {snap}? What {name} wrote since is lost.")


@snapshot.command("delete")
@click.argument("name", shell_complete=complete_machine)
@click.argument("snap")
@option("--yes", is_flag=True, help="Answer questions with yes.")
@common
def delete(app: App, name: str, snap: str, yes: bool) -> int:
    """Delete a checkpoint; the machine itself is not changed."""
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.engine import snapshots

    obj = app.machine(name)
    snapshots.find(app.session, obj, snap)
    confirm(f"Delete the snapshot {snap} of {obj.name}?", yes)
    with ProgressPrinter(app) as progress:
        snapshots.delete(app.session, obj, snap, progress)
    print(tr(f"snapshot {snap} of {obj.name} deleted"))
    return ExitCode.DONE


@click.command("reset")
@click.argument("name", shell_complete=complete_machine)
@option("--yes", is_flag=True, help="Answer questions with yes.")
@common
def reset(app: App, name: str, yes: bool) -> int:
    """Restore the checkpoint that `up` takes when cloud-init is done for the first time."""
    from hikube_local.engine import snapshots

    obj = app.machine(name)
    point = snapshots.first_boot(app.session, obj)
    return _back(app, obj, point, yes, f"Reset {name}? What it wrote since its first boot is lost.")


def _back(app: App, obj: Any, point: Any, yes: bool, question: str) -> int:
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.engine import snapshots

    confirm(question, yes)
    with ProgressPrinter(app) as progress:
        done = snapshots.restore(app.session, obj, point, progress)
    print(tr(f"{obj.name} restored to {point.name} ({done.seconds:.1f} s)"))
    if not done.running:
        print(tr(f"it is off: hikube-local start {obj.name}"), file=sys.stderr)
    return ExitCode.DONE
