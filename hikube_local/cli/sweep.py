"""`test` in a tenant, and `sweep`, for what a run that was killed left there."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hikube_local.cli.app import App, confirm
from hikube_local.cli.options import common, option
from hikube_local.errors import ExitCode, UsageError
from hikube_local.events import ignore
from hikube_local.language import tr

if TYPE_CHECKING:
    from hikube_local.cli.test import How, Tried
    from hikube_local.engine.elsewhere import Elsewhere

PATIENCE, SLACK = 900.0, 1800.0  # seconds for a machine, and for what comes before and after


def in_a_tenant(app: App, objects: list[Any], how: How, yes: bool) -> Tried:
    """Copies there, under names of their own; what earlier runs left is taken away first."""
    from hikube_local.access import commands, keys, ssh
    from hikube_local.lab import copies, runs
    from hikube_local.lab.tenant import TenantTrial

    limit = how.timeout or PATIENCE
    app.session.writes()
    words, much = copies.cost(objects, limit)
    if much:
        confirm(f"This makes {words} in {app.context.name}. Go on?", yes)
    else:
        _say(f"made for this test, and removed at its end: {words}")
    runs.require_gone(runs.sweep(there(app), ignore)[1])
    key = keys.own_key(app.layout)

    def tried(objects: list[Any], wanted: list[Any], image: str, emit: Any) -> Iterator[list[Any]]:
        run = runs.new(limit + SLACK)
        made = copies.copies(objects, app.namespace, run, keys.public(app.layout))
        if how.leave:
            where = f"hikube-local --context {app.context.name}"
            for obj in (o for o in made.values() if o.kind == "VMInstance"):
                _say(f"kept: {where} ssh {obj.name}")
            _say(f"  remove: {where} sweep --run {run.id}")
        with (
            tempfile.TemporaryDirectory(prefix="hkt-") as folder,
            runs.held(there(app), run, [o.key for o in made.values()], emit, how.leave),
        ):

            def enter(obj: Any) -> Any:
                return commands.entered(app.session, obj, Path(tempfile.mkdtemp(dir=folder)), _say, key)

            yield TenantTrial(app.session, emit, enter, limit, how.thorough).run(objects, made, wanted, image)
        for obj in made.values():
            ssh.forget(app.session, obj)

    return tried


def there(app: App) -> Elsewhere:
    """The tenant's session."""
    from hikube_local.engine.elsewhere import Elsewhere

    assert isinstance(app.session, Elsewhere)
    return app.session


def _say(text: str) -> None:
    print(tr(text), file=sys.stderr)


@click.command("sweep")
@option("--run", "run", default="", metavar="RUN", help="One run, also before its time is over.")
@option("--list", "listed", is_flag=True, help="List what runs of `test` have there; nothing is removed.")
@option("--when-closed", is_flag=True, hidden=True, help="Wait until standard input is closed.")
@common
def sweep(app: App, run: str, listed: bool, when_closed: bool) -> int:
    """Remove what killed runs of `test` left in a tenant: by the labels on it, so from any machine.

    Exit codes: 0 nothing of it is left, 5 something could not be removed.
    """
    if app.context.kind != "kube":
        why = "on this machine `test` clears up after itself"
        raise UsageError("HK825", "sweep is about runs of `test` in a tenant", why, "add --context NAME")
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.lab import copies, runs

    if listed:
        for obj in runs.of_runs(there(app)):
            print(f"{obj.labels[copies.RUN]}  {copies.told(obj)}")
        return ExitCode.DONE
    with ProgressPrinter(app) as printer:
        if when_closed:
            while sys.stdin.buffer.read(4096):
                pass
            runs.outlive(there(app), run, printer)
            return ExitCode.DONE
        gone, left = runs.sweep(there(app), printer, run)
    if not gone:
        _say("nothing to remove")
    runs.require_gone(left)
    return ExitCode.DONE
