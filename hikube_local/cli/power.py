"""`start`, `stop`, `restart`, `pause`, `unpause`."""

from __future__ import annotations

from typing import Any

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import adopt_option, common, complete_machine, option, seconds
from hikube_local.errors import ExitCode, worst


def _all(command: Any) -> Any:
    """The machines that a command names, or all of them."""
    command = adopt_option()(command)
    command = option("-A", "--all-namespaces", is_flag=True, help="With --all: in every namespace.")(command)
    command = option("--all", "everything", is_flag=True, help="All machines of the namespace.")(command)
    return click.argument("names", shell_complete=complete_machine, metavar="NAME...", nargs=-1)(command)


def _tell(objects: list[Any], results: dict[Any, Any], word: str) -> int:
    for obj in objects:
        done = results[obj.key]
        if not done.error:
            print(f"VM {obj.name} {word if done.changed else _ALREADY.get(word, word)}")
    return worst(done.exit_code for done in results.values())


# What is said of one that was so before.
_ALREADY = {"was scheduled to start": "is already running", "was stopped": "is already stopped"}


@click.command("start")
@_all
@option("--wait/--no-wait", default=False, help="Wait until the machine is ready.")
@option("--timeout", default=None, callback=seconds, help="How long to wait (5m).")
@option("--pace", type=float, default=0.0, help="Simulator: seconds of a whole boot.")
@common
def start(app: App, wait: bool, timeout: float | None, pace: float, **named: Any) -> int:
    """Start machines."""
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.engine import power
    from hikube_local.plan.steps import RunOptions

    objects = app.machines(**named)
    with ProgressPrinter(app) as progress:
        results = power.start(app.session, objects, RunOptions(pace=pace), progress, power.Wait(wait, timeout))
    return _tell(objects, results, "was scheduled to start")


@click.command("stop")
@_all
@option("--force", is_flag=True, help="Do not wait for the guest.")
@option("--grace", default="30s", callback=seconds, help="How long the guest may take (30s).")
@common
def stop(app: App, force: bool, grace: float, **named: Any) -> int:
    """Stop machines; they stay stopped until `start`, or an `up` of a manifest that says they run."""
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.engine import power
    from hikube_local.plan.steps import RunOptions

    objects = app.machines(**named)
    with ProgressPrinter(app) as progress:
        results = power.stop(app.session, objects, RunOptions(force=force, grace=grace), progress)
    return _tell(objects, results, "was stopped")


@click.command("restart")
@_all
@option("--force", is_flag=True, help="Do not wait for the guest.")
@option("--grace", default="30s", callback=seconds, help="How long the guest may take (30s).")
@option("--wait/--no-wait", default=False, help="Wait until the machine is ready.")
@option("--timeout", default=None, callback=seconds, help="How long to wait (5m).")
@option("--pace", type=float, default=0.0, help="Simulator: seconds of a whole boot.")
@common
def restart(app: App, force: bool, grace: float, wait: bool, timeout: float | None, pace: float, **named: Any) -> int:
    """Stop machines and start them again."""
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.engine import power
    from hikube_local.plan.steps import RunOptions

    objects = app.machines(**named)
    options = RunOptions(force=force, grace=grace, pace=pace)
    with ProgressPrinter(app) as progress:
        results = power.restart(app.session, objects, options, progress, power.Wait(wait, timeout))
    return _tell(objects, results, "was restarted")


def _freeze(app: App, objects: list[Any], action: str) -> int:
    from hikube_local.engine.power import freeze

    for obj in objects:
        was = "is already paused" if action == "pause" else "is not paused"
        print(f"VM {obj.name} {f'was {action}d' if freeze(app.session, obj, action) else was}")
    return ExitCode.DONE


@click.command("pause")
@_all
@common
def pause(app: App, **named: Any) -> int:
    """Pause running machines."""
    return _freeze(app, app.machines(**named), "pause")


@click.command("unpause")
@_all
@common
def unpause(app: App, **named: Any) -> int:
    """Resume paused machines."""
    return _freeze(app, app.machines(**named), "unpause")
