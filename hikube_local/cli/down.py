"""`down` and `delete`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from hikube_local.cli.app import App, confirm
from hikube_local.cli.load import load
from hikube_local.cli.options import (
    adopt_option,
    common,
    complete_object,
    dry_run_option,
    files_option,
    ignored,
    option,
    seconds,
)
from hikube_local.cli.references import reference, references, urls
from hikube_local.errors import ExitCode, UsageError, worst
from hikube_local.language import tr


def _remove(app: App, keys: list[Any], grace: float = 30.0, force: bool = False) -> int:
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.engine.remove import remove
    from hikube_local.plan.steps import RunOptions

    if not keys:
        print(tr("nothing to do"), file=sys.stderr)
        return ExitCode.DONE
    with ProgressPrinter(app) as progress:
        results = remove(app.session, keys, RunOptions(grace=grace, force=force), progress)
    app.refresh_ssh_config()
    for (kind, _, name), done in sorted(results.items()):
        if not done.error and app.store.get(done.key) is None:
            print(f"{kind.lower()}.apps.cozystack.io/{name} deleted")
    return worst(done.exit_code for done in results.values())


@click.command("down")
@click.argument("words", shell_complete=complete_object, metavar="[FILE|NAME]...", nargs=-1)
@files_option()
@option("--disks", is_flag=True, help="Delete the disks and their data too.")
@option("-A", "--all-namespaces", is_flag=True, help="In every namespace.")
@option("--grace", default="30s", callback=seconds, help="How long a machine may take to shut down (30s).")
@option("--force", is_flag=True, help="Do not wait for the guests.")
@option("--yes", is_flag=True, help="Answer questions with yes.")
@adopt_option()
@common
def down(
    app: App,
    words: tuple[str, ...],
    filename: tuple[str, ...],
    disks: bool,
    all_namespaces: bool,
    grace: float,
    force: bool,
    yes: bool,
) -> int:
    """Stop and remove machines (default: all in the namespace). Disks are kept unless --disks is given."""
    from hikube_local.api.objects import DISK, INSTANCE
    from hikube_local.engine.remove import users, with_disks

    known = app.store.names(INSTANCE, app.namespace)
    # A folder that happens to be called like a machine does not hide the machine.
    named = [w for w in words if w == "-" or "://" in w or (w not in known and os.path.exists(w))]
    names = [w for w in words if w not in named]
    files = urls((*named, *filename))
    if app.context.kind == "kube" and not files and not names:
        raise UsageError("HK810", "in a tenant the machines are named", fix="hikube-local down FILE, or down NAME")
    stored = app.store.objects(None, None if all_namespaces else app.namespace)
    if files or names:
        keys = {(app.find(*reference(n, INSTANCE)) if "/" in n else app.machine(n)).key for n in names}
        if files:
            keys |= {i.object.key for i in load(app, tuple(files), for_plan=False, quiet=True, makes=False).objects}
        machines = [o for o in app.store.objects(INSTANCE) if o.key in keys]
        named_disks = [o for o in app.store.objects(DISK) if o.key in keys]
        doomed = list({o.key: o for o in (*with_disks(app.session, machines), *named_disks)}.values())
    else:
        machines = [o for o in stored if o.kind == INSTANCE]
        doomed = [o for o in stored if o.kind == DISK]
    targets = [o.key for o in machines]
    if disks:
        used = users(app.session, [*targets, *(o.key for o in doomed)])
        for disk in (o for o in doomed if o.key in used):
            print(tr(f"{disk.ref} is kept: used by {', '.join(used[disk.key])}"), file=sys.stderr)
        doomed = [o for o in doomed if o.key not in used]
        if doomed:
            app.session.writes()
            listing = ", ".join(f"{o.namespace}/{o.name}" for o in doomed)
            confirm(f"Delete the disks {listing} with all their data?", yes)
        targets += [o.key for o in doomed]
    code = _remove(app, targets, grace, force)
    if not files and not names and app.layout.runtime.exists():
        from hikube_local.engine.session import capabilities

        for host in app.session.every(capabilities.OnThisHost):
            host.tidy()
    return code


@click.command("delete")
@click.argument("words", shell_complete=complete_object, metavar="KIND/NAME...", nargs=-1)
@files_option()
@option("--yes", is_flag=True, help="Answer questions with yes.")
@adopt_option()
@option("--grace", default="30s", callback=seconds, help="How long a machine may take to shut down (30s).")
@option("--force", is_flag=True, help="Do not wait for the guests.")
@option("--all", "everything", is_flag=True, help="All objects of the kind.")
@option("-A", "--all-namespaces", is_flag=True, help="With --all: in every namespace.")
@option("-l", "--selector", "labels", default="", help="Label selector: the objects of the kind that fit.")
@option("--now", is_flag=True, help="The same as --grace 1s.")
@option("--grace-period", type=int, default=None, help="kubectl's: seconds; 0 does not wait for the guest.")
@dry_run_option()
@option("--ignore-not-found", is_flag=True, help="Do not fail if an object does not exist.")
@ignored("--cascade", "--wait", "--timeout")
@common
def delete(
    app: App,
    words: tuple[str, ...],
    filename: tuple[str, ...],
    yes: bool,
    grace: float,
    force: bool,
    everything: bool,
    all_namespaces: bool,
    labels: str,
    now: bool,
    grace_period: int | None,
    dry_run: bool,
    ignore_not_found: bool,
    **_: object,
) -> int:
    """Delete objects: a machine (its disks stay), or a disk with its data."""
    from hikube_local.api.objects import DISK
    from hikube_local.api.selectors import selector
    from hikube_local.engine.remove import require_free
    from hikube_local.errors import NotFound

    grace, force = (1.0 if now else grace_period if grace_period is not None else grace), force or grace_period == 0
    fits = selector(labels)
    keys = []
    for kind, name in references(words):
        if name is None:
            if not everything and not labels:
                raise UsageError("HK810", "no name is given", fix="name the objects, or add --all or -l")
            here = app.store.objects(kind, None if all_namespaces else app.namespace)
            keys += [o.key for o in here if fits(o.labels)]
            continue
        if all_namespaces:
            raise UsageError("HK810", "a name cannot be asked for in all namespaces", fix="leave -A or the name out")
        try:
            keys.append(app.find(kind, name).key)
        except NotFound:
            if not ignore_not_found:
                raise
    if filename:
        stored = {o.key for o in app.store.objects()}
        keys += [
            k
            for i in load(app, urls(filename), for_plan=False, quiet=True, makes=False).objects
            if (k := i.object.key) in stored
        ]
    if not words and not filename:
        raise UsageError("HK810", "no object given", fix="write delete vminstance/NAME, or delete -f FILE")
    disks = [k for k in keys if k.kind == DISK]
    require_free(app.session, keys)
    if dry_run:
        for key in sorted(set(keys)):
            print(f"{key.kind.lower()}.apps.cozystack.io/{key.name} deleted (dry run)")
        return ExitCode.DONE
    if disks:
        app.session.writes()
        confirm(f"Delete the disks {', '.join('/'.join(k[1:]) for k in disks)} with all their data?", yes)
    return _remove(app, keys, grace, force)
