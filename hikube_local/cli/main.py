"""The command line's frame: verbs are loaded when they are called, errors become words and exit codes."""

from __future__ import annotations

import importlib
import os
import sys
import threading

import click

from hikube_local import __version__
from hikube_local.errors import ExitCode, unexpected

# Section: {verb: (module, help)}; the command of verb `port-forward` is `port_forward` in its module.
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Machines": {
        "up": ("up", "Create or change what manifests describe, and wait until it is ready."),
        "down": ("down", "Stop and remove machines; their disks are kept."),
        "start": ("power", "Start machines."),
        "stop": ("power", "Stop machines until `start`."),
        "restart": ("power", "Stop machines and start them again."),
        "pause": ("power", "Pause running machines."),
        "unpause": ("power", "Resume paused machines."),
        "snapshot": ("snapshot", "Checkpoints of a machine: create, list, restore, delete."),
        "reset": ("snapshot", "Take a machine back to the end of its first boot."),
        "delete": ("down", "Delete objects: a machine, or a disk with its data."),
    },
    "Look": {
        "get": ("get", "List objects, or show one."),
        "describe": ("describe", "Show everything known about objects."),
        "events": ("events", "Show what happened."),
        "logs": ("logs", "Show a machine's console log."),
        "top": ("top", "Show CPU, memory, disk and network use."),
        "ports": ("ports", "List the addresses and ports of all machines."),
        "wait": ("wait", "Wait for a condition."),
        "screenshot": ("console", "Save a machine's screen as PNG."),
    },
    "Access": {
        "ssh": ("ssh", "Log in to a machine."),
        "scp": ("ssh", "Copy files to and from machines."),
        "ssh-config": ("ssh", "Settings for ssh, so that `ssh NAME.NAMESPACE.hikube` works."),
        "console": ("console", "Connect to a machine's serial console (leave with Ctrl-])."),
        "vnc": ("console", "Open a machine's screen."),
        "port-forward": ("ports", "Forward local ports to a machine."),
        "network": ("network", "Run a command of this host inside a tenant's network."),
        "virsh": ("ports", "Run virsh, connected to the libvirt that runs the machines."),
    },
    "Manifests": {
        "validate": ("validate", "Check manifests; nothing is changed."),
        "plan": ("plan", "Show what `up` would do."),
        "explain": ("explain", "Show what a field means on Hikube, and what differs here."),
        "schema": ("explain", "Print a JSON schema of both kinds, for editors."),
        "convert": ("convert", "Convert a retired VirtualMachine to a VMDisk and a VMInstance."),
        "render": ("render", "Print or write domain XML and seed, or KubeVirt's objects."),
        "catalog": ("catalog", "List instance types, profiles and images."),
    },
    "Lab": {
        "test": ("test", "Boot throw-away machines, read what cloud-init did, and check them."),
        "cloudinit": ("cloudinit", "Check user-data, show the seed, compare two: check, render, diff."),
    },
    "Images": {
        "images": ("images", "Build, pull, import, list, remove, verify and prune images."),
        "bundle": ("bundle", "Put manifests and images into one folder, for `up --offline` elsewhere."),
        "image-upload": ("upload", "Upload the content of a VMDisk that waits for it."),
    },
    "Kubernetes": {
        "serve": ("serve", "Serve the objects to kubectl and other Kubernetes clients."),
        "kubeconfig": ("serve", "Print or write a kubeconfig for `serve`."),
    },
    "Host": {
        "autostart": ("autostart", "Bring machines up with this host (systemd): enable, disable, status, run."),
        "doctor": ("doctor", "Check whether this host can run machines, and how to fix what is missing."),
        "config": ("settings", "Show the configuration."),
        "purge": ("purge", "End and remove everything of hikube-local; disks only when asked."),
        "completion": ("settings", "Print a completion script for bash, zsh or fish."),
        "version": ("settings", "Show the version."),
        "help": ("settings", "Show the help of a command."),
    },
}
# The same command under the names that fingers type; apply, diff and ps have functions of their own.
ALIASES = {"apply": "up", "diff": "plan", "ps": "get", "ls": "get", "list": "get", "status": "get", "info": "describe"}
ALIASES |= {"shell": "ssh", "exec": "ssh", "cp": "scp", "rm": "delete"}
VERBS: dict[str, tuple[str, str]] = {v: row for section in SECTIONS.values() for v, row in section.items()}
VERBS |= {alias: (VERBS[verb][0], f"The same as `{verb}`.") for alias, verb in ALIASES.items()}
# What people of other tools type, and the command that does it. No word is ever taken for one that removes something.
MEANT = {
    **dict.fromkeys(("shutdown", "poweroff", "halt"), "stop"),
    **dict.fromkeys(("launch", "create", "run", "deploy", "boot"), "up"),
    "reboot": "restart",
    "edit": "up",
    **dict.fromkeys(("login", "connect"), "ssh"),
    **dict.fromkeys(("pull", "build", "import"), "images"),
    **dict.fromkeys(("suspend", "freeze"), "pause"),
    "resume": "unpause",
    **dict.fromkeys(("lint", "check"), "validate"),
    **dict.fromkeys(("serial", "attach"), "console"),
}
REMOVES = ("down", "delete", "rm", "purge", "reset")
EXAMPLES: dict[str, tuple[str, ...]] = {
    "up": ("up vm.yaml", "up examples/ --timeout 10m", "up - < vm.yaml"),
    "apply": ("apply -f vm.yaml", "apply -f vm.yaml --dry-run=client"),
    "down": ("down", "down web", "down vm.yaml --disks"),
    "delete": ("delete vm/web", "delete vmdisk data --yes", "delete -f vm.yaml"),
    "start": ("start web", "start --all --wait"),
    "stop": ("stop web", "stop --all --grace 10s"),
    "restart": ("restart web --wait",),
    "reset": ("reset web --yes",),
    "get": ("get", "get vm -o wide", "get vm web -o jsonpath='{.status.addresses[0].address}'", "get -A -w"),
    "describe": ("describe web", "describe vmdisk data"),
    "events": ("events -f", "events web"),
    "logs": ("logs web --tail 50", "logs web -f", "logs web -p"),
    "wait": ("wait vm/web --for=condition=Ready --timeout=5m", "wait vm --all --for=delete"),
    "ssh": ("ssh web", "ssh admin@web -n team-a -- uptime"),
    "scp": ("scp ./file web:/tmp/", "scp -r web:/var/log ./logs", "scp web:/etc/hosts db:/tmp/"),
    "ssh-config": ("ssh-config --install",),
    "port-forward": ("port-forward web 8080:80", "port-forward web :22"),
    "validate": ("validate .", "validate vm.yaml -o json"),
    "plan": ("plan vm.yaml", "plan vm.yaml --detailed-exitcode"),
    "render": ("render vm.yaml --to -", "render vm.yaml --as kubevirt | kubectl apply -f -"),
    "explain": ("explain vminstance.spec.externalMethod",),
    "convert": ("convert old.yaml > new.yaml",),
    "test": ("test vm.yaml --checks checks.yaml", "test vm.yaml --image debian-12 --junit report.xml"),
    "screenshot": ("screenshot web screen.png",),
    "serve": ("serve", "serve --exit-when-idle 30m"),
    "kubeconfig": ("kubeconfig --env", "kubeconfig --merge"),
    "doctor": ("doctor", "doctor -o json"),
    "image-upload": ("image-upload vmdisk data --image-path disk.qcow2",),
    "bundle": ("bundle vm.yaml --to bundle/",),
    "completion": ("completion bash > ~/.local/share/bash-completion/completions/hikube-local",),
}
GROUPS = {"autostart", "catalog", "cloudinit", "images", "config", "network", "snapshot"}
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
    "-q": False,
    "--quiet": False,
    "--no-differences": False,
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
        own = name.replace("-", "_")
        command = getattr(module, own if hasattr(module, own) else ALIASES[name].replace("-", "_"))
        if (shown := EXAMPLES.get(name)) and not command.epilog:
            command.epilog = "\b\nExamples:\n" + "\n".join(f"  hikube-local {line}" for line in shown)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in verbs.items()])
        also = ", ".join(f"{alias} ({verb})" for alias, verb in ALIASES.items())
        formatter.write_paragraph()
        formatter.write_text(f"Also: {also}. `hikube-local help COMMAND` shows its options and examples.")

    def resolve_command(self, ctx: click.Context, args: list[str]):
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as e:
            from hikube_local.text import nearest

            safe = [v for v in VERBS if v not in REMOVES]
            near = MEANT.get(args[0].lower()) or nearest(args[0], safe)
            more = f" Did you mean {near!r}?" if near else " `hikube-local help` lists the commands."
            raise click.UsageError(e.message + more, e.ctx) from None


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="hikube-local")
def cli() -> None:
    """Run Hikube's virtual machine manifests on this machine, with QEMU and libvirt.

    Start with: hikube-local doctor, then hikube-local up FILE. Have manifests already? hikube-local validate FOLDER.
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
    if not argv:
        argv = ["--help"]
    own = argv[: argv.index("--")] if "--" in argv else argv  # what follows is somebody else's
    debug = "--debug" in own or os.environ.get("HIKUBE_LOCAL_DEBUG", "").lower() not in ("", "0", "false", "no")
    if debug:
        from hikube_local import log

        log.to_stderr()
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
        if words := _interrupted(reorder(argv)):
            print(words, file=sys.stderr)
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


# Commands that end by Ctrl-C in the ordinary course: nothing is to be said.
_STREAMS = ("logs", "get", "events", "wait", "port-forward", "vnc", "console", "top", "ssh", "scp", "network", "virsh")
# And those that the same words carry on with.
_GO_ON = ("up", "down", "delete", "start", "stop", "restart", "purge", "reset", "image-upload")


def _interrupted(argv: list[str]) -> str:
    """What an interrupt left, in the words of the command that was interrupted."""
    typed = argv[0] if argv else ""
    verb = ALIASES.get(typed, typed)
    if verb in _STREAMS:
        return ""
    if verb == "test":
        return "interrupted: the machines are removed" if "--keep" not in argv else "interrupted"
    if verb == "images":
        return "interrupted: run it again, it goes on where it was" if argv[1:2] == ["pull"] else "interrupted"
    if verb in _GO_ON:
        return f"interrupted: the same command again goes on from here: hikube-local {typed}"
    return "interrupted"


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
    from hikube_local.config import read

    options = {k.replace("-", "_"): v for k, v in read(path).options.items()}
    # `version` is also a flag of the program itself.
    return {verb: options for verb in VERBS if verb not in GROUPS | {"version", "help"}} if options else {}
