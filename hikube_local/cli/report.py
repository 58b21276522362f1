"""`report`: what somebody who helps needs to see, in one file."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import time
from pathlib import Path

import click

from hikube_local.cli.app import App, confirm
from hikube_local.cli.options import common, complete_machine, option
from hikube_local.errors import ExitCode, UsageError


@click.command("report")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete_machine)
@option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    default=None,
    help="The file to write (default: hikube-local-report-TIME.tar.gz).",
)
@option("--logs/--no-logs", default=True, help="With the ends of the consoles' and firmwares' logs.")
@option("--yes", is_flag=True, help="Answer questions with yes.")
@common
def report(app: App, names: tuple[str, ...], target: Path | None, logs: bool, yes: bool) -> int:
    """Collect what a bug report needs: versions, doctor, objects, events, logs, domain XML; of NAME or of all machines.

    User-data, keys, passwords and tokens are left out. What it holds is listed before it is written; look at the logs
    before you send it: a guest may print what is secret in words of its own.
    """
    from hikube_local.api.objects import INSTANCE
    from hikube_local.engine import support
    from hikube_local.text import size

    target = target or Path(time.strftime("hikube-local-report-%Y%m%d-%H%M%S.tar.gz", time.gmtime()))
    if target.exists():
        raise UsageError("HK810", f"{target} exists", fix="choose another name with --to")
    machines = [app.machine(n) for n in names] if names else app.store.objects(INSTANCE)
    files = support.collect(app.session, machines, logs)
    for name, text in files.items():
        print(f"{size(len(text.encode())):>8}  {name}")
    confirm(f"Write these {len(files)} files to {target}?", yes)
    _write(target, files)
    print(f"{target} written", file=sys.stderr)
    return ExitCode.DONE


def _write(target: Path, files: dict[str, str]) -> None:
    """Readable by its owner alone."""
    folder = target.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as out, tarfile.open(fileobj=out, mode="w:gz") as tar:
            for name, text in files.items():
                content = text.encode("utf-8", "replace")
                entry = tarfile.TarInfo(f"{folder}/{name}")
                entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
                tar.addfile(entry, io.BytesIO(content))
    except OSError as e:
        raise UsageError(
            "HK810", f"{target} cannot be written: {e.strerror}", fix="choose another place with --to"
        ) from None
