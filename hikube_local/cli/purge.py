"""`purge`: end everything of ours, also what is damaged or half made."""

from __future__ import annotations

import sys
from typing import Any

import click

from hikube_local.cli.app import App, common, confirm, option
from hikube_local.errors import ExitCode, HikubeError


@click.command("purge")
@option("-A", "--all-namespaces", is_flag=True, help="Everything of this state root.")
@option("--disks", is_flag=True, help="The disks and their data too.")
@option("--images", is_flag=True, help="With -A: the downloaded images too.")
@option("--yes", is_flag=True, help="Answer questions with yes.")
@common
def purge(app: App, all_namespaces: bool, disks: bool, images: bool, yes: bool) -> int:
    """End every process and remove every machine, network, socket and folder of ours; disks stay, unless --disks.

    Unlike `down` it waits for no guest and also removes what is damaged.
    """
    from hikube_local.api.objects import DISK, INSTANCE
    from hikube_local.backends.protocol import Options
    from hikube_local.backends.qemu import leftovers
    from hikube_local.backends.qemu.world import Qemu
    from hikube_local.cli.story import Story
    from hikube_local.lab import root as lab

    if images and not all_namespaces:
        raise click.UsageError("--images belongs to -A: images are shared by all namespaces")
    world = app.backend("qemu")
    assert isinstance(world, Qemu)
    namespace = None if all_namespaces else app.namespace
    doomed = [o for o in app.store.objects(None, namespace) if o.kind == INSTANCE or disks]
    names = [f"{o.kind.lower()} {o.namespace}/{o.name}" for o in doomed]
    stays = [o for o in app.store.objects() if o.key not in {d.key for d in doomed}]
    whole = all_namespaces or not any(o.kind == INSTANCE for o in stays)
    if whole:
        names += [f"process {pid} ({name})" for pid, name in leftovers.processes(app.layout)]
        names += [f"folder {p}" for p in leftovers.folders(app.layout, disks and all_namespaces, images)]
    tests = [t for t in lab.idle(app.layout) if disks or lab.runs(app.layout, t)] if all_namespaces else []
    names += [f"test root {name}{' with its disks' if disks else ': its processes'}" for name in tests]
    if not names:
        print("nothing to purge", file=sys.stderr)
        return ExitCode.DONE
    for name in names:
        print(name)
    question = "Remove all this" + (
        ", with all data on the disks?" if disks and (tests or any(o.kind == DISK for o in doomed)) else "?"
    )
    confirm(question, yes)
    app.store.mark_deleted(o.key for o in doomed)
    failed: list[HikubeError] = []
    with Story(app) as story:
        results = app.reconciler(story, Options(grace=0, force=True)).reconcile([o.key for o in doomed])
        failed = [_by_force(app, world, o, e) for o in doomed if (e := results[o.key].error)]
    for name in tests:
        try:
            (lab.remove if disks else lab.end)(app.layout, name)
        except HikubeError as e:
            failed.append(e)
    if whole:
        with world.network_lock():
            world.tenants.lan.drop_all()
            leftovers.end(world.carrier)
            leftovers.remove(app.layout, disks and all_namespaces, images)
    if whole and all_namespaces:
        from hikube_local.access import ssh

        if ssh.forget_config(app.layout):
            print(f"the Include line of {ssh.user_config()}")
    for error in failed:
        print(f"removed by force: {error.what}", file=sys.stderr)
    print("purged")
    return ExitCode.DONE


def _by_force(app: App, world: Any, obj: Any, error: HikubeError) -> HikubeError:
    """What could not be deleted in order: its files and its rows go all the same. Its processes are ended with the rest."""
    from hikube_local import files

    if obj.kind == "VMDisk":
        from hikube_local.backends.qemu import checkpoints

        checkpoints.after_disk(world, obj)
    files.remove_folder(world.folder(obj), app.layout.state)
    app.store.forget(obj.key)
    return error
