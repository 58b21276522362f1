"""`logs NAME`: the console's log, made safe."""

from __future__ import annotations

import sys
import time
from collections import deque

import click

from hikube_local.cli.app import App, common, complete_machine, option, seconds
from hikube_local.errors import ExitCode, HikubeError


@click.command("logs")
@click.argument("name", shell_complete=complete_machine)
@option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@option("--tail", type=int, default=-1, help="Only the last lines.")
@option("--since", default=None, callback=seconds, help="Only starts within this time (5m).")
@option("-p", "--previous", is_flag=True, help="The boot before.")
@option("--firmware", is_flag=True, help="The firmware's own log.")
@common
def logs(app: App, name: str, follow: bool, tail: int, since: float | None, previous: bool, firmware: bool) -> int:
    """What a machine said on its serial console since its last start."""
    from hikube_local.access.ssh import real
    from hikube_local.backends.qemu import starts
    from hikube_local.text import Cleaner

    obj = app.machine(name)
    world = real(app.backend(obj.backend), obj)
    folder = world.folder(obj)
    rows = starts.all(folder)
    kind = "firmware" if firmware else "console"
    log = folder / f"{kind}.log"
    if previous and len(rows) < 2:
        raise HikubeError("HK804", f"{obj.name} has no boot before this one")
    row = rows[-2 if previous else -1] if rows else {}
    if since is not None:
        recent = [r for r in rows if r["time"] >= time.time() - since]
        row = recent[0] if recent else row
    end = rows[-1].get(kind) if previous else None
    cleaner = Cleaner()
    text = "".join(map(cleaner.feed, starts.read(log, row.get(kind), end))) + ("" if follow else cleaner.end())
    if tail >= 0:
        text = "".join(deque(text.splitlines(keepends=True), maxlen=tail)) if tail else ""
    sys.stdout.write(text)
    sys.stdout.flush()
    if not follow:
        return ExitCode.DONE
    tail_of = starts.Tail(log, [log.stat().st_ino, log.stat().st_size] if log.exists() else None)
    while True:
        if block := tail_of.more():
            sys.stdout.write(cleaner.feed(block))
            sys.stdout.flush()
        time.sleep(0.2)
