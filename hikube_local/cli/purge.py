"""`purge`: end everything of ours, also what is damaged or half made."""

from __future__ import annotations

import sys

import click

from hikube_local.cli.app import App, confirm
from hikube_local.cli.options import common, option
from hikube_local.errors import ExitCode, HikubeError
from hikube_local.language import tr


@click.command("purge")
@option("-A", "--all-namespaces", is_flag=True, help="All namespaces and everything else of this state root.")
@option("--disks", is_flag=True, help="The disks and their data too.")
@option("--images", is_flag=True, help="With -A: the downloaded images too.")
@option("--yes", is_flag=True, help="Answer questions with yes.")
@common
def purge(app: App, all_namespaces: bool, disks: bool, images: bool, yes: bool) -> int:
    """Stop hikube-local's processes and remove its machines, networks, sockets and folders; disks are kept unless --disks.

    Unlike `down`, it does not wait for guests, and it also removes damaged objects.
    """
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.engine import purge as engine
    from hikube_local.lab import root as lab

    if images and not all_namespaces:
        raise click.UsageError("--images needs -A: images are shared by all namespaces")
    doomed = engine.find(app.session, None if all_namespaces else app.namespace, disks, images)
    tests = [t for t in lab.idle(app.layout) if disks or lab.runs(app.layout, t)] if all_namespaces else []
    names = [f"test root {name}{' with its disks' if disks else ': its processes'}" for name in tests]
    if not doomed.names and not names:
        print(tr("nothing to purge"), file=sys.stderr)
        return ExitCode.DONE
    for name in (*doomed.names, *names):
        print(name)
    data = ", with all data on the disks" if disks and (tests or doomed.data) else ""
    confirm(f"Remove all this{data}?", yes)
    with ProgressPrinter(app) as progress:
        failed = engine.end(app.session, doomed, progress)
    for name in tests:
        try:
            (lab.remove if disks else lab.end)(app.layout, name)
        except HikubeError as e:
            failed.append(e)
    engine.sweep(app.session, doomed)
    if all_namespaces:
        from hikube_local.access import ssh

        if ssh.forget_config(app.layout):
            print(tr(f"the Include line of {ssh.user_config()}"))
    for error in failed:
        print(tr(f"removed by force: {error.what}"), file=sys.stderr)
    print("purged")
    return ExitCode.DONE
