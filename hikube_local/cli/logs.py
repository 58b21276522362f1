"""`logs NAME`: the console's log, made safe."""

from __future__ import annotations

import sys
import time
from collections import deque

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common, complete_machine, option, seconds
from hikube_local.errors import ExitCode

EVERY = 0.2  # seconds between two looks at a log that is followed


@click.command("logs")
@click.argument("name", shell_complete=complete_machine)
@option("-f", "--follow", is_flag=True, help="Follow: print new lines as they come.")
@option("--tail", type=int, default=-1, help="Only the last lines.")
@option("--since", default=None, callback=seconds, help="Only starts within this time (5m).")
@option("-p", "--previous", is_flag=True, help="The log of the previous boot.")
@option("--firmware", is_flag=True, help="The firmware's own log.")
@common
def logs(app: App, name: str, follow: bool, tail: int, since: float | None, previous: bool, firmware: bool) -> int:
    """What a machine said on its serial console since its last start."""
    from hikube_local.engine.session import capabilities

    obj = app.machine(name)
    log = app.session.require(obj, capabilities.Logs).log(obj, "firmware" if firmware else "console")
    text = log.read(previous, since, whole=not follow)
    if tail >= 0:
        text = "".join(deque(text.splitlines(keepends=True), maxlen=tail)) if tail else ""
    sys.stdout.write(text)
    sys.stdout.flush()
    for more in log.more() if follow else ():
        sys.stdout.write(more)
        sys.stdout.flush()
        if not more:
            time.sleep(EVERY)
    return ExitCode.DONE
