"""`test`: real boots of throw-away machines, what became of their user-data, and checks."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click

from hikube_local.cli.app import App, annotate
from hikube_local.cli.options import common, files_option, option, output_option, seconds
from hikube_local.cli.references import manifests
from hikube_local.errors import ExitCode, HikubeError, UsageError, unexpected, worst
from hikube_local.language import tr


def _number(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if value != value:
        raise click.BadParameter("not a number")
    return value


@click.command("test")
@click.argument("files", nargs=-1)
@files_option()
@option("--checks", "checks_file", type=click.Path(path_type=Path), default=None, help="A YAML list of checks.")
@option("--image", "images", multiple=True, help="Boot it on this image (a name or a URL); may be given several times.")
@option(
    "--timeout", default=None, callback=seconds, help="How long to wait for each machine (5m; longer under emulation)."
)
@option(
    "--timeout-factor",
    type=click.FloatRange(0, 1000, min_open=True),
    default=1.0,
    callback=_number,
    help="Stretches every deadline.",
)
@option("--junit", type=click.Path(path_type=Path), default=None, help="Write JUnit's XML.")
@option("--html", "html_file", type=click.Path(path_type=Path), default=None, help="Write one HTML page.")
@option(
    "--artifacts", type=click.Path(path_type=Path), default=None, help="Write consoles, logs and seeds into a folder."
)
@option("--warm/--no-warm", default=True, help="Resume a saved machine, if nothing relevant changed since.")
@option("--trust-console", is_flag=True, help="If a guest cannot be accessed, judge it by its console alone.")
@option(
    "--keep", "leave", is_flag=True, envvar="HIKUBE_LOCAL_TEST_KEEP", help="Keep the machines, and print how to log in."
)
@option("--watch", is_flag=True, help="Again whenever a file is saved.")
@option("--offline", is_flag=True, help="Do not use the network for images.")
@option("--yes", is_flag=True, help="In a tenant: make what costs much without a question.")
@output_option("json")
@common
def test(app: App, files: tuple[str, ...], filename: tuple[str, ...], watch: bool, **options: Any) -> int:
    """Boot the machines of a manifest as throw-aways, read what cloud-init did, and check them.

    Exit codes: 0 passed, 1 failed, 2 invalid, 3 timed out, 5 something was left in a tenant.
    """
    named = manifests(files, filename)
    if watch and "-" in named:
        raise UsageError("HK112", "--watch needs files, not standard input")
    if app.context.kind == "kube":
        from hikube_local.cli.sweep import require_possible

        require_possible(watch, **options)
    if not watch:
        return _once(app, named, **options)
    watched = [*named, *([str(options["checks_file"])] if options["checks_file"] else [])]
    while True:
        seen = _saved(watched)
        try:
            _once(app, named, **options)
        except click.exceptions.Exit:
            pass  # told already
        except Exception as e:
            print(unexpected(e).render(), file=sys.stderr)
        sys.stdout.flush()
        print(tr("waiting for a file to be saved (Ctrl-C to stop)"), file=sys.stderr)
        while _saved(watched) == seen:
            time.sleep(0.3)


def _saved(named: Sequence[str]) -> list[tuple[str, int]]:
    paths = [p for n in named for p in (sorted(Path(n).glob("*")) if Path(n).is_dir() else [Path(n)])]
    out = []
    for path in paths:
        with contextlib.suppress(OSError):  # an editor may be replacing it
            out.append((str(path), path.stat().st_mtime_ns))
    return out


def _once(
    app: App,
    named: tuple[str, ...],
    checks_file: Path | None,
    images: tuple[str, ...],
    timeout: float | None,
    timeout_factor: float,
    junit: Path | None,
    html_file: Path | None,
    artifacts: Path | None,
    warm: bool,
    trust_console: bool,
    leave: bool,
    offline: bool,
    yes: bool,
    output: str,
) -> int:
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.cli.tables import as_json
    from hikube_local.lab import report, results
    from hikube_local.lab.guest import needs
    from hikube_local.lab.looked import Report
    from hikube_local.text import in_actions

    loaded, wanted = loaded_with_checks(app, named, checks_file)
    objects = [i.object for i in loaded.objects]
    machines = [o for o in objects if o.kind == "VMInstance"]
    if not machines:
        raise UsageError("HK112", "no VMInstance in the input: there is nothing to boot")
    for path in filter(None, (junit, html_file, artifacts)):
        folder = path if path.is_dir() else path.absolute().parent
        if not os.access(folder, os.W_OK) or (path.is_dir() and path != artifacts):
            raise UsageError("HK810", f"{path} cannot be written", fix="give a file in an existing folder")
    # What is needed at the end is asked for before anything boots.
    if wanted:
        needs("testinfra", "checks need")
    if junit:
        needs("junitparser", "--junit needs")
    items = {i.object.key: i for i in loaded.objects}
    limit = timeout * timeout_factor if timeout else None
    how = How(limit, timeout_factor, warm, trust_console, leave, offline, thorough=bool(artifacts or html_file))
    if app.context.kind == "kube":
        from hikube_local.cli.sweep import in_a_tenant

        tried = in_a_tenant(app, loaded.objects, wanted, [_on(objects, image) for image in images or ("",)], how, yes)
    else:
        tried = _here(app, objects, how)
    reports: list[Report] = []
    failures: list[HikubeError] = []

    def place(r: Report, line: int) -> tuple[str, int]:
        from hikube_local.userdata.places import line_in_manifest

        where = line_in_manifest(items[r.machine.key], line)
        return where.file, where.line

    with results.kept(app.layout, [f"{o.namespace}/{o.name}" for o in machines], named) as run:
        with ProgressPrinter(app) as printer:
            for image in images or ("",):
                try:
                    for found in tried(_on(objects, image), wanted, image, run.noting(printer)):
                        reports += found
                except Exception as e:
                    # One image's end, or its clearing up, takes no other one's report away.
                    failures.append(unexpected(e))
                    if len(images) > 1 and not any(r.image == image for r in reports):
                        reports += [Report(o, image, error=failures[-1]) for o in machines]
        run.end([report.as_json(r, place) for r in reports], report.page(reports, place))
    if failures and all(r.error in failures for r in reports):
        raise max(failures, key=lambda e: e.exit_code is ExitCode.LEFT)

    if output == "json":
        print(as_json([report.as_json(r, place) for r in reports]))
    else:
        for r in reports:
            print("\n".join(map(tr, report.text(r, place, app.timings))))
    if junit:
        report.junit(reports, place, junit)
    if html_file:
        html_file.write_text(report.page(reports, place), encoding="utf-8", errors="replace")
    if artifacts:
        _artifacts(reports, artifacts)
    if in_actions():
        print("\n".join(report.in_ci(reports, place)), file=sys.stderr if output else sys.stdout)
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with open(summary, "a", encoding="utf-8") as f:
                f.write(report.summary(reports))
    if len(images) > 1 and output != "json":
        print(report.summary(reports), end="")
    for failure in failures:
        print(failure.render(), file=sys.stderr)
    for path in filter(None, (junit, html_file, artifacts)):
        print(f"written: {path}", file=sys.stderr)
    if output != "json":
        print(tr(report.closing(reports)))
    return worst([*(e.exit_code for e in failures), *(r.exit_code for r in reports)])


class How(NamedTuple):
    """What was asked of a run. `timeout`: seconds for each machine, stretched already."""

    timeout: float | None
    factor: float
    warm: bool
    trust_console: bool
    leave: bool
    offline: bool
    thorough: bool


# Objects, checks, the image's name and the printer; the reports come before what is left over is cleared away.
Tried = Callable[[list[Any], list[Any], str, Any], Iterator[list[Any]]]


def _here(app: App, objects: list[Any], how: How) -> Tried:
    """On this machine, each image in a root of its own."""
    from hikube_local.access import keys
    from hikube_local.api.objects import DEFAULT_BACKEND
    from hikube_local.engine.apply import preflight
    from hikube_local.lab import root
    from hikube_local.lab.trial import Trial
    from hikube_local.plan.steps import RunOptions

    preflight(app.session, [replace(o, backend=DEFAULT_BACKEND) for o in objects])
    key = keys.own_key(app.layout)

    def tried(objects: list[Any], wanted: list[Any], image: str, emit: Any) -> Iterator[list[Any]]:
        with root.made(app.layout, how.leave) as own, app.cache.in_use():
            if how.leave:
                home = f"HIKUBE_LOCAL_HOME={own.state.parent}"
                for o in (o for o in objects if o.kind == "VMInstance"):
                    print(tr(f"kept: {home} hikube-local ssh {o.name} -n {o.namespace}"), file=sys.stderr)
                print(tr(f"  remove: {home} hikube-local purge -A --disks"), file=sys.stderr)
            trial = Trial(
                own,
                app.image_settings,
                emit,
                RunOptions(offline=how.offline, grace=10.0, warm=app.layout.warm if how.warm else None),
                how.timeout,
                key,
                thorough=how.thorough,
                trust_console=how.trust_console,
                stretch=how.factor,
            )
            yield trial.run(objects, wanted, image)

    return tried


def loaded_with_checks(app: App, named: tuple[str, ...], checks_file: Path | None) -> tuple[Any, list[Any]]:
    """The objects and the checks, validated without the store: a throw-away machine stands beside no other.

    What `cloudinit check` finds is told as well, and never stops it; of a trap that both know, it knows the line.
    """
    from hikube_local.cli.load import Invalid
    from hikube_local.lab import checklist
    from hikube_local.manifests.validate import Known, validate
    from hikube_local.userdata.places import of_manifest

    text = ""
    if checks_file is not None:
        try:
            text = checks_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            why = getattr(e, "strerror", None) or "it is not UTF-8 text"
            raise UsageError("HK331", f"{checks_file} cannot be read: {why}") from None
    known = Known({}, app.session.image_names, app.session.offer(judges=False))
    result = validate(named, app.flag_namespace, app.default_namespace, known, for_plan=True)
    machines = [i for i in result.objects if i.object.kind == "VMInstance"]
    wanted, wrong = checklist.gather(machines, str(checks_file or ""), text)
    exact = [d for item in machines if item.object.instance.cloudInit for d in of_manifest(item)]
    told = {(d.ref, d.code) for d in exact}
    tell([*(d for d in result.findings.items if (d.ref, d.code) not in told), *exact, *wrong])
    if result.findings.failed or wrong:
        raise Invalid([d.as_json() for d in (*result.findings.items, *wrong)])
    return result, wanted


def tell(found: Sequence[Any]) -> None:
    """What is wrong or bites; how the platform differs is not this command's matter."""
    from hikube_local.source.finding import Severity

    for d in found:
        if d.severity is not Severity.DIFFERENCE:
            print(d.render(), file=sys.stderr)
    annotate(found)


def _on(objects: list[Any], image: str) -> list[Any]:
    """The objects with the machines' first disks on another image."""
    if not image:
        return objects
    from hikube_local.api.objects import Http, Named, Source

    first = {(o.namespace, o.instance.disks[0].name) for o in objects if o.kind == "VMInstance" and o.instance.disks}
    url = image.startswith(("http://", "https://"))
    source = Source(http=Http(url=image)) if url else Source(image=Named(name=image))
    return [
        replace(o, spec=o.disk.but(source=source)) if o.kind == "VMDisk" and (o.namespace, o.name) in first else o
        for o in objects
    ]


def _artifacts(reports: Sequence[Any], folder: Path) -> None:
    from hikube_local import files
    from hikube_local.render import seed

    for r in reports:
        own = files.make_folder(
            folder / r.machine.namespace / "-".join(filter(None, [r.machine.name, _plain(r.image)]))
        )
        given = seed.portable(r.machine)
        for name, content in (r.files | (given.files if given else {})).items():
            files.write(own / name, content)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "-" for c in name)[-60:].strip(".-")
