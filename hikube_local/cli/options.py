"""The options that commands share, and what the shell completes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hikube_local.cli.app import App
from hikube_local.errors import UsageError
from hikube_local.language import LANGUAGES
from hikube_local.paths import layout


def option(*names: str, **settings: Any) -> Callable:
    """A click option that may also be given as HIKUBE_LOCAL_<OPTION>."""
    long = next(n for n in names if n.startswith("--")).split("/")[0]
    settings.setdefault("envvar", "HIKUBE_LOCAL_" + long[2:].upper().replace("-", "_"))
    return click.option(*names, **settings)


def output_option(*formats: str) -> Callable:
    """-o with the formats that this command knows; `jsonpath=…` stands for what begins so."""

    def check(context: click.Context, parameter: click.Parameter, value: str) -> str:
        begins = tuple(f.removesuffix("…") for f in formats if f.endswith("…"))
        if value and value not in formats and not (begins and value.startswith(begins)):
            raise UsageError("HK810", f"unknown output format {value!r}", fix=f"one of {', '.join(formats)}")
        return value

    words = f"One of: {', '.join(formats)}."
    return option("-o", "--output", default="", metavar="FORMAT", callback=check, help=words)


def validate_option() -> Callable:
    """--validate, as kubectl has it."""
    words = {"true": "strict", "false": "ignore"}
    return option(
        "--validate",
        "unknown",
        type=click.Choice(["strict", "true", "warn", "ignore", "false"]),
        default="strict",
        envvar="HIKUBE_LOCAL_VALIDATE",
        callback=lambda context, parameter, value: words.get(value, value),
        help="Unknown keys: strict (an error), warn, ignore (as Hikube itself does).",
    )


def refresh_option() -> Callable:
    """Whether a look brings the ways in of WholeIP machines along first."""
    help = "First update the open ports of WholeIP machines to those on which their guests listen."
    return option("--refresh/--no-refresh", default=True, help=help)


def backend_option() -> Callable:
    """What carries the objects; the names are looked up when one is given, since the rest of the program is slow to load."""

    def check(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        if value is not None:
            from hikube_local.engine.session import backend_names

            if value not in (known := backend_names()):
                raise click.BadParameter(f"{value!r} is not one of {', '.join(known)}", context, parameter)
        return value

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        from hikube_local.engine.session import backend_names

        return [name for name in backend_names() if name.startswith(incomplete)]

    help = "Backend: qemu (real machines) or simulator."
    return option("--backend", default=None, callback=check, shell_complete=complete, help=help)


def files_option(help: str = "A file, a folder, a URL or -.") -> Callable:
    """kubectl's -f: manifests, as often as wanted."""
    return option("-f", "--filename", multiple=True, help=help)


def dry_run_option() -> Callable:
    """kubectl's --dry-run[=client|server|none]; what is given here is the same for client and server."""
    return option(
        "--dry-run",
        is_flag=False,
        flag_value="client",
        default="none",
        type=click.Choice(["none", "client", "server", "true", "false"]),
        callback=lambda context, parameter, value: value not in ("none", "false"),
        help="Show what would be done, and do nothing (also =client, =server).",
    )


def ignored(*names: str, flags: tuple[str, ...] = ()) -> Callable:
    """Options of kubectl's or virtctl's that fingers type and that mean nothing on one host."""

    def decorate(command: Callable) -> Callable:
        for name in names:
            command = click.option(name, default=None, hidden=True)(command)
        for name in flags:
            command = click.option(name, is_flag=True, hidden=True)(command)
        return command

    return decorate


def common(command: Callable) -> Callable:
    """The options that every command takes; the command gets an App as its first argument."""
    help = "Act on another machine for once: ssh://[USER@]HOST."
    return option("--host", "box", default=None, help=help)(without_host(command))


def without_host(command: Callable) -> Callable:
    """The same for one that has a --host of its own."""

    @option("-n", "--namespace", default=None, help="Kubernetes namespace.")
    @option("--config", default=None, type=click.Path(path_type=Path), help="Configuration file.")
    @option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour in the output.")
    @option(
        "--progress",
        type=click.Choice(["auto", "tty", "plain", "json", "quiet"]),
        default="auto",
        help="How progress is shown: live lines (tty), a line each (plain), JSON, or not (quiet).",
    )
    @option("-q", "--quiet", is_flag=True, default=False, help="Errors and warnings only.")
    @option("--no-differences", is_flag=True, default=False, help="Do not tell how this host differs from Hikube.")
    @option(
        "--debug",
        is_flag=True,
        default=False,
        help="Show tracebacks, each program that is run, each change in libvirt and each step.",
    )
    @option("--timings", is_flag=True, default=False, help="Show where the seconds went: programs, libvirt, waits.")
    @option(  # read before anything is shown: main.run
        "--lang",
        type=click.Choice(LANGUAGES),
        expose_value=False,
        help="The language of messages (default: that of $LANG, else English).",
    )
    @option("--context", default=None, help="Where to act: local, or a name of `context ls`.")
    @functools.wraps(command)
    def wrapped(namespace, config, color, progress, quiet, no_differences, debug, timings, context, **rest):
        host, adopt = rest.pop("box", None), rest.pop("adopt", False)
        named = (namespace, config, color, progress, debug, quiet, no_differences, timings)
        app = App(*named, context=context, host=host, adopt=adopt)
        if (code := elsewhere(app)) is not None:
            return code
        return command(app, **rest)

    return wrapped


def elsewhere(app: App) -> int | None:
    """What a command does in another context than this machine: None where it goes on as here."""
    from hikube_local.cli import elsewhere

    return elsewhere.instead(app)


def adopt_option() -> Callable:
    """Of commands that change objects in another context."""
    # Typed each time: an environment or a configuration that says it would be no guard.
    return click.option("--adopt", is_flag=True, help="In another context: also objects that were not made from here.")


def seconds(context: click.Context, parameter: click.Parameter, value: Any) -> float | None:
    """A duration such as 5m as seconds."""
    from hikube_local.text import duration

    if value is None or isinstance(value, float):
        return value
    try:
        return duration(str(value))
    except ValueError as e:
        raise click.BadParameter(str(e)) from None


def complete_machine(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of machines for the shell: read from the store, nothing is parsed."""
    from hikube_local.engine.names import of_kind

    namespace = context.params.get("namespace") or os.environ.get("HIKUBE_LOCAL_NAMESPACE") or "default"
    user, at, part = incomplete.rpartition("@")
    return [f"{user}{at}{n}" for n in of_kind(layout(), "VMInstance", namespace) if n.startswith(part)]


def complete_object(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Kinds, then names of the kind, also as KIND/NAME."""
    from hikube_local.api.objects import KIND_WORDS, PLURAL
    from hikube_local.engine.names import of_kind

    namespace = context.params.get("namespace") or os.environ.get("HIKUBE_LOCAL_NAMESPACE") or "default"
    before = context.params.get(parameter.name or "") or ()
    head, slash, part = incomplete.rpartition("/")
    word = head if slash else (before[0] if before else "")
    kind = KIND_WORDS.get(word.lower())
    if kind is None:
        return [p for p in PLURAL.values() if p.startswith(incomplete)]
    return [f"{head}{slash}{n}" for n in of_kind(layout(), kind, namespace) if n.startswith(part)]
