"""`config`, `completion`, `version`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common, option, output_option
from hikube_local.errors import ExitCode, UsageError
from hikube_local.language import tr


@click.group("config")
def config() -> None:
    """The configuration."""


@config.command("view")
@option("--show-origin", is_flag=True, help="Say where each value comes from.")
@output_option("json", "yaml")
@common
def view(app: App, show_origin: bool, output: str) -> int:
    """Show the configuration (file and environment) and the folders in use."""
    from hikube_local.cli import tables
    from hikube_local.config import KEYS

    rows: list[dict] = []
    for key in KEYS:
        variable = f"HIKUBE_LOCAL_{key.upper()}"
        value, origin = app.config.values.get(key), str(app.config.path)
        if key == "namespace":
            value = app.namespace
            origin = (
                "-n"
                if app.flag_namespace
                else variable
                if os.environ.get(variable)
                else origin
                if app.config.values.get(key)
                else "default"
            )
        elif value is None:
            continue
        rows.append({"key": key, "value": value, "origin": origin})
    for name in ("state", "cache", "runtime", "config"):
        origin = "HIKUBE_LOCAL_HOME" if os.environ.get("HIKUBE_LOCAL_HOME") and name != "runtime" else "default"
        rows.append(
            {
                "key": f"{name} folder" if name != "config" else "config file",
                "value": str(getattr(app.layout, name)),
                "origin": origin,
            }
        )
    if output:
        print(tables.show(rows if show_origin else {r["key"]: r["value"] for r in rows}, output, str))
        return ExitCode.DONE
    for r in rows:
        print(f"{r['key']}: {r['value']}" + (f"    # {r['origin']}" if show_origin else ""))
    return ExitCode.DONE


@config.command("path")
@common
def path(app: App) -> int:
    """Print the path of the configuration file."""
    print(app._config_path or app.layout.config)
    return ExitCode.DONE


# Where each shell looks for a user's completions by itself (bash-completion 2.x, fish(1)); zsh looks where its fpath says.
PLACES = {
    "bash": "~/.local/share/bash-completion/completions/hikube-local",
    "zsh": "~/.local/share/zsh/site-functions/_hikube-local",
    "fish": "~/.config/fish/completions/hikube-local.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(PLACES)), required=False)
@click.option("--install", is_flag=True, help="Write it where the shell finds it (default: the shell of $SHELL).")
def completion(shell: str | None, install: bool) -> int:
    """Print a completion script; bash: source <(hikube-local completion bash). Or write it, with --install."""
    from hikube_local import files

    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in PLACES:
        raise UsageError(
            "HK810", f"no completion for the shell {shell or '(none)'!r}", fix=f"name one of {', '.join(PLACES)}"
        )
    if not install:
        print(script(shell))
        return ExitCode.DONE
    place = Path(PLACES[shell]).expanduser()
    place.parent.mkdir(parents=True, exist_ok=True)
    files.write(place, script(shell) + "\n", 0o644)
    print(tr(f"{place} written; new shells have it"), file=sys.stderr)
    if shell == "zsh":
        print(tr(f"if zsh does not find it, add to ~/.zshrc before compinit: fpath+=({place.parent})"), file=sys.stderr)
    return ExitCode.DONE


def script(shell: str) -> str:
    """The completion of a shell, without click's look at its version (bash need not be installed to print it)."""
    from click.shell_completion import get_completion_class

    from hikube_local.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    return str(made.source_template % made(cli, {}, "hikube-local", "_HIKUBE_LOCAL_COMPLETE").source_vars())


@click.command("help")
@click.argument("words", nargs=-1)
@click.pass_context
def help(context: click.Context, words: tuple[str, ...]) -> int:
    """Show the help of a command: help up, help images pull."""
    root = context.find_root()
    here, command = root, root.command
    for word in words:
        if not isinstance(command, click.Group):
            break
        name, found, _ = command.resolve_command(here, [word])
        assert found is not None
        here, command = click.Context(found, parent=here, info_name=name), found
    print(command.get_help(here))
    return ExitCode.DONE


@click.command("version")
@output_option("json")
@common
def version(app: App, output: str) -> int:
    """The version of hikube-local and of what it runs on."""
    import platform

    from hikube_local import __version__
    from hikube_local.cli import tables

    value = {"hikubeLocal": __version__, "python": platform.python_version(), "catalogue": "2026-08"}
    print(
        tables.show(
            value, output, lambda: f"hikube-local {__version__} (Python {value['python']}, catalogue of August 2026)"
        )
    )
    return ExitCode.DONE
