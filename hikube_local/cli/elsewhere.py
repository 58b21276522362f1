"""What verbs do in another context than this machine: most ask the API and go on as here, some are the same everywhere, some
are not possible in a tenant."""

from __future__ import annotations

import click

from hikube_local.cli.app import App
from hikube_local.cli.verbs import WORDS
from hikube_local.errors import UsageError

# They act on no machine: a file, the catalogue, this program.
ANYWHERE = frozenset(
    (
        "init",
        "explain",
        "schema",
        "convert",
        "render",
        "catalog",
        "cloudinit",
        "config",
        "completion",
        "version",
        "help",
        "context",
        "box",
    )
)
# Their questions and wishes are the API's.
THROUGH_API = frozenset(
    (
        *("get", "describe", "events", "logs", "wait", "ports", "screenshot"),
        *("ssh", "scp", "ssh-config", "console", "vnc", "port-forward"),
        *("up", "down", "delete", "start", "stop", "restart", "pause", "unpause", "plan", "validate", "compare"),
    )
)
# Why no tenant has it.
_NOT_THERE = {
    "snapshot": "no user of a tenant may take snapshots",
    "reset": "no user of a tenant may take snapshots",
    "top": "no user of a tenant may read metrics",
    "images": "a tenant takes the platform's images: validate lists what is not there",
    "network": "the tenant's network is inside the cluster",
    "virsh": "libvirt is inside the cluster",
}


def verb() -> str:
    """The verb that runs now, whatever alias was typed."""
    context = click.get_current_context()
    while context.parent is not None and context.parent.parent is not None:
        context = context.parent
    found = WORDS.get(context.info_name or "")
    return found.name if found else ""


def instead(app: App) -> int | None:
    """None: the verb goes on as here."""
    name = verb()
    if name in ANYWHERE or app.context.local or name in THROUGH_API:
        return None
    # In a tenant `test` makes copies there; `sweep` says itself that it is about nothing else.
    if name == "sweep" or (name == "test" and app.context.kind == "kube"):
        return None
    if app.context.kind == "ssh":
        return _on_the_box(app)
    why = _NOT_THERE.get(name, "it is about this machine")
    raise UsageError(
        "HK825",
        f"{name} is not possible in the context {app.context.name}",
        why,
        f"hikube-local --context local {name}",
    )


# About this machine's own programs: the box has its own.
_ITS_OWN = ("serve", "ui", "kubeconfig", "autostart")
# Options that say where a command acts, and are not handed on.
_WHERE = ("--context", "--host")


def _on_the_box(app: App) -> int:
    """The box's own command line does it, with the files that it names."""
    from hikube_local.cli import ask_box
    from hikube_local.engine.reach import link

    name = verb()
    if name in _ITS_OWN:
        what = f"{name} is not possible in the context {app.context.name}"
        raise UsageError(
            "HK825", what, "it is about programs of one machine", f"ssh {app.context.host} hikube-local {name}"
        )
    words: list[str] = []
    skip = False
    for word in click.get_current_context().find_root().obj:
        if skip or word in _WHERE:
            skip = word in _WHERE and not skip
        elif not word.startswith(tuple(f"{w}=" for w in _WHERE)):
            words.append(word)
    if app.context.namespace and app.flag_namespace is None:
        words += ["-n", app.context.namespace]
    if name == "report" and not any(w == "--to" or w.startswith("--to=") for w in words):
        words += ["--to", "hikube-local-report.tar.gz"]
    app.say_where(f"context {app.context.name}: {app.context.where}")
    way = link(app.layout, app.context)
    way.open()
    return ask_box.ask(way.argv("run"), words)
