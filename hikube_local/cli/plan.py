"""`plan` (and `diff`): what `up` would do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import backend_option, common, files_option, option, output_option
from hikube_local.cli.references import manifests
from hikube_local.errors import ExitCode, HikubeError
from hikube_local.language import tr


def changes(old: Any, new: Any, live: frozenset[str], path: str = "spec") -> list[dict[str, Any]]:
    """The fields that differ, each with old and new. `live`: those that never need a restart."""
    if isinstance(old, dict) and isinstance(new, dict):
        out = []
        for key in [*old, *(k for k in new if k not in old)]:
            out += changes(old.get(key), new.get(key), live, f"{path}.{key}")
        return out
    if old == new:
        return []
    field = path.split(".")[1] if "." in path else path
    secret = field in ("cloudInit", "sshKeys")
    return [{"path": path, "old": _short(old, secret), "new": _short(new, secret), "live": field in live}]


def _short(value: Any, secret: bool) -> Any:
    """User-data may hold passwords: only its size is told."""
    if secret and value:
        return f"({len(value)} {'keys' if isinstance(value, list) else 'characters'})"
    if isinstance(value, str):
        from hikube_local.text import mask_url

        return mask_url(value)
    return value


def notes(old: Any, new: Any) -> list[str]:
    """What the changes come to in the guest: a new instance-id, under which cloud-init begins again."""
    if old is None or old.kind != "VMInstance" or old.instance.cloudInitSeed == new.instance.cloudInitSeed:
        return []
    from hikube_local.render import seed
    from hikube_local.text import one_line
    from hikube_local.userdata import requested

    if not new.instance.has_seed:
        return ["cloudInitSeed changes, but there is no user-data and no SSH key: nothing runs again"]
    text = seed.user_data(new).decode("utf-8", "replace")
    keys = ", ".join(one_line(k)[:40] for k in requested.again(text)) or "the modules that it runs for every machine"
    said = [f"cloudInitSeed changes: at the next boot cloud-init treats this as a new machine and runs again: {keys}"]
    if devices := requested.formats(text):
        said.append(f"fs_setup is among them: {', '.join(one_line(d)[:60] for d in devices)} may be formatted again")
    return said


SIZE = ("spec.instanceType", "spec.resources")
THERE = "on Hikube more vCPUs and memory reach the running machine, up to four times what it was started with"


def rows(app: App, reconciler: Any, objects: list[Any]) -> list[dict[str, Any]]:
    from hikube_local.api.shapes import plain_spec
    from hikube_local.plan.steps import Verb

    out = []
    for obj in objects:
        old = app.store.get(obj.key)
        fresh = replace(obj, generation=old.generation) if old else obj
        row: dict[str, Any] = {"kind": obj.kind, "namespace": obj.namespace, "name": obj.name}
        row["changes"] = changes(plain_spec(old.spec), plain_spec(obj.spec), obj.spec.live()) if old else []
        row["notes"] = notes(old, obj)
        row["unknown"], row["steps"] = [], []
        try:
            planned = reconciler.plan(fresh)
        except HikubeError as e:
            if e.code not in ("HK605", "HK601"):
                raise
            row |= {"action": "create" if old is None else "unknown", "unknown": [e.what]}
            out.append(row)
            continue
        verbs = [s.verb for s in planned.steps if s.verb is not Verb.RECORD]
        row["steps"] = [str(v) for v in verbs]
        row["unknown"] = list(planned.unknown)
        if old is None:
            row["action"] = "create"
        elif obj.deletion:
            row["action"] = "delete"
        elif planned.restart_required or (Verb.STOP in verbs and Verb.START in verbs):
            row["action"] = "restart"
            if any(c["path"].startswith(SIZE) for c in row["changes"]):
                row["notes"] = [*row["notes"], THERE]
        else:
            row["action"] = "update" if verbs or row["changes"] else "none"
            # A disk that is hotplugged, a machine that is off, a value that was the default: what carries it says so.
            row["changes"] = [c | {"live": True} for c in row["changes"]]
        out.append(row)
    return out


def text(planned: list[dict[str, Any]], colour: bool) -> str:
    signs = {
        "create": ("+", "32"),
        "update": ("~", "33"),
        "restart": ("~", "33"),
        "delete": ("-", "31"),
        "none": (" ", "2"),
        "unknown": ("?", "35"),
    }
    lines = []
    for row in planned:
        sign, code = signs[row["action"]]
        head = f"{sign} {row['action']:<8}{row['kind'].lower()}/{row['name']} (namespace {row['namespace']})"
        if row["action"] == "restart":
            head += tr("  takes effect after a restart: `up --restart`")
        lines.append(f"\x1b[{code}m{head}\x1b[0m" if colour else head)
        for c in row["changes"]:
            lines.append(
                f"      {c['path']}: {c['old']} -> {c['new']}" + ("" if c["live"] else tr("  (after a restart)"))
            )
        if row.get("steps"):
            lines.append(f"      steps: {', '.join(row['steps'])}")
        lines += [f"      {tr(u)}" for u in (*row["notes"], *row["unknown"])]
    todo = sum(row["action"] != "none" for row in planned)
    lines.append(tr(f"{todo} of {len(planned)} objects need changes" if todo else "nothing to do"))
    return "\n".join(lines)


def _plan(
    app: App,
    files: tuple[str, ...],
    filename: tuple[str, ...],
    detailed_exitcode: bool,
    backend: str | None,
    output: str,
    exact: bool,
    restart: bool,
) -> int:
    from hikube_local.cli import tables
    from hikube_local.cli.load import load
    from hikube_local.engine.apply import with_backend
    from hikube_local.events import ignore
    from hikube_local.plan.steps import RunOptions

    loaded = load(app, manifests(files, filename), for_plan=True, quiet=output in ("json", "yaml"))
    wanted = with_backend(app.session, [i.object for i in loaded.objects], backend)
    planned = rows(app, app.reconciler(ignore, RunOptions(exact=exact, restart=restart, dry=True)), wanted)
    print(tables.show(planned, output, lambda: text(planned, app.color())))
    todo = any(r["action"] != "none" for r in planned)
    return ExitCode.CHANGES if detailed_exitcode and todo else ExitCode.DONE


def _options(command: Any) -> Any:
    options = [
        click.argument("files", nargs=-1),
        files_option(),
        option("--detailed-exitcode", is_flag=True, help="Exit 4 when there is something to do."),
        backend_option(),
        option("--exact", is_flag=True, help="Refuse machines that this host would have to make smaller."),
        option("--restart", is_flag=True, help="As `up --restart` would do it."),
        output_option("json", "yaml"),
        common,
    ]
    for decorate in reversed(options):
        command = decorate(command)
    return command


@click.command("plan")
@_options
def plan(app: App, **options: Any) -> int:
    """Show what `up` would do; nothing is changed."""
    return _plan(app, **options)


@click.command("diff")
@_options
def diff(app: App, **options: Any) -> int:
    """The same as `plan`."""
    return _plan(app, **options)
