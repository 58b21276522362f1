"""`up` and `apply`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from hikube_local.cli.app import (
    App,
    common,
    confirm,
    dry_run_option,
    files_option,
    ignored,
    manifests,
    option,
    output_option,
    seconds,
    validate_option,
)
from hikube_local.cli.load import Invalid, load, remember, with_backend
from hikube_local.errors import ExitCode, HikubeError, UsageError, unexpected
from hikube_local.text import mask_url


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
        option("--pull", is_flag=True, help="Ask the servers whether their images changed."),
        option("--offline", is_flag=True, help="Touch no network."),
        option("--backend", type=click.Choice(["qemu", "simulator"]), default=None, help="What carries the objects."),
        option("--bridge", default=None, help="A bridge of this host for WholeIP machines (root)."),
        option("--pace", type=float, default=0.0, help="Simulator: seconds of a whole boot."),
        option("--yes", is_flag=True, help="Answer questions with yes."),
        option("--allow-inner", is_flag=True, help="Fetch images from addresses of this host, as the manifest says."),
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
    """Make what the manifests say: FILE, FOLDER or - (standard input)."""
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
    pull: bool,
    offline: bool,
    backend: str | None,
    bridge: str | None,
    pace: float,
    yes: bool,
    allow_inner: bool,
    unknown: str,
    output: str,
    **_: object,
) -> int:
    from hikube_local.backends.protocol import Options
    from hikube_local.cli.story import Story

    named = manifests(files, filename, offline)
    loaded = load(app, named, for_plan=True, quiet=output == "json", unknown=unknown)
    wanted = with_backend(app, [item.object for item in loaded.objects], backend)
    if not allow_inner and not dry_run:
        _no_inner(app, wanted)
    options = Options(exact=exact, pull=pull, offline=offline, restart=restart, pace=pace, dry=dry_run)
    with Story(app, output == "json") as story:
        reconciler = app.reconciler(story, options)
        extra = _prunable(app, wanted) if prune else []
        if dry_run:
            from hikube_local.cli.plan import rows, text

            going = [o.model_copy(update={"deletion": time.time()}) for o in extra]
            planned = rows(app, reconciler, wanted + going)
            _result(True, planned) if output else print(text(planned, app.color()))
            return ExitCode.DONE
        preflight(app, wanted)
        _take_bundles(app, named, wanted, story)
        _check_bridge(app, wanted, bridge)
        if extra:
            confirm(f"Remove the machines {', '.join(o.name for o in extra)} (their disks stay)?", yes)
        _tell_again(app, wanted)
        stored = app.store.put(wanted)
        remember(app, loaded)
        _record_bridge(app, stored, bridge)
        app.store.mark_deleted(o.key for o in extra)
        _clear_stops(app, stored)
        keys = [o.key for o in (*stored, *extra)]
        results = reconciler.reconcile(keys, wait=wait, timeout=timeout)
        if checkpoint:
            _keep_first_boots(app, stored, results, story)
    from hikube_local.cli.ssh import refresh

    refresh(app)
    return _finish(app, stored, results, output == "json")


def _tell_again(app: App, wanted: list[Any]) -> None:
    """What cloud-init does once more because of this manifest."""
    from hikube_local.cli.plan import notes

    for obj in wanted:
        for said in notes(app.store.get(obj.key), obj):
            print(f"note: {obj.ref}: {said}", file=sys.stderr)


def _no_inner(app: App, wanted: list[Any]) -> None:
    """A manifest is often somebody else's: what it may fetch from this host itself is for its user to say."""
    from hikube_local.images.fetch import mirrored
    from hikube_local.urls import is_this_host

    inner = []
    for obj in wanted:
        url = obj.disk.source.http.url if obj.kind == "VMDisk" and obj.disk.source.http else ""
        if not url or obj.backend != "qemu" or not is_this_host(url) or mirrored(url, app.config.mirrors) != url:
            continue
        if not app.backend("qemu").observe_disk(obj).exists:
            inner.append(f"{obj.ref} ({mask_url(url)[:120]})")
    if inner:
        what = f"{', '.join(inner)} would be fetched from this host itself"
        why = "a manifest of somebody else's could bring what a service of this host answers into a guest"
        raise UsageError("HK319", what, why, "if you mean it: --allow-inner")


def preflight(app: App, objects: list[Any]) -> None:
    """What this host lacks is told before anything is changed."""
    real = [o for o in objects if o.backend == "qemu"]
    if real:
        from hikube_local.backends.qemu import firmware
        from hikube_local.host.doctor import require
        from hikube_local.render.machine import profile_of

        machines = [o for o in real if o.kind == "VMInstance"]
        lacking = {package for o in machines for package in firmware.missing(profile_of(o.instance))}
        require(app.layout, bool(machines), sorted(lacking))


def _take_bundles(app: App, named: tuple[str, ...], objects: list[Any], story: Any) -> None:
    """A folder that `bundle` made brings its images along."""
    from pathlib import Path

    from hikube_local.images import bundle, sources

    for source in named:
        if (Path(source) / bundle.FOLDER / bundle.INDEX).is_file():
            app.layout.make()
            keys = {k for o in objects if o.kind == "VMDisk" for k in sources.keys(o, app.image_settings, app.cache)}
            bundle.read(Path(source), keys, app.cache, story)


def _bridge(app: App, bridge: str | None) -> str | None:
    """The flag's, else the configuration's; None when neither says anything."""
    return bridge if bridge is not None else app.config.values.get("bridge")


def _check_bridge(app: App, wanted: list[Any], bridge: str | None) -> None:
    """A bridge that is not there is told before anything is changed; one that cannot be had is told as a difference."""
    from hikube_local.host import network

    name = _bridge(app, bridge)
    if not name or not any(o.kind == "VMInstance" and o.backend == "qemu" and o.instance.whole_ip for o in wanted):
        return
    if app.layout.root:
        network.bridge(name)
    else:
        print(
            f"differs from Hikube [HK517]: only root may put a machine on {name}: "
            "WholeIP machines answer at a loopback address of their own",
            file=sys.stderr,
        )


def _record_bridge(app: App, stored: list[Any], bridge: str | None) -> None:
    from hikube_local.store.db import scope

    name = _bridge(app, bridge)
    for obj in stored:
        if name is not None and obj.kind == "VMInstance" and app.store.allocation(scope(obj.key)).get("bridge") != name:
            app.store.note(scope(obj.key), bridge=name or None)


def _prunable(app: App, wanted: list[Any]) -> list[Any]:
    namespaces = sorted({o.namespace for o in wanted})
    keep = {o.key for o in wanted}
    return [o for n in namespaces for o in app.store.objects("VMInstance", n) if o.key not in keep and not o.deletion]


def _clear_stops(app: App, stored: list[Any]) -> None:
    """An `up` of a manifest that says the machine runs ends a stop that was asked for."""
    from hikube_local.api.objects import RunStrategy
    from hikube_local.store.db import scope

    for obj in stored:
        if (
            obj.kind == "VMInstance"
            and obj.instance.strategy is RunStrategy.ALWAYS
            and app.store.allocation(scope(obj.key)).get("power")
        ):
            app.store.note(scope(obj.key), power=None)


def _keep_first_boots(app: App, stored: list[Any], results: dict, story: Any) -> None:
    """The checkpoint that `reset` goes back to, once, when a machine's cloud-init is done for the first time."""
    from hikube_local.events import Event, EventType
    from hikube_local.store.db import scope

    for obj in stored:
        verdict = results[obj.key].verdict
        if obj.kind != "VMInstance" or obj.backend != "qemu" or not (verdict and verdict.cloud_init):
            continue
        from hikube_local.backends.qemu import checkpoints, points

        world: Any = app.backend("qemu")
        identity = world.uuid(obj)
        if app.store.allocation(scope(obj.key)).get("configured") == identity:
            continue
        try:
            with checkpoints.held(world, obj, story) as obj:
                if any(c.name == points.FIRST_BOOT for c in points.all(world, obj)):
                    # Of another identity (a new cloudInitSeed), or its note was lost to a kill.
                    checkpoints.delete(world, obj, points.FIRST_BOOT, story)
                checkpoints.create(world, obj, points.FIRST_BOOT, story)
            app.store.note(scope(obj.key), configured=identity)
        except Exception as error:
            e = unexpected(error)
            what = f"no checkpoint for `reset`: {e.what}"
            story(Event(EventType.WARNING, what, obj.ref, obj.namespace, code=e.code, data={"why": e.why}))


def _finish(app: App, stored: list[Any], results: dict, as_json: bool) -> int:
    from hikube_local.engine.status import Statuses

    codes = [r.exit_code for r in results.values()]
    worst = next((c for c in (ExitCode.USAGE, ExitCode.FAILED, ExitCode.TIMEOUT) if c in codes), ExitCode.DONE)
    if as_json:
        _result(worst == 0, [_item(obj, results[obj.key]) for obj in stored])
        return worst
    for obj in stored:
        if results[obj.key].restart_required:
            where = app.in_namespace(obj)
            fix = f"hikube-local restart{where} {obj.name}, or up --restart"
            print(f"{obj.ref}: a change is real after a restart: {fix}", file=sys.stderr)
    statuses = Statuses(app.store, app.backend)
    for obj in stored:
        if obj.kind == "VMInstance" and results[obj.key].exit_code == ExitCode.DONE:
            print("\n".join(_way_in(app, obj, statuses.resource(obj))))
    failed = [obj.ref for obj in stored if results[obj.key].exit_code]
    changed = sum(r.changed for r in results.values())
    words = f"{changed} of {len(results)} objects changed" if changed else "nothing changed"
    if failed:
        words = f"failed: {', '.join(failed)} ({len(stored) - len(failed)} of {len(stored)} objects are as asked for)"
    print(words, file=sys.stderr)
    return worst


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
