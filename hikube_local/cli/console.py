"""`console`, `vnc`, `screenshot`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from hikube_local import files
from hikube_local.cli.app import App
from hikube_local.cli.options import common, complete_machine, option
from hikube_local.errors import ExitCode, HikubeError, UsageError
from hikube_local.language import tr


@click.command("console")
@click.argument("name", shell_complete=complete_machine)
@common
def console(app: App, name: str) -> int:
    """Type into a machine's serial console; leave with Ctrl-]."""
    from hikube_local.access import console as access
    from hikube_local.engine.session import capabilities

    obj = app.machine(name)
    access.attach(app.session.require(obj, capabilities.Consoles).console(obj), obj.name)
    return ExitCode.DONE


@click.command("vnc")
@option("--proxy-only", is_flag=True, help="Open a local port and print it, start no viewer.")
@option("--port", type=int, default=0, help="The local port (default: a free one).")
@click.argument("name", shell_complete=complete_machine)
@common
def vnc(app: App, name: str, proxy_only: bool, port: int) -> int:
    """A machine's screen, in a VNC viewer if one is installed."""
    from hikube_local.access import forward
    from hikube_local.engine.session import capabilities

    obj = app.machine(name)
    sock = app.session.require(obj, capabilities.Screens).screen(obj)
    viewer = next((v for v in ("remote-viewer", "vncviewer", "gvncviewer") if shutil.which(v)), None)
    if viewer is None and not proxy_only:
        told = "no VNC viewer is installed", "sudo apt-get install virt-viewer; or vnc --proxy-only"
        if not sys.stdout.isatty():
            raise HikubeError("HK601", told[0], fix=told[1])
        print(
            tr(f"{told[0]} ({told[1]}); any viewer may connect to the address below, Ctrl-C ends it"), file=sys.stderr
        )
    listener = forward.listen("127.0.0.1", port)
    where = listener.getsockname()[1]
    print(f'{{"port": {where}}}' if proxy_only else f"VNC at 127.0.0.1:{where}", flush=True)
    if viewer and not proxy_only:
        target = f"vnc://127.0.0.1:{where}" if viewer == "remote-viewer" else f"127.0.0.1::{where}"
        os.posix_spawn(str(shutil.which(viewer)), [viewer, target], os.environ)
    forward.serve({listener: ("unix", str(sock))})
    return ExitCode.DONE


@click.command("screenshot")
@click.argument("name", shell_complete=complete_machine)
@click.argument("file", type=click.Path(path_type=Path))
@common
def screenshot(app: App, name: str, file: Path) -> int:
    """A picture of a machine's screen as PNG: screenshot web screen.png, or - for standard output."""
    from hikube_local.engine.session import capabilities

    to_stdout = str(file) == "-"
    if not to_stdout and file.suffix.lower() not in ("", ".png"):
        raise UsageError(
            "HK810", f"screenshots are PNG files; {file} has another extension", fix=f"write {file.with_suffix('.png')}"
        )
    if not to_stdout and not file.absolute().parent.is_dir():
        raise UsageError(
            "HK810", f"there is no folder {file.absolute().parent}", fix="give a file in an existing folder"
        )
    obj = app.machine(name)
    picture = app.session.require(obj, capabilities.Screens).screenshot(obj)
    if to_stdout:
        sys.stdout.buffer.write(picture)
        sys.stdout.flush()
    else:
        files.write(file.absolute(), picture, 0o644)
        print(file)
    return ExitCode.DONE
