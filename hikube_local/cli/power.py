"""`start`, `stop`, `restart`, `pause`, `unpause`."""

from __future__ import annotations

from typing import Any

import click

from hikube_local.cli.app import App, common, complete_machine, option, seconds
from hikube_local.errors import ExitCode, HikubeError
from hikube_local.events import ignore


def _all(command: Any) -> Any:
    """The machines that a command names, or all of them."""
    command = option("-A", "--all-namespaces", is_flag=True, help="With --all: in every namespace.")(command)
    command = option("--all", "everything", is_flag=True, help="All machines of the namespace.")(command)
    return click.argument("names", shell_complete=complete_machine, metavar="NAME...", nargs=-1)(command)


def _reconcile(
    app: App, objects: list[Any], word: str, wait: bool = False, timeout: float | None = None, **options: Any
) -> int:
    from hikube_local.backends.protocol import Options
    from hikube_local.cli.story import Story

    with Story(app) as story:
        results = app.reconciler(story, Options(**options)).reconcile(
            [o.key for o in objects], wait=wait, timeout=timeout
        )
    code = ExitCode.DONE
    for obj in objects:
        done = results[obj.key]
        code = max(code, done.exit_code)
        if not done.error:
            print(f"VM {obj.name} {word if done.changed else _ALREADY.get(word, word)}")
    return code


# What is said of one that was so before.
_ALREADY = {"was scheduled to start": "is already running", "was stopped": "is already stopped"}


def _wish(app: App, obj: Any, power: str | None, end_boot: float | None = None) -> None:
    from hikube_local.store.db import scope

    app.store.note(scope(obj.key), power=power, end_boot=end_boot)


@click.command("start")
@_all
@option("--wait/--no-wait", default=False, help="Wait until the machine is ready.")
@option("--timeout", default=None, callback=seconds, help="How long to wait (5m).")
@option("--pace", type=float, default=0.0, help="Simulator: seconds of a whole boot.")
@common
def start(app: App, wait: bool, timeout: float | None, pace: float, **named: Any) -> int:
    """Start machines."""
    objects = app.machines(**named)
    for obj in objects:
        _wish(app, obj, "start")
    return _reconcile(app, objects, "was scheduled to start", wait, timeout, pace=pace)


@click.command("stop")
@_all
@option("--force", is_flag=True, help="Do not wait for the guest.")
@option("--grace", default="30s", callback=seconds, help="How long the guest may take (30s).")
@common
def stop(app: App, force: bool, grace: float, **named: Any) -> int:
    """Stop machines; they stay stopped until `start`, or an `up` of a manifest that says they run."""
    objects = app.machines(**named)
    for obj in objects:
        _wish(app, obj, "stop")
    return _reconcile(app, objects, "was stopped", force=force, grace=grace)


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
    objects = app.machines(**named)
    for obj in objects:
        app.backend(obj.backend).refresh(obj, ignore)
        # One wish for both halves: the boot that is to end, and that the machine runs. A kill in between leaves it so.
        _wish(app, obj, "start", app.backend(obj.backend).observe_machine(obj).started)
    return _reconcile(app, objects, "was restarted", wait, timeout, force=force, grace=grace, pace=pace)


def _freeze(app: App, objects: list[Any], action: str, wanted: str, word: str) -> int:
    for obj in objects:
        world = app.backend(obj.backend)
        world.refresh(obj, ignore)
        state = str(world.observe_machine(obj).state)
        if state not in ("running", "paused"):
            raise HikubeError("HK805", f"{obj.name} is not running", fix=f"hikube-local start {obj.name}")
        if state == wanted:
            world.power(obj, action)
            print(f"VM {obj.name} was {word}")
        else:
            print(f"VM {obj.name} {'is already paused' if action == 'pause' else 'is not paused'}")
    return ExitCode.DONE


@click.command("pause")
@_all
@common
def pause(app: App, **named: Any) -> int:
    """Freeze running machines."""
    return _freeze(app, app.machines(**named), "pause", "running", "paused")


@click.command("unpause")
@_all
@common
def unpause(app: App, **named: Any) -> int:
    """Let frozen machines go on."""
    return _freeze(app, app.machines(**named), "unpause", "paused", "unpaused")
