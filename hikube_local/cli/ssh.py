"""`ssh`, `scp`, `ssh-config`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hikube_local import files, log, mux
from hikube_local.access import keys
from hikube_local.cli.app import App
from hikube_local.cli.options import common, complete_machine, option
from hikube_local.errors import ExitCode, HikubeError, UsageError
from hikube_local.events import ignore
from hikube_local.language import tr
from hikube_local.osdep import in_place
from hikube_local.readiness.stages import WORDS


def _say(text: str) -> None:
    print(tr(text), file=sys.stderr)


# ssh's own options that take a value (ssh(1), SYNOPSIS).
_VALUED = frozenset("BbcDEeFIiJLlmOopQRSWw")


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """ssh's options at the front, with their values, and what follows them."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        at += _length(words[at])
    return list(words[:at]), list(words[at:])


def _length(option: str) -> int:
    """In how many words ssh's option stands: -Lvalue holds its value; in -vL the last letter takes the next word."""
    first = next((i for i, c in enumerate(option) if i and c in _VALUED), 0)
    return 2 if first and first == len(option) - 1 else 1


class _Ssh(click.Command):
    """ssh's own options may stand before NAME as well as behind it, and so may ours, up to `--` or the command."""

    # After NAME these are ssh's: there people type `ssh web -t htop`.
    SSHS = ("-t",)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours = {name: p for p in self.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")}
        mine: list[str] = []
        passed: list[str] = []
        name: list[str] = []
        rest = list(args)
        while rest and rest[0] != "--" and (rest[0].startswith("-") or not name):
            if not rest[0].startswith("-"):
                name, rest = rest[:1], rest[1:]
                continue
            word = rest[0].split("=", 1)[0] if rest[0].startswith("--") else rest[0][:2]
            known = None if name and word in self.SSHS else ours.get(word)
            if known or word in ("-h", "--help"):
                takes = isinstance(known, click.Option) and not known.is_flag and word == rest[0]
                mine, rest = mine + rest[: 1 + takes], rest[1 + takes :]
            else:
                if word.startswith("--"):
                    raise UsageError("HK810", f"no such option: {word}", fix="hikube-local ssh --help")
                n = _length(rest[0])
                passed, rest = passed + rest[:n], rest[n:]
        return super().parse_args(ctx, [*mine, *name, *(passed if name else []), *rest])


@click.command("ssh", cls=_Ssh, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@option("-i", "--identity-file", type=click.Path(path_type=Path), default=None, help="A private key.")
@option("-l", "--username", default="", help="The guest's user.")
@option("-t", "--local-ssh-opts", multiple=True, help="An option for ssh (as in virtctl).")
@option("-c", "--command", default=None, help="The command to run (as in virtctl).")
@click.argument("target", shell_complete=complete_machine, metavar="[USER@]NAME")
@click.argument("words", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@common
def ssh(
    app: App,
    identity_file: Path | None,
    username: str,
    local_ssh_opts: tuple[str, ...],
    command: str | None,
    target: str,
    words: tuple[str, ...],
) -> int:
    """Log in to a machine, or run a command there; exits with the guest's exit code, or 255 if ssh itself failed.

    A second ssh as the same user within a minute shares the connection; one with options of ssh's has one of its own.

    Options of ssh itself may be given before or after NAME. -n, -c, -i, -l, -q, long options, and -t before NAME are
    those listed below.
    """
    from hikube_local.access import ssh as access
    from hikube_local.engine.session import capabilities
    from hikube_local.run import find

    passed, run = split(words)
    run = [command] if command else run[1:] if run[:1] == ["--"] else run
    try:
        obj = app.machine(target)
        app.session.require(obj, capabilities.Dials)
        boot = _told_phase(app, obj)
        if passed or local_ssh_opts:  # what a shared connection was made with decides more than they say
            boot = None
        named = target.rpartition("@")[0] or username
        user, options, shared = access.prepare(app.session, obj, named, identity_file, _say, boot)
    except HikubeError as e:
        e.exit_code = e.exit_code if e.exit_code is ExitCode.USAGE else ExitCode.SSH
        raise
    # The user's options come first: ssh takes the first value of each.
    quiet = ["-q"] if app.quiet else []
    if shared is not None:
        code, said = mux.opened(shared, [find("ssh"), *options, f"{user}@{obj.name}"])
        if code:
            print(said, file=sys.stderr)
            return ExitCode.SSH
        options = [*mux.options(shared), *options]
    words = ("ssh", *passed, *local_ssh_opts, *quiet, *options, f"{user}@{obj.name}", *(["--"] if run else []), *run)
    log.started(words)
    in_place(find("ssh"), words)


def _told_phase(app: App, obj: Any) -> float | None:
    """A machine that is still booting may not let anybody in yet: said before ssh waits. When its boot began comes back."""
    backend = app.session.of(obj)
    with contextlib.suppress(HikubeError):  # what cannot be brought along keeps nobody from logging in
        backend.refresh(obj, ignore)
    view = backend.view(obj)
    if view.observed.state == "running" and not view.ready and view.progress:
        where = app.in_namespace(obj)
        wait = f"hikube-local wait{where} vm/{obj.name} --for=condition=Ready --timeout=10m"
        _say(f"{obj.name} is still booting ({WORDS[view.progress.stage]}); to wait: {wait}")
        return None
    return view.observed.started


@click.command("scp")
@option("-i", "--identity-file", type=click.Path(path_type=Path), default=None, help="A private key.")
@option("-r", "--recursive", is_flag=True, help="Folders too.")
@click.argument("words", metavar="[USER@]NAME:PATH... TARGET", nargs=-1, required=True)
@common
def scp(app: App, identity_file: Path | None, recursive: bool, words: tuple[str, ...]) -> int:
    """Copy files: scp FILE web:/tmp/, scp -r web:/var/log DIR, scp web:/etc/hosts db:/tmp/."""
    from hikube_local.access import ssh as access
    from hikube_local.engine.session import capabilities
    from hikube_local.run import find

    remotes = [w for w in words if ":" in w and not w.startswith(("/", "./", "../")) and not os.path.exists(w)]
    if len(words) < 2 or not remotes:
        raise UsageError(
            "HK810", "scp wants a source and a target, one of them NAME:PATH", fix="hikube-local scp FILE web:/tmp/"
        )
    prepared: dict[str, tuple[str, list[str]]] = {}
    for name in dict.fromkeys(w.split(":", 1)[0] for w in remotes):
        obj = app.machine(name)
        app.session.require(obj, capabilities.Dials)
        user, options, _ = access.prepare(app.session, obj, name.rpartition("@")[0], identity_file, _say)
        prepared[name] = (f"{user}@{keys.alias(obj)}", options)
    if len(prepared) == 1:
        options = next(iter(prepared.values()))[1]
    else:
        # Each machine by its own block; the data pass through this host.
        path = files.make_folder(app.layout.state / "ssh") / "several"
        files.write(path, "\n".join(_blocks(app, None)))  # of all machines: another scp may read it at the same time
        options = ["-3", "-F", str(path), *(["-i", str(identity_file)] if identity_file else [])]
    changed = [f"{prepared[w.split(':', 1)[0]][0]}:{w.split(':', 1)[1]}" if w in remotes else w for w in words]
    # Without -q scp shows how far it is, on a terminal alone.
    argv = ["scp", *(["-q"] if app.quiet else []), *options, *(["-r"] if recursive else []), "--", *changed]
    log.started(argv)
    in_place(find("scp"), argv)


@click.command("ssh-config")
@option("--install", is_flag=True, help="Include the settings in ~/.ssh/config; `up` and `down` keep them current.")
@option("-A", "--all-namespaces", is_flag=True, help="Of every namespace.")
@common
def ssh_config(app: App, install: bool, all_namespaces: bool) -> int:
    """Settings for ssh, VS Code, rsync and Ansible: ssh web.default.hikube."""
    from hikube_local.access import ssh as access

    if not install:
        print("\n".join(_blocks(app, None if all_namespaces else app.namespace)), end="")
        return ExitCode.DONE
    blocks = _blocks(app, None)
    target, main = access.write_config(app.layout, blocks), access.include(app.layout)
    shown = blocks[0].split()[1] if blocks else "NAME.NAMESPACE.hikube"
    print(tr(f"{target} is included from {main}: ssh {shown}"))
    return ExitCode.DONE


def _blocks(app: App, namespace: str | None) -> list[str]:
    from hikube_local.access import ssh as access
    from hikube_local.api.objects import INSTANCE
    from hikube_local.engine.session import capabilities

    machines = [
        o
        for o in app.store.objects(INSTANCE, namespace)
        if not o.deletion and app.session.able(o, capabilities.Dials) is not None
    ]
    return [access.config(app.session, o) for o in machines]


def refresh(app: App) -> None:
    """Bring what `ssh-config --install` wrote to the machines that there are now."""
    from hikube_local.access import ssh as access

    with contextlib.suppress(HikubeError, OSError):  # nothing that was asked for depends on it
        access.write_config(app.layout, _blocks(app, None))
