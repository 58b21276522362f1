"""`network exec`: a command of this host inside a tenant's network."""

from __future__ import annotations

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common
from hikube_local.errors import HikubeError, UsageError


@click.group("network")
def network() -> None:
    """The tenant networks."""


@network.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", metavar="-- COMMAND...", nargs=-1, type=click.UNPROCESSED)
@common
def exec_(app: App, command: tuple[str, ...]) -> int:
    """Run a command in the tenant network, like a pod: with its own address and the tenant's names, and nothing else.

    Exits with the exit code of the command.
    """
    if not command:
        raise UsageError("HK810", "no command is given", fix="hikube-local network exec -n NAMESPACE -- COMMAND")
    from hikube_local.engine.session import capabilities

    for backend in app.session.every(capabilities.Executes):
        backend.execute(app.namespace, list(command))
    raise HikubeError("HK510", "no backend has a tenant network for commands")
