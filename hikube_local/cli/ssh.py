"""`ssh`, `scp`, `ssh-config`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from hikube_local.cli.app import App, common, complete_machine, option
from hikube_local.errors import ExitCode, UsageError


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@click.command("ssh", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-i", "--identity-file", type=click.Path(path_type=Path), default=None, help="A private key.")
@click.option("-l", "--username", default="", help="The guest's user.")
@click.option("-t", "--local-ssh-opts", multiple=True, help="An option for ssh (virtctl's).")
@click.option("-c", "--command", default=None, help="A command (virtctl's).")
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
    """Log in to a machine, or run a command there; hands back the guest's exit code."""
    from hikube_local.access import ssh as access
    from hikube_local.run import find

    obj = app.machine(target)
    world = access.real(app.backend(obj.backend), obj)
    given, extra = _identity(words)
    own = target.rpartition("@")[0] or username
    user, options = access.prepare(world, obj, own, identity_file or given, _say)
    passed, rest = _split(extra)
    run = [command] if command else rest
    os.execv(
        find("ssh"), ["ssh", *options, *passed, *local_ssh_opts, f"{user}@{obj.name}", *(["--"] if run else []), *run]
    )


def _identity(words: tuple[str, ...]) -> tuple[Path | None, list[str]]:
    """`-i KEY` behind the name, as ssh's users type it."""
    rest = list(words)
    for i, word in enumerate(rest):
        if word == "--":
            break
        if word == "-i" and i + 1 < len(rest):
            return Path(rest[i + 1]), rest[:i] + rest[i + 2 :]
    return None, rest


# ssh's own options that take a value.
_VALUED = frozenset(
    [
        "-B",
        "-b",
        "-c",
        "-D",
        "-E",
        "-e",
        "-F",
        "-I",
        "-J",
        "-L",
        "-l",
        "-m",
        "-O",
        "-o",
        "-p",
        "-Q",
        "-R",
        "-S",
        "-W",
        "-w",
    ]
)


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """ssh's options before the command, and the command."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        at += 2 if words[at] in _VALUED else 1
    rest = words[at:]
    return words[:at], rest[1:] if rest[:1] == ["--"] else rest


@click.command("scp")
@click.option("-i", "--identity-file", type=click.Path(path_type=Path), default=None, help="A private key.")
@click.option("-r", "--recursive", is_flag=True, help="Folders too.")
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
    from hikube_local.errors import HikubeError

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
