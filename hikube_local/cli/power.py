"""`start`, `stop`, `restart`, `pause`, `unpause`."""

from __future__ import annotations

from typing import Any

import click

from hikube_local.cli.app import App, common, complete_machine, option, seconds
from hikube_local.errors import ExitCode, HikubeError


def _targets(app: App, names: tuple[str, ...]) -> list[Any]:
    """The machines named, also as `vm web`."""
    from hikube_local.api.objects import KIND_WORDS

    words = names[1:] if len(names) > 1 and names[0].lower() in KIND_WORDS else names
    return [app.machine(w) for w in words]


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
            print(f"VM {obj.name} {word}")
    return code


def _wish(app: App, obj: Any, power: str | None, end_boot: float | None = None) -> None:
    from hikube_local.store.db import scope

    app.store.note(scope(obj.key), power=power, end_boot=end_boot)


@click.command("start")
@click.argument("names", shell_complete=complete_machine, nargs=-1, required=True)
@option("--wait/--no-wait", default=False, help="Wait until the machine is ready.")
@option("--timeout", default=None, callback=seconds, help="How long to wait (5m).")
@option("--pace", type=float, default=0.0, help="Simulator: seconds of a whole boot.")
@common
def start(app: App, names: tuple[str, ...], wait: bool, timeout: float | None, pace: float) -> int:
    """Start machines."""
    objects = _targets(app, names)
    for obj in objects:
        _wish(app, obj, "start")
    return _reconcile(app, objects, "was scheduled to start", wait, timeout, pace=pace)


@click.command("stop")
@click.argument("names", shell_complete=complete_machine, nargs=-1, required=True)
@option("--force", is_flag=True, help="Do not wait for the guest.")
@option("--grace", default="30s", callback=seconds, help="How long the guest may take (30s).")
@common
def stop(app: App, names: tuple[str, ...], force: bool, grace: float) -> int:
    """Stop machines; they stay stopped until `start`, or an `up` of a manifest that says they run."""
    objects = _targets(app, names)
    for obj in objects:
        _wish(app, obj, "stop")
    return _reconcile(app, objects, "was stopped", force=force, grace=grace)


@click.command("restart")
@click.argument("names", shell_complete=complete_machine, nargs=-1, required=True)
@option("--force", is_flag=True, help="Do not wait for the guest.")
@option("--grace", default="30s", callback=seconds, help="How long the guest may take (30s).")
@option("--wait/--no-wait", default=False, help="Wait until the machine is ready.")
@option("--timeout", default=None, callback=seconds, help="How long to wait (5m).")
@option("--pace", type=float, default=0.0, help="Simulator: seconds of a whole boot.")
@common
def restart(
    app: App, names: tuple[str, ...], force: bool, grace: float, wait: bool, timeout: float | None, pace: float
) -> int:
    """Stop machines and start them again."""
    objects = _targets(app, names)
    for obj in objects:
        # One wish for both halves: the boot that is to end, and that the machine runs. A kill in between leaves it so.
        _wish(app, obj, "start", app.backend(obj.backend).observe_machine(obj).started)
    return _reconcile(app, objects, "was restarted", wait, timeout, force=force, grace=grace, pace=pace)


def _freeze(app: App, names: tuple[str, ...], action: str, wanted: str, word: str) -> int:
    for obj in _targets(app, names):
        world = app.backend(obj.backend)
        state = str(world.observe_machine(obj).state)
        if state not in ("running", "paused"):
            raise HikubeError("HK805", f"{obj.name} is not running", fix=f"hikube-local start {obj.name}")
        if state == wanted:
            world.power(obj, action)
        print(f"VM {obj.name} was {word}")
    return ExitCode.DONE


@click.command("pause")
@click.argument("names", shell_complete=complete_machine, nargs=-1, required=True)
@common
def pause(app: App, names: tuple[str, ...]) -> int:
    """Freeze running machines."""
    return _freeze(app, names, "pause", "running", "paused")


@click.command("unpause")
@click.argument("names", shell_complete=complete_machine, nargs=-1, required=True)
@common
def unpause(app: App, names: tuple[str, ...]) -> int:
    """Let frozen machines go on."""
    return _freeze(app, names, "unpause", "paused", "unpaused")
