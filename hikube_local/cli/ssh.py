"""`ssh`, `scp`, `ssh-config`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from hikube_local.cli.app import App, common, complete_machine, option
from hikube_local.errors import ExitCode, HikubeError, UsageError


def _say(text: str) -> None:
    print(text, file=sys.stderr)


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
    """Options of ssh's own may stand before NAME as well as behind it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours = {name: p for p in self.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")}
        mine: list[str] = []
        passed: list[str] = []
        rest = list(args)
        while rest and rest[0].startswith("-") and rest[0] != "--":
            word = rest[0].split("=", 1)[0] if rest[0].startswith("--") else rest[0][:2]
            if known := ours.get(word) or ("--help" if word in ("-h", "--help") else None):
                takes = isinstance(known, click.Option) and not known.is_flag and word == rest[0]
                mine, rest = mine + rest[: 1 + takes], rest[1 + takes :]
            else:
                n = _length(rest[0])
                passed, rest = passed + rest[:n], rest[n:]
        return super().parse_args(ctx, [*mine, *rest[:1], *(passed if rest else []), *rest[1:]])


@click.command("ssh", cls=_Ssh, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@option("-i", "--identity-file", type=click.Path(path_type=Path), default=None, help="A private key.")
@option("-l", "--username", default="", help="The guest's user.")
@option("-t", "--local-ssh-opts", multiple=True, help="An option for ssh (virtctl's).")
@option("-c", "--command", default=None, help="A command (virtctl's).")
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
    """Log in to a machine, or run a command there; hands back the guest's exit code, 255 when ssh itself failed.

    ssh's own options may stand before or behind NAME, but for -n, -o, -t, -c and -l, which are ours before it.
    """
    from hikube_local.access import ssh as access
    from hikube_local.run import find

    passed, run = split(words)
    identity, passed = _identity(passed)
    run = [command] if command else run[1:] if run[:1] == ["--"] else run
    try:
        obj = app.machine(target)
        world = access.real(app.backend(obj.backend), obj)
        user, options = access.prepare(
            world, obj, target.rpartition("@")[0] or username, identity_file or identity, _say
        )
    except HikubeError as e:
        e.exit_code = e.exit_code if e.exit_code is ExitCode.USAGE else ExitCode.SSH
        raise
    # The user's options come first: ssh takes the first value of each.
    words = ("ssh", *passed, *local_ssh_opts, *options, f"{user}@{obj.name}", *(["--"] if run else []), *run)
    os.execv(find("ssh"), words)


def _identity(options: list[str]) -> tuple[Path | None, list[str]]:
    """`-i KEY` among ssh's options: the key that is to be tried, and the other options."""
    for i, word in enumerate(options):
        if word == "-i" and i + 1 < len(options):
            return Path(options[i + 1]), options[:i] + options[i + 2 :]
        if word.startswith("-i") and len(word) > 2:
            return Path(word[2:]), options[:i] + options[i + 1 :]
    return None, options


@click.command("scp")
@option("-i", "--identity-file", type=click.Path(path_type=Path), default=None, help="A private key.")
@option("-r", "--recursive", is_flag=True, help="Folders too.")
@click.argument("words", metavar="[USER@]NAME:PATH... TARGET", nargs=-1, required=True)
@common
def scp(app: App, identity_file: Path | None, recursive: bool, words: tuple[str, ...]) -> int:
    """Copy files: scp FILE web:/tmp/, scp -r web:/var/log DIR."""
    from hikube_local.access import ssh as access
    from hikube_local.run import find

    remotes = [w for w in words if ":" in w and not w.startswith(("/", "./", "../")) and not os.path.exists(w)]
    if len(words) < 2 or not remotes:
        raise UsageError(
            "HK810", "scp wants a source and a target, one of them NAME:PATH", fix="hikube-local scp FILE web:/tmp/"
        )
    machines = {w.split(":", 1)[0] for w in remotes}
    if len(machines) != 1:
        raise UsageError("HK810", "scp copies from or to one machine at a time")
    name = machines.pop()
    obj = app.machine(name.removeprefix("vm/").removeprefix("vmi/"))
    world = access.real(app.backend(obj.backend), obj)
    user, options = access.prepare(world, obj, name.rpartition("@")[0], identity_file, _say)
    changed = [f"{user}@{obj.name}:{w.split(':', 1)[1]}" if w in remotes else w for w in words]
    os.execv(find("scp"), ["scp", "-q", *options, *(["-r"] if recursive else []), *changed])


@click.command("ssh-config")
@option("--install", is_flag=True, help="Write it beside the state and include it from ~/.ssh/config.")
@option("-A", "--all-namespaces", is_flag=True, help="Of every namespace.")
@common
def ssh_config(app: App, install: bool, all_namespaces: bool) -> int:
    """Settings for ssh, VS Code, scp and Ansible: ssh web.default.hikube."""
    from hikube_local import files
    from hikube_local.access import ssh as access
    from hikube_local.api.objects import INSTANCE

    blocks = []
    objects = app.store.objects(INSTANCE, None if all_namespaces or install else app.namespace)
    for obj in objects:
        if obj.backend != "qemu":
            continue
        world = access.real(app.backend(obj.backend), obj)
        try:
            access.learn_host_keys(world, obj)
        except HikubeError:
            pass  # not running: its keys are learned later
        blocks.append(access.config(world, obj))
    text = "# written by hikube-local ssh-config\n" + "\n".join(blocks)
    if not install:
        print(text, end="")
        return ExitCode.DONE
    target = app.layout.state / "ssh" / "config"
    files.write(target, text)
    main = Path.home() / ".ssh" / "config"
    line = f'Include "{target}"'
    before = main.read_text() if main.exists() else ""
    if line not in before.splitlines():
        files.make_folder(main.parent)
        files.write(main, f"{line}\n\n{before}" if before else f"{line}\n")
    print(f"{target} is included from {main}: ssh {'NAME' if not blocks else blocks[0].split()[1]}")
    return ExitCode.DONE
