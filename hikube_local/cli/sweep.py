"""`test` in a tenant, and `sweep`, for what a run that was killed left there."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hikube_local.cli.app import App, confirm
from hikube_local.cli.options import common, option
from hikube_local.errors import ExitCode, UsageError
from hikube_local.events import ignore
from hikube_local.language import tr
from hikube_local.osdep import require_unix
from hikube_local.text import timestamp

if TYPE_CHECKING:
    from hikube_local.cli.test import How, Tried
    from hikube_local.engine.elsewhere import Elsewhere

PATIENCE, SLACK = 900.0, 1800.0  # seconds for a machine, and for what comes before and after


def require_possible(watch: bool, leave: bool, trust_console: bool, offline: bool, **_: Any) -> None:
    """HK825 where an option of `test` has no meaning in a tenant."""
    wrong = {"--watch": watch, "--trust-console": trust_console, "--offline": offline}
    if odd := [name for name, given in wrong.items() if given]:
        raise UsageError("HK825", f"{odd[0]} is not possible in a tenant", "its machines are others'", "leave it out")
    if leave and click.get_current_context().get_parameter_source("leave") is not ParameterSource.COMMANDLINE:
        what = "HIKUBE_LOCAL_TEST_KEEP is not heeded in a tenant, where machines cost"
        raise UsageError("HK825", what, fix="unset it, or write --keep")


def in_a_tenant(app: App, items: list[Any], wanted: list[Any], each: list[list[Any]], how: How, yes: bool) -> Tried:
    """Copies there, under names of their own; what killed runs of this machine left is taken away first.

    `items`: the manifest's objects with their places; `each`: its objects on each of the images.
    """
    from hikube_local.access import commands, keys, ssh
    from hikube_local.lab import copies, runs
    from hikube_local.lab.tenant import TenantTrial

    require_unix("a test in a tenant")
    session = there(app)
    session.require_inside(i.object.key for i in items)
    _judged(app, items, each)
    limit = how.timeout or PATIENCE * how.factor
    reboots = len({o.key for o in each[0] for c in wanted if c.after_reboot and c.concerns(o.name)})
    longest = limit * (1 + reboots)
    session.writes()
    words, much = copies.cost(each[0], len(each), longest * len(each))
    if much:
        confirm(f"This makes {words} in {app.context.name}. Go on?", yes)
    else:
        _say(f"made for this test, and removed at its end: {words}")
    for obj in runs.sweep(session, ignore, mine=True)[1]:
        _say(f"left by an earlier run, and could not be removed: {copies.told(obj)}")

    def tried(objects: list[Any], wanted: list[Any], image: str, emit: Any) -> Iterator[list[Any]]:
        run = runs.new(longest + SLACK)
        own = keys.pair(runs.key(session, run))
        made = copies.copies(objects, app.namespace, run, keys.public_of(own))
        if how.leave:
            where = f"hikube-local --context {app.context.name}"
            for obj in (o for o in made.values() if o.kind == "VMInstance"):
                _say(f"kept until {timestamp(run.expires)}: {where} ssh -i {own} {obj.name}")
            _say(f"  remove: {where} sweep --run {run.id}")
        try:
            with (
                tempfile.TemporaryDirectory(prefix="hkt-") as folder,
                runs.held(session, run, [o.key for o in made.values()], emit, how.leave),
            ):

                def enter(obj: Any) -> Any:
                    return commands.entered(session, obj, Path(tempfile.mkdtemp(dir=folder)), _say, own)

                yield TenantTrial(session, emit, enter, limit, how.thorough).run(objects, made, wanted, image)
        finally:
            for obj in () if how.leave else made.values():
                ssh.forget(session, obj)

    return tried


def _judged(app: App, items: list[Any], each: list[list[Any]]) -> None:
    """What no copy is true to, what the tenant does not have, and what its quotas do not leave, on each of the images."""
    from dataclasses import replace

    from hikube_local.cli.load import Invalid
    from hikube_local.cli.test import tell
    from hikube_local.lab import copies
    from hikube_local.manifests.offer import beyond, missing

    offer = app.session.offer()
    found: dict[tuple[str, str, str], Any] = {}
    for objects in each:
        placed = [replace(i, object=o) for i, o in zip(items, objects, strict=True)]
        made = copies.copies(objects, app.namespace, copies.Run("0", "", 0.0), "")
        wrong = list(copies.refused(placed))
        if offer is not None:
            wrong += [f for i in placed for f in missing(i, offer)]
            wrong += beyond([(i, made[i.object.key]) for i in placed], {}, offer)
        found |= {(f.code, f.message, f.ref): f for f in wrong}
    if found:
        tell(list(found.values()))
    if any(f.severity == "error" for f in found.values()):
        raise Invalid([f.as_json() for f in found.values()])


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
    session = there(app)  # what it logs in with may be gone when it is needed
    with ProgressPrinter(app) as printer:
        if when_closed:
            while sys.stdin.buffer.read(4096):
                pass
            runs.outlive(session, run, printer)
            return ExitCode.DONE
        gone, left = runs.sweep(session, printer, run)
    if not gone:
        _say("nothing to remove")
    runs.require_gone(left)
    return ExitCode.DONE
