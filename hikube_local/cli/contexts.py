"""`context`: where commands act: this machine, a box over ssh, a tenant of a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from hikube_local import contexts
from hikube_local.cli.app import App
from hikube_local.cli.options import common, output_option
from hikube_local.contexts import Context
from hikube_local.errors import ExitCode, UsageError
from hikube_local.language import tr
from hikube_local.paths import layout


@click.group("context")
def context() -> None:
    """Where commands act: this machine (local), another machine over ssh, or a tenant of a cluster."""


def _row(found: Context) -> dict[str, Any]:
    row: dict[str, Any] = {"name": found.name, "kind": found.kind, "used": found.name == contexts.used(layout())}
    for name in ("host", "server", "namespace", "context", "ca"):
        if value := getattr(found, name):
            row[name] = value
    return row | ({"kubeconfig": list(found.files)} if found.files else {})


@context.command("create")
@click.argument("name")
@click.option("--ssh", "host", default=None, metavar="[USER@]HOST", help="Another machine, as ssh reaches it.")
@click.option("--kubeconfig", multiple=True, type=click.Path(path_type=Path), help="A kubeconfig file of a tenant.")
@click.option(
    "--kube-context", "chosen", default="", help="The context in the kubeconfig (its current one is never taken)."
)
@common
def create(app: App, name: str, host: str | None, kubeconfig: tuple[Path, ...], chosen: str) -> int:
    """Give a place a name: context create box --ssh me@box, context create prod --kubeconfig FILE."""
    if host and (kubeconfig or chosen):
        raise UsageError("HK810", "--ssh and --kubeconfig exclude each other", fix="choose one")
    if not host and not kubeconfig and not chosen:
        raise UsageError("HK810", "no place is given", fix="add --ssh [USER@]HOST or --kubeconfig FILE")
    namespace = app.flag_namespace or ""
    if host:
        made = Context(name, "ssh", contexts.of_host(host).host, namespace=namespace)
    else:
        made = contexts.tenant(name, list(kubeconfig) or contexts.default_files(), chosen, namespace)
    contexts.create(layout(), made)
    print(tr(f"context {name} leads to {made.where}"))
    print(
        tr(f"use it once: hikube-local --context {name} get; from now on: hikube-local context use {name}"),
        file=sys.stderr,
    )
    return ExitCode.DONE


@context.command("ls")
@output_option("json", "name")
@common
def ls(app: App, output: str) -> int:
    """List the contexts; * marks the one that is used where none is named."""
    from hikube_local.cli import tables

    rows = [_row(c) for c in contexts.known(layout()).values()]
    if output == "name":
        print("\n".join(r["name"] for r in rows))
    elif output == "json":
        print(tables.as_json(rows))
    else:
        cells = [
            ["*" if r["used"] else "", r["name"], r["kind"], tr(contexts.named(layout(), r["name"]).where)]
            for r in rows
        ]
        print(tables.table(["USED", "NAME", "KIND", "WHERE"], cells))
    return ExitCode.DONE


@context.command("use")
@click.argument("name")
@common
def use(app: App, name: str) -> int:
    """Choose where commands act from now on; `context use local` comes back."""
    contexts.use(layout(), name)
    print(tr(f"commands act on {contexts.named(layout(), name).where} now"))
    return ExitCode.DONE


@context.command("show")
@click.argument("name", default="")
@output_option("json")
@common
def show(app: App, name: str, output: str) -> int:
    """Show one context, or the one that this command would act in."""
    from hikube_local.cli import tables

    found = _row(contexts.named(layout(), name) if name else app.context)
    if output == "json":
        print(tables.as_json(found))
    else:
        print("\n".join(f"{k + ':':<13}{', '.join(v) if isinstance(v, list) else v}" for k, v in found.items()))
    return ExitCode.DONE


@context.command("rm")
@click.argument("name")
@common
def rm(app: App, name: str) -> int:
    """Forget a context; what it leads to stays as it is."""
    from hikube_local.engine.reach import forget

    forget(layout(), contexts.named(layout(), name))
    print(tr(f"context {name} is forgotten"))
    return ExitCode.DONE


@context.command("check")
@click.argument("name", default="")
@output_option("json")
@common
def check(app: App, name: str, output: str) -> int:
    """Try a context: whether it leads where it did, who one is there, and what one may do."""
    from hikube_local.cli import tables
    from hikube_local.engine.reach import checks, link

    chosen = App(context=name) if name else app
    if chosen.context.local:
        raise UsageError("HK810", "local is this machine", fix="hikube-local doctor")
    if chosen.context.kind == "ssh" and sys.stdin.isatty():
        link(chosen.layout, chosen.context).open(ask=True)  # here ssh may ask for a password; nowhere else
    rows = checks(lambda: chosen.session)
    ok = all(r.ok for r in rows)
    if output == "json":
        shown = [{"name": r.name, "ok": r.ok, "detail": r.detail, "fix": r.fix} for r in rows]
        print(tables.as_json({"ok": ok, "checks": shown}))
    else:
        for r in rows:
            print(
                f"{'ok' if r.ok else tr('FAILED'):<8}{tr(r.name)}: {tr(r.detail)}"
                + (f"\n        {tr('fix')}: {tr(r.fix)}" if r.fix and not r.ok else "")
            )
    return ExitCode.DONE if ok else ExitCode.FAILED
