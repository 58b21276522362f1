"""`events [-f] [--for KIND/NAME]`."""

from __future__ import annotations

import time

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common, option, output_option
from hikube_local.cli.references import reference
from hikube_local.errors import ExitCode
from hikube_local.language import tr


@click.command("events")
@click.argument("name", default="", metavar="[KIND/NAME]")
@option("-f", "--follow", is_flag=True, help="Follow: print new events as they occur.")
@option("--for", "about", default=None, help="Only of this object: vm/web.")
@option("-A", "--all-namespaces", is_flag=True, help="Of every namespace.")
@option("--tail", type=int, default=None, help="Only the last ones.")
@output_option("json")
@common
def events(
    app: App, name: str, follow: bool, about: str | None, all_namespaces: bool, tail: int | None, output: str
) -> int:
    """What happened, oldest first."""
    import json

    from hikube_local.cli.tables import as_json, table
    from hikube_local.text import age

    ref = None
    if about := about or name:
        kind, name = reference(about, "VMInstance")
        ref = f"{kind.lower()}/{name}"
    namespace = None if all_namespaces else app.namespace
    last = 0
    first = True
    while True:
        rows = app.store.events(last, namespace, ref)
        if first and tail is not None:
            rows = rows[-tail:] if tail else []
        last = max([last, *(i for i, _, _ in rows)])
        if output == "json":
            if not follow:
                print(as_json([e for _, _, e in rows]))
            else:
                for _, _, e in rows:
                    print(json.dumps(e, ensure_ascii=False), flush=True)
        elif rows or first:
            cells = [
                [age(time.time() - t), e["type"], e.get("object", ""), tr(e.get("message", ""))] for _, t, e in rows
            ]
            block = table(["AGE", "TYPE", "OBJECT", "MESSAGE"], cells)
            print(block if first else "\n".join(block.split("\n")[1:]), flush=True)
        first = False
        if not follow:
            return ExitCode.DONE
        time.sleep(0.3)
