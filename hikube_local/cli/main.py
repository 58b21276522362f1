"""The command line's frame: verbs are loaded when they are called, errors become words and exit codes."""

from __future__ import annotations

import importlib
import os
import sys
import threading

import click

from hikube_local import __version__
from hikube_local.errors import ExitCode, unexpected

# verb: (module, help); the command of verb `port-forward` is `port_forward` in its module.
VERBS: dict[str, tuple[str, str]] = {
    "up": ("up", "Make what the manifests say, and wait until the machines are ready."),
    "apply": ("up", "The same as `up --no-wait`."),
    "down": ("down", "Stop and remove machines; their disks stay."),
    "delete": ("down", "Delete objects: a machine, or a disk with its data."),
    "start": ("power", "Start a machine."),
    "stop": ("power", "Stop a machine until `start`."),
    "restart": ("power", "Stop a machine and start it again."),
    "pause": ("power", "Freeze a running machine."),
    "unpause": ("power", "Let a frozen machine go on."),
    "get": ("get", "Show objects."),
    "ps": ("get", "The same as `get`."),
    "describe": ("describe", "Show everything known about objects."),
    "wait": ("wait", "Wait for a condition."),
    "events": ("events", "What happened."),
    "logs": ("logs", "A machine's console log."),
    "top": ("top", "CPU, memory, disk and network of the machines."),
    "ssh": ("ssh", "Log in to a machine."),
    "scp": ("ssh", "Copy files to and from a machine."),
    "ssh-config": ("ssh", "Settings for ssh, so that `ssh NAME.NAMESPACE.hikube` works."),
    "console": ("console", "Type into a machine's serial console (leave with Ctrl-])."),
    "vnc": ("console", "A machine's screen."),
    "screenshot": ("console", "A picture of a machine's screen."),
    "port-forward": ("ports", "Forward local ports to a machine."),
    "ports": ("ports", "Every way in."),
    "network": ("network", "Run a command of this host inside a tenant's network."),
    "virsh": ("ports", "virsh, connected to the libvirt that runs the machines."),
    "validate": ("validate", "Check manifests; nothing is changed."),
    "plan": ("plan", "What `up` would do."),
    "diff": ("plan", "The same as `plan`."),
    "render": ("render", "Write the domain XML and the seed's files."),
    "cloudinit": ("cloudinit", "Check user-data, show the seed, compare two: check, render, diff."),
    "snapshot": ("snapshot", "Checkpoints of a machine: create, list, restore, delete."),
    "reset": ("snapshot", "A machine back to where its cloud-init was done for the first time."),
    "test": ("test", "Boot throw-away machines, read what cloud-init did, and check them."),
    "convert": ("convert", "A retired VirtualMachine as a VMDisk and a VMInstance."),
    "schema": ("explain", "A JSON schema of both kinds, for editors."),
    "explain": ("explain", "What a field means on Hikube, and what differs here."),
    "catalog": ("catalog", "Instance types, profiles and images by name."),
    "images": ("images", "Images: build, pull, import, list, verify, prune."),
    "purge": ("purge", "End and remove everything of ours; disks only when asked."),
    "bundle": ("bundle", "Manifests and images in one folder, for `up --offline` elsewhere."),
    "image-upload": ("upload", "Bring the content of a VMDisk that waits for it."),
    "doctor": ("doctor", "Whether this host can run machines, and what would mend it."),
    "config": ("settings", "The configuration."),
    "completion": ("settings", "A completion script for bash, zsh or fish."),
    "version": ("settings", "The version."),
}
GROUPS = {"catalog", "cloudinit", "images", "config", "network", "snapshot"}
RAW = {"virsh", "completion"}  # the words are another program's, or none are taken
# Global flags that may stand before the verb, and whether they take a value.
GLOBAL = {
    "-n": True,
    "--namespace": True,
    "-A": False,
    "--all-namespaces": False,
    "-o": True,
    "--output": True,
    "--config": True,
    "--color": True,
    "--progress": True,
    "--debug": False,
    "-l": True,
    "--selector": True,
}


class Lazy(click.Group):
    """A group whose commands are imported when they are needed; its help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = importlib.import_module(f"hikube_local.cli.{VERBS[name][0]}")
        return getattr(module, name.replace("-", "_"))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]):
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as e:
            from hikube_local.text import nearest

            near = nearest(args[0], list(VERBS))
            e.message += f" Did you mean {near!r}?" if near else ""
            raise


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hikube-local")
def cli() -> None:
    """Hikube's virtual machine manifests, realised on this machine with QEMU and libvirt.

    Start with: hikube-local doctor, then hikube-local up FILE.
    """


def reorder(argv: list[str]) -> list[str]:
    """Global flags before the verb, moved behind it (`hikube-local -n dev get vm`)."""
    lead: list[str] = []
    at = 0
    while at < len(argv) and argv[at].startswith("-") and argv[at] not in ("--", "-"):
        word = argv[at]
        flag = word.split("=", 1)[0] if word.startswith("--") else word[:2]
        if flag not in GLOBAL:
            break
        lead.append(word)
        at += 1
        if GLOBAL[flag] and word == flag and at < len(argv):
            lead.append(argv[at])
            at += 1
    rest = argv[at:]
    if rest[:1] and rest[0] in RAW:
        return rest
    depth = 2 if rest[:1] and rest[0] in GROUPS else 1
    return [*rest[:depth], *lead, *rest[depth:]]


def run(argv: list[str]) -> int:
    """Run the program and hand back its exit code."""
    debug = "--debug" in argv or bool(os.environ.get("HIKUBE_LOCAL_DEBUG"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = cli.main(reorder(argv), prog_name="hikube-local", standalone_mode=False, default_map=_defaults(argv))
        sys.stdout.flush()
        return int(code) if isinstance(code, int) else ExitCode.DONE
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        e.show()
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        print("interrupted: `up` again goes on from here", file=sys.stderr)
        if threading.active_count() > 1:
            os._exit(ExitCode.INTERRUPTED)  # interrupted twice: what is still at work ends as by kill -9, which heals
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ExitCode.FAILED
    except Exception as e:
        if debug:
            raise
        from hikube_local.text import sanitize

        error = unexpected(e)
        print(sanitize(error.render()), file=sys.stderr)
        return int(error.exit_code)


def _defaults(argv: list[str]) -> dict[str, dict]:
    """`options:` of the configuration file as defaults of every verb (flag beats variable beats file)."""
    from pathlib import Path

    from hikube_local.paths import layout

    named = os.environ.get("HIKUBE_LOCAL_CONFIG")
    for i, word in enumerate(argv):
        if word == "--config" and i + 1 < len(argv):
            named = argv[i + 1]
        elif word.startswith("--config="):
            named = word.removeprefix("--config=")
    path = Path(named) if named else layout().config
    if not path.exists():
        return {}
    from hikube_local.cli.config import read

    options = {k.replace("-", "_"): v for k, v in read(path).options.items()}
    # `version` is also a flag of the program itself.
    return {verb: options for verb in VERBS if verb not in GROUPS | {"version"}} if options else {}
