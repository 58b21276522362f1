"""`autostart enable|disable|status|run`."""

from __future__ import annotations

import sys

import click

from hikube_local.cli.app import App, confirm
from hikube_local.cli.options import common, option
from hikube_local.errors import ExitCode, worst
from hikube_local.language import tr


@click.group("autostart")
def autostart() -> None:
    """Start machines when this host boots (systemd): enable, disable, status, run."""


@autostart.command("enable")
@option("--yes", is_flag=True, help="Write the unit without asking.")
@common
def enable(app: App, yes: bool) -> int:
    """Show the systemd unit, write it, and enable it: machines whose runStrategy is Always start at boot."""
    from hikube_local.engine import autostart as engine

    engine.require_systemd()
    unit = engine.unit(app.session)
    print(f"# {unit.path}\n{unit.text}", end="")
    confirm(f"Write {unit.path} and enable it?", yes)
    engine.enable(unit)
    print(f"{unit.path.name} enabled", file=sys.stderr)
    if unit.user and engine.needs_linger(app.layout):
        print(
            tr("it starts at your first login; to start it at boot: sudo loginctl enable-linger $USER"),
            file=sys.stderr,
        )
    return ExitCode.DONE


@autostart.command("disable")
@option("--yes", is_flag=True, help="Do not ask.")
@common
def disable(app: App, yes: bool) -> int:
    """Disable and remove the unit; running machines are not stopped."""
    from hikube_local.engine import autostart as engine

    engine.require_systemd()
    unit = engine.unit(app.session)
    if not unit.path.exists():
        print(tr("autostart is not enabled"), file=sys.stderr)
        return ExitCode.DONE
    confirm(f"Remove {unit.path}?", yes)
    engine.disable(unit)
    print(f"{unit.path.name} removed", file=sys.stderr)
    return ExitCode.DONE


@autostart.command("status")
@common
def status(app: App) -> int:
    """Whether the unit is there, and which machines it starts."""
    from hikube_local.engine import autostart as engine

    unit = engine.unit(app.session)
    state = "enabled" if unit.path.exists() else "not enabled"
    print(f"autostart: {state} ({unit.path})")
    for obj in engine.wanted(app.session):
        print(f"  {obj.ref}{app.in_namespace(obj)}")
    return ExitCode.DONE


@autostart.command("run")
@common
def run_now(app: App) -> int:
    """Start the machines whose runStrategy is Always, except those stopped with `stop`. The unit runs this."""
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.engine import autostart as engine

    with ProgressPrinter(app) as progress:
        results = engine.start(app.session, progress)
    return worst(done.exit_code for done in results.values())
