"""`up` and `apply`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from hikube_local.cli.app import App, confirm
from hikube_local.cli.load import Invalid, load, remember
from hikube_local.cli.options import (
    adopt_option,
    backend_option,
    common,
    dry_run_option,
    files_option,
    ignored,
    option,
    output_option,
    seconds,
    validate_option,
)
from hikube_local.cli.references import manifests
from hikube_local.errors import ExitCode, HikubeError, worst
from hikube_local.events import ignore
from hikube_local.language import tr


def _up_options(command: Any) -> Any:
    options = [
        click.argument("files", nargs=-1),
        files_option(),
        option("--timeout", default=None, callback=seconds, help="How long to wait for readiness (5m)."),
        dry_run_option(),
        option("--restart", is_flag=True, help="Restart machines whose changes need it."),
        option("--exact", is_flag=True, help="Refuse machines that this host would have to make smaller."),
        option("--prune", is_flag=True, help="Remove machines of the namespace that are not in the input."),
        option("--checkpoint/--no-checkpoint", default=True, help="Keep the state after the first boot, for `reset`."),
        option(
            "--warm",
            is_flag=True,
            help="Start new machines from the state after an earlier first boot, if nothing changed.",
        ),
        option("--pull", is_flag=True, help="Ask the servers whether their images changed."),
        option("--offline", is_flag=True, help="Do not use the network."),
        backend_option(),
        option("--bridge", default=None, help="A bridge of this host for WholeIP machines (root)."),
        click.option(
            "--accelerator",
            type=click.Choice(["kvm", "tcg", "auto"]),
            help="Run these machines under KVM or emulated (tcg), from now on; auto: as this host can.",
        ),
        option("--pace", type=float, default=0.0, help="Simulator: seconds of a whole boot."),
        option("--yes", is_flag=True, help="Answer questions with yes."),
        option("--allow-inner", is_flag=True, help="Fetch images from addresses of this host, as the manifest says."),
        adopt_option(),
        validate_option(),
        output_option("json"),
        ignored("--field-manager", flags=("--server-side", "--force-conflicts", "--record", "--recursive", "-R")),
    ]
    for decorate in reversed(options):
        command = decorate(command)
    return common(command)


@click.command("up")
@option("--wait/--no-wait", default=True, help="Wait until the machines are ready.")
@_up_options
def up(app: App, wait: bool, **options: Any) -> int:
    """Create or change what the manifests describe: FILE, FOLDER or - (standard input)."""
    return _told(app, wait=wait, **options)


@click.command("apply")
@option("--wait/--no-wait", default=False, help="Wait until the machines are ready.")
@_up_options
def apply(app: App, wait: bool, **options: Any) -> int:
    """The same as `up --no-wait`: apply -f FILE."""
    return _told(app, wait=wait, **options)


def _told(app: App, output: str, **options: Any) -> int:
    """With -o json the last line is a result, whatever happened."""
    try:
        return _up(app, output=output, **options)
    except Invalid as e:
        if output:
            _result(False, [], findings=e.findings)
        raise
    except HikubeError as e:
        if output:
            _result(False, [], code=e.code, message=e.what, why=e.why, fix=e.fix)
        raise


def _result(ok: bool, items: list[dict[str, Any]], **more: Any) -> None:
    from hikube_local.events import Event, EventType

    event = Event(EventType.RESULT, data={"ok": ok, "items": items, **more})
    print(json.dumps(event.as_json(), ensure_ascii=False), flush=True)


def _up(
    app: App,
    files: tuple[str, ...],
    filename: tuple[str, ...],
    wait: bool,
    timeout: float | None,
    dry_run: bool,
    restart: bool,
    exact: bool,
    prune: bool,
    checkpoint: bool,
    warm: bool,
    pull: bool,
    offline: bool,
    backend: str | None,
    bridge: str | None,
    accelerator: str | None,
    pace: float,
    yes: bool,
    allow_inner: bool,
    unknown: str,
    output: str,
    **_: object,
) -> int:
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.engine import apply as engine
    from hikube_local.plan.steps import RunOptions

    named = manifests(files, filename, offline)
    loaded = load(app, named, for_plan=True, quiet=output == "json", unknown=unknown)
    wanted = engine.with_backend(app.session, [item.object for item in loaded.objects], backend)
    run = RunOptions(
        exact=exact,
        pull=pull,
        offline=offline,
        restart=restart,
        pace=pace,
        dry=dry_run,
        warm=app.layout.warm if warm else None,
    )
    if dry_run:
        from hikube_local.cli.plan import rows, text

        going = engine.planned_away(app.session, wanted) if prune else []
        planned = rows(app, app.reconciler(ignore, run), wanted + going)
        _result(True, planned) if output else print(text(planned, app.color()))
        return ExitCode.DONE
    _tell_again(app, wanted)
    options = engine.ApplyOptions(run, wait, timeout, prune, checkpoint, bridge, allow_inner, accelerator or "")
    folders = [Path(source) for source in named]
    try:
        with ProgressPrinter(app, output == "json") as progress:
            done = engine.apply(
                app.session, wanted, options, progress, lambda question: confirm(question, yes), folders
            )
    finally:
        with contextlib.suppress(HikubeError):  # as on a disk that is full: what went wrong before is what is told
            if any(app.store.get(obj.key) for obj in wanted):
                remember(app, loaded)
    app.refresh_ssh_config()
    return _finish(app, done, output == "json")


def _tell_again(app: App, wanted: list[Any]) -> None:
    """What cloud-init does once more because of this manifest."""
    for obj in wanted:
        if (old := app.store.get(obj.key)) is None or old.spec == obj.spec:
            continue
        from hikube_local.cli.plan import notes

        for said in notes(old, obj):
            print(f"note: {obj.ref}: {tr(said)}", file=sys.stderr)


def _finish(app: App, applied: Any, as_json: bool) -> int:
    stored, results = applied.stored, applied.results
    code = worst(r.exit_code for r in results.values())
    if as_json:
        _result(code == 0, [_item(obj, results[obj.key]) for obj in stored])
        return code
    for obj in stored:
        if results[obj.key].restart_required:
            where = app.in_namespace(obj)
            fix = f"hikube-local restart{where} {obj.name}, or up --restart"
            print(tr(f"{obj.ref}: a change takes effect after a restart: {fix}"), file=sys.stderr)
    for obj in stored:
        if obj.kind == "VMInstance" and results[obj.key].exit_code == ExitCode.DONE:
            print("\n".join(map(tr, _way_in(app, obj, app.session.statuses.resource(obj)))))
    failed = [obj.ref for obj in stored if results[obj.key].exit_code]
    changed = applied.changed
    words = f"{changed} of {len(results)} objects changed" if changed else "nothing changed"
    if failed:
        words = f"failed: {', '.join(failed)} ({len(stored) - len(failed)} of {len(stored)} objects succeeded)"
    print(tr(words), file=sys.stderr)
    return code


def _item(obj: Any, done: Any) -> dict[str, Any]:
    """One row of the result of `up -o json`."""
    item: dict[str, Any] = {
        "kind": obj.kind,
        "namespace": obj.namespace,
        "name": obj.name,
        "changed": done.changed,
        "ok": done.exit_code == 0,
        "restartRequired": done.restart_required,
    }
    if done.error:
        item |= {"code": done.error.code, "message": done.error.what}
    elif done.verdict and done.exit_code:
        trouble = done.verdict.trouble
        item |= {"code": trouble.code if trouble else "HK907", "message": done.verdict.message}
    return item


def _way_in(app: App, obj: Any, resource: dict) -> list[str]:
    """How the machine is reached; without a promise while it boots."""
    from hikube_local.cli import tables

    status, where = resource["status"], app.in_namespace(obj)
    row = tables.machine_row(resource, False)
    lines = [f"{obj.name}: {row[1]}" + (f", {row[4]} ports {row[5]}" if row[5] != "<none>" else ", no ports")]
    if status["ready"]:
        lines += [f"  log in: hikube-local ssh{where} {obj.name}", f"  console: hikube-local console{where} {obj.name}"]
    elif status["printableStatus"] == "Running":
        lines.append(
            f"  wait until it is ready: hikube-local wait{where} vm/{obj.name} --for=condition=Ready --timeout=10m"
        )
    return lines
