"""Every verb of the command line: a row says what the frame knows of it, and its module has what it does."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Interrupted(Enum):
    """What Ctrl-C means to a verb."""

    STOPS = "it stopped half-way"
    ENDS = "it ends so in the ordinary course: nothing is said"
    GOES_ON = "the same command goes on from there"


class Verb(NamedTuple):
    """`module`: where its command is, under the verb's own name; `also`: the same command under the names that fingers
    type (a function of that name in the module has options of its own); `meant`: words of other tools that are answered
    with this verb; `group`: has commands of its own; `raw`: global options before it are not handed on to it; `removes`:
    never proposed for a word that is mistyped; `interrupted`: what is said after Ctrl-C; `hidden`: no person types it."""

    name: str
    module: str
    help: str
    examples: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    meant: tuple[str, ...] = ()
    group: bool = False
    raw: bool = False
    removes: bool = False
    interrupted: Interrupted = Interrupted.STOPS
    hidden: bool = False


_ENDS, _GOES_ON = Interrupted.ENDS, Interrupted.GOES_ON
SECTIONS: dict[str, tuple[Verb, ...]] = {
    "Machines": (
        Verb(
            "up",
            "up",
            "Create or change what manifests describe, and wait until it is ready.",
            ("up vm.yaml", "up examples/ --timeout 10m", "up - < vm.yaml"),
            also=("apply",),
            meant=("launch", "create", "run", "deploy", "boot", "edit"),
            interrupted=_GOES_ON,
        ),
        Verb(
            "down",
            "down",
            "Stop and remove machines; their disks are kept.",
            ("down", "down web", "down vm.yaml --disks"),
            removes=True,
            interrupted=_GOES_ON,
        ),
        Verb("start", "power", "Start machines.", ("start web", "start --all --wait"), interrupted=_GOES_ON),
        Verb(
            "stop",
            "power",
            "Stop machines until `start`.",
            ("stop web", "stop --all --grace 10s"),
            meant=("shutdown", "poweroff", "halt"),
            interrupted=_GOES_ON,
        ),
        Verb(
            "restart",
            "power",
            "Stop machines and start them again.",
            ("restart web --wait",),
            meant=("reboot",),
            interrupted=_GOES_ON,
        ),
        Verb("pause", "power", "Pause running machines.", meant=("suspend", "freeze")),
        Verb("unpause", "power", "Resume paused machines.", meant=("resume",)),
        Verb("snapshot", "snapshot", "Checkpoints of a machine: create, list, restore, delete.", group=True),
        Verb(
            "reset",
            "snapshot",
            "Reset a machine to the end of its first boot.",
            ("reset web --yes",),
            removes=True,
            interrupted=_GOES_ON,
        ),
        Verb(
            "delete",
            "down",
            "Delete objects: a machine, or a disk with its data.",
            ("delete vm/web", "delete vmdisk data --yes", "delete -f vm.yaml"),
            also=("rm",),
            removes=True,
            interrupted=_GOES_ON,
        ),
    ),
    "Look": (
        Verb(
            "get",
            "get",
            "List objects, or show one.",
            ("get", "get vm -o wide", "get vm web -o jsonpath='{.status.addresses[0].address}'", "get -A -w"),
            also=("ps", "ls", "list", "status"),
            interrupted=_ENDS,
        ),
        Verb(
            "describe",
            "describe",
            "Show everything known about objects.",
            ("describe web", "describe vmdisk data"),
            also=("info",),
        ),
        Verb("events", "events", "Show what happened.", ("events -f", "events web"), interrupted=_ENDS),
        Verb(
            "logs",
            "logs",
            "Show a machine's console log.",
            ("logs web --tail 50", "logs web -f", "logs web -p"),
            interrupted=_ENDS,
        ),
        Verb("top", "top", "Show CPU, memory, disk and network use.", interrupted=_ENDS),
        Verb("ports", "ports", "List the addresses and ports of all machines."),
        Verb(
            "wait",
            "wait",
            "Wait for a condition.",
            ("wait vm/web --for=condition=Ready --timeout=5m", "wait vm --all --for=delete"),
            interrupted=_ENDS,
        ),
        Verb("screenshot", "console", "Save a machine's screen as PNG.", ("screenshot web screen.png",)),
    ),
    "Access": (
        Verb(
            "ssh",
            "ssh",
            "Log in to a machine.",
            ("ssh web", "ssh admin@web -n team-a -- uptime"),
            also=("shell", "exec"),
            meant=("login", "connect"),
            interrupted=_ENDS,
        ),
        Verb(
            "scp",
            "ssh",
            "Copy files to and from machines.",
            ("scp ./file web:/tmp/", "scp -r web:/var/log ./logs", "scp web:/etc/hosts db:/tmp/"),
            also=("cp",),
            interrupted=_ENDS,
        ),
        Verb(
            "ssh-config",
            "ssh",
            "Settings for ssh, so that `ssh NAME.NAMESPACE.hikube` works.",
            ("ssh-config --install",),
        ),
        Verb(
            "console",
            "console",
            "Connect to a machine's serial console (leave with Ctrl-]).",
            meant=("serial", "attach"),
            interrupted=_ENDS,
        ),
        Verb("vnc", "console", "Open a machine's screen.", interrupted=_ENDS),
        Verb(
            "port-forward",
            "ports",
            "Forward local ports to a machine.",
            ("port-forward web 8080:80", "port-forward web :22"),
            interrupted=_ENDS,
        ),
        Verb(
            "network",
            "network",
            "Run a command of this host inside a tenant's network.",
            group=True,
            interrupted=_ENDS,
        ),
        Verb(
            "virsh",
            "ports",
            "Run virsh, connected to the libvirt that runs the machines.",
            raw=True,
            interrupted=_ENDS,
        ),
    ),
    "Manifests": (
        Verb(
            "init",
            "init",
            "Write a first manifest, with comments.",
            ("init web.yaml", "init --image ubuntu-2404 --port 80 --yes > web.yaml"),
            meant=("new", "scaffold", "generate"),
        ),
        Verb(
            "validate",
            "validate",
            "Check manifests; nothing is changed.",
            ("validate .", "validate vm.yaml -o json"),
            meant=("lint", "check"),
        ),
        Verb(
            "plan",
            "plan",
            "Show what `up` would do.",
            ("plan vm.yaml", "plan vm.yaml --detailed-exitcode"),
            also=("diff",),
        ),
        Verb(
            "compare",
            "compare",
            "Compare machines here with the same ones in a context, or in a record.",
            (
                "compare vm.yaml --context prod",
                "compare vm.yaml --context prod --record hikube.json",
                "compare vm.yaml --against hikube.json",
            ),
        ),
        Verb(
            "explain",
            "explain",
            "Show what a field means on Hikube, and what differs here.",
            ("explain vminstance.spec.externalMethod",),
        ),
        Verb("schema", "explain", "Print a JSON schema of both kinds, for editors."),
        Verb(
            "convert",
            "convert",
            "Convert a retired VirtualMachine to a VMDisk and a VMInstance.",
            ("convert old.yaml > new.yaml",),
        ),
        Verb(
            "render",
            "render",
            "Print or write domain XML and seed, or KubeVirt's objects.",
            ("render vm.yaml --to -", "render vm.yaml --as kubevirt | kubectl apply -f -"),
        ),
        Verb("catalog", "catalog", "List instance types, profiles and images.", group=True),
    ),
    "Lab": (
        Verb(
            "test",
            "test",
            "Boot throw-away machines, read what cloud-init did, and check them.",
            ("test vm.yaml --checks checks.yaml", "test vm.yaml --image debian-12 --junit report.xml"),
        ),
        Verb(
            "sweep",
            "sweep",
            "Remove what killed runs of `test` left in a tenant.",
            ("sweep --context prod", "sweep --context prod --list"),
            removes=True,
            interrupted=_GOES_ON,
        ),
        Verb(
            "cloudinit",
            "cloudinit",
            "Check user-data, show the seed, compare two: check, render, diff.",
            group=True,
        ),
    ),
    "Images": (
        Verb(
            "images",
            "images",
            "Build, pull, import, list, remove, verify and prune images.",
            meant=("pull", "build", "import"),
            group=True,
        ),
        Verb(
            "bundle",
            "bundle",
            "Put manifests and images into one folder, for `up --offline` elsewhere.",
            ("bundle vm.yaml --to bundle/",),
        ),
        Verb(
            "image-upload",
            "upload",
            "Upload the content of a VMDisk that waits for it.",
            ("image-upload vmdisk data --image-path disk.qcow2",),
            interrupted=_GOES_ON,
        ),
    ),
    "Kubernetes": (
        Verb(
            "serve",
            "serve",
            "Serve the objects to kubectl and other Kubernetes clients.",
            ("serve", "serve --exit-when-idle 30m"),
        ),
        Verb(
            "ui",
            "ui",
            "Show the machines in a browser.",
            ("ui", "ui web", "ui --print"),
            meant=("dashboard", "gui", "web", "browser", "webui"),
            interrupted=_ENDS,
        ),
        Verb(
            "kubeconfig",
            "serve",
            "Print or write a kubeconfig for `serve`.",
            ("kubeconfig --env", "kubeconfig --merge"),
        ),
    ),
    "Host": (
        Verb("system", "system", "Space on this host: df, prune.", ("system df", "system prune --dry-run"), group=True),
        Verb(
            "report",
            "report",
            "Collect what a bug report needs, without secrets.",
            ("report", "report web --to report.tar.gz"),
            meant=("bugreport", "sos", "support"),
        ),
        Verb(
            "autostart",
            "autostart",
            "Start machines when this host boots (systemd): enable, disable, status, run.",
            group=True,
        ),
        Verb(
            "doctor",
            "doctor",
            "Check whether this host can run machines, and how to fix what is missing.",
            ("doctor", "doctor -o json"),
        ),
        Verb("config", "settings", "Show the configuration.", group=True),
        Verb(
            "context",
            "contexts",
            "Where commands act: create, ls, use, show, check, rm.",
            ("context create box --ssh me@box", "context create prod --kubeconfig FILE", "context use local"),
            group=True,
        ),
        Verb(
            "purge",
            "purge",
            "Stop and remove everything of hikube-local; disks only with --disks.",
            removes=True,
            interrupted=_GOES_ON,
        ),
        Verb(
            "completion",
            "settings",
            "Print a completion script for bash, zsh or fish.",
            ("completion --install", "completion bash"),
            raw=True,
        ),
        Verb("box", "box", "The other end of a context over ssh.", group=True, hidden=True),
        Verb("version", "settings", "Show the version."),
        Verb("help", "settings", "Show the help of a command.", raw=True),
    ),
}
VERBS: dict[str, Verb] = {verb.name: verb for section in SECTIONS.values() for verb in section}
ALIASES: dict[str, Verb] = {alias: verb for verb in VERBS.values() for alias in verb.also}
# No word of another tool is ever answered with a verb that removes something.
MEANT: dict[str, Verb] = {word: verb for verb in VERBS.values() for word in verb.meant}
# Of an alias whose options are its own.
EXAMPLES: dict[str, tuple[str, ...]] = {"apply": ("apply -f vm.yaml", "apply -f vm.yaml --dry-run=client")}
# All that may be typed, the verbs first.
WORDS: dict[str, Verb] = VERBS | ALIASES
