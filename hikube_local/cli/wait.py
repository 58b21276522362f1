"""`wait KIND/NAME --for=condition=Ready|jsonpath=…|create|delete`."""

from __future__ import annotations

import time
from typing import Any

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common, complete_object, option, seconds
from hikube_local.cli.references import references
from hikube_local.errors import ExitCode, HikubeError, NotFound, UsageError


def test_of(wanted: str) -> Any:
    """The condition as a test over a resource (None when it is not there)."""
    from hikube_local.cli.tables import jsonpath

    head, _, rest = wanted.partition("=")
    if wanted in ("create", "delete"):
        return lambda r: (r is not None) == (wanted == "create")
    if head == "condition":
        name, _, value = rest.partition("=")
        value = value or "True"

        def condition(r: dict | None) -> bool:
            found = [
                c["status"]
                for c in (r or {}).get("status", {}).get("conditions", [])
                if c["type"].lower() == name.lower()
            ]
            return bool(found) and found[0].lower() == value.lower()

        return condition
    if head == "jsonpath":
        template, brace, value = rest.partition("}")
        template = template.strip("'\"") + brace
        value = value.strip("'\"").removeprefix("=").strip("'\"")
        if not template.startswith("{"):
            raise UsageError(
                "HK810", f"--for={wanted}: the path stands in braces", fix="--for=jsonpath='{.status.phase}'=Succeeded"
            )

        def path(r: dict | None) -> bool:
            got = jsonpath(template, r) if r is not None else ""
            return got == value if value else got != ""

        return path
    raise UsageError(
        "HK810",
        f"--for={wanted} is not understood",
        fix="condition=NAME[=VALUE], jsonpath='{PATH}'=VALUE, create or delete",
    )


@click.command("wait")
@click.argument("words", shell_complete=complete_object, metavar="KIND/NAME...", nargs=-1)
@option("--for", "wanted", required=True, multiple=True, help="condition=Ready, jsonpath='{…}'=VALUE, create, delete.")
@option("--timeout", default="30s", callback=seconds, help="How long to wait (30s).")
@option("-l", "--selector", "labels", default="", help="Label selector: the objects of the kind that fit.")
@option("--all", "everything", is_flag=True, help="All objects of the kind.")
@common
def wait(
    app: App, words: tuple[str, ...], wanted: tuple[str, ...], timeout: float, labels: str, everything: bool
) -> int:
    """Wait for a condition of objects: wait vm/web --for=condition=Ready --timeout=5m."""
    from hikube_local.api.objects import INSTANCE, Key
    from hikube_local.api.selectors import selector
    from hikube_local.cli.get import bare

    statuses = app.session.statuses
    deadline, bell = time.monotonic() + timeout, app.session.bell()
    fits = selector(labels)
    targets = references(words, bare(app, words)) or ([(INSTANCE, None)] if labels or everything else [])
    if not targets:
        raise UsageError("HK810", "no object given", fix="write wait vm/NAME, or wait vm --all")
    if any(name is None for _, name in targets):
        targets = [(o.kind, o.name) for k, _ in targets for o in app.store.objects(k, app.namespace) if fits(o.labels)]
    for kind, name in targets:
        for text in wanted:
            test = test_of(text)
            while True:
                obj = app.store.get(Key(kind, app.namespace, str(name)))
                if obj:
                    statuses.refresh(obj)
                resource = statuses.resource(obj) if obj else None
                if test(resource):
                    break
                if obj is None and text not in ("create", "delete"):
                    raise NotFound("HK804", f"there is no {kind.lower()} {name!r} in namespace {app.namespace}")
                if time.monotonic() >= deadline:
                    now = _now(resource)
                    what = f"timed out waiting for {text} on {kind.lower()}/{name}"
                    raise HikubeError(
                        "HK907",
                        what,
                        why=now,
                        fix=f"hikube-local describe {kind.lower()} {name}",
                        exit_code=ExitCode.TIMEOUT,
                    )
                bell.wait(0.2)
        print(f"{kind.lower()}.apps.cozystack.io/{name} condition met")
    return ExitCode.DONE


def _now(resource: dict | None) -> str:
    if resource is None:
        return "it is not there"
    status = resource["status"]
    words = (f"{c['reason']}: {c['message']}" if c["message"] else c["reason"] for c in status["conditions"])
    conditions = ", ".join(f"{c['type']}={c['status']} ({w})" for c, w in zip(status["conditions"], words, strict=True))
    return f"{status.get('printableStatus', status.get('phase'))}; {conditions}"
