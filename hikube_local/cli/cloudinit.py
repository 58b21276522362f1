"""`cloudinit check|render|diff`: user-data without a machine and without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from hikube_local.cli.app import App, annotate
from hikube_local.cli.options import common, files_option, option, output_option
from hikube_local.cli.references import manifests
from hikube_local.errors import ExitCode, HikubeError, NotFound
from hikube_local.language import tr


@click.group("cloudinit")
def cloudinit() -> None:
    """User-data: check, render, diff."""


@cloudinit.command("check")
@click.argument("files", nargs=-1)
@files_option("A manifest or user-data: a file, a URL or -.")
@option("--strict", is_flag=True, help="Warnings count as errors.")
@output_option("json")
@common
def check(app: App, files: tuple[str, ...], filename: tuple[str, ...], strict: bool, output: str) -> int:
    """Look at manifests' cloudInit and at bare user-data files; no machine, no network."""
    from hikube_local.cli.tables import as_json
    from hikube_local.source.finding import Severity, counted
    from hikube_local.userdata import check as checks

    found, count = [], 0
    for part in _findings(app, manifests(files, filename)):
        count += 1
        found += part
    annotate(found)
    if output == "json":
        print(as_json([d.as_json() for d in found]))
    else:
        for d in found:
            print(d.render())
        print(tr(f"{count} user-data checked: {counted(found) or 'no problems found'}"))
    print(tr(f"checked with {checks.used()}"), file=sys.stderr)
    bad = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    return ExitCode.USAGE if any(d.severity in bad for d in found) else ExitCode.DONE


def _findings(app: App, sources: tuple[str, ...]) -> Any:
    """Lists of findings, one list for each user-data in the files."""
    from hikube_local.manifests.load import contents, parse
    from hikube_local.source.finding import Findings
    from hikube_local.userdata import places

    unread, rest = Findings(), []
    for source in sources:
        for name, content in contents([source], unread):
            # In a folder are manifests, and what else may lie there.
            if not Path(source).is_dir() and places.is_bare(content):
                yield places.of_file(name, content)
            else:
                rest.append((name, content))
    if unread.items:
        yield unread.items
    if not rest:
        return
    result = parse(rest, app.flag_namespace, app.default_namespace)
    machines = [i for i in result.objects if i.object.kind == "VMInstance"]
    if told := [d for d in result.findings.items if not machines or str(d.severity) == "error"]:
        yield told
    for item in machines:
        if item.object.instance.cloudInit:
            yield places.of_manifest(item)


def _machine(app: App, file: str, name: str) -> Any:
    """The machine of a manifest; NAME may be left out where there is one."""
    from hikube_local.manifests.load import load

    result = load([file], app.flag_namespace, app.default_namespace)
    for d in result.findings.items:
        if str(d.severity) == "error":
            raise HikubeError("HK101", f"{file} is not a valid manifest: {d.message}", exit_code=ExitCode.USAGE)
    found = [i.object for i in result.objects if i.object.kind == "VMInstance" and name in ("", i.object.name)]
    if len(found) != 1:
        what = f"{file} has {len(found)} machines" + (f" named {name}" if name else ": name one of them")
        raise NotFound("HK804", what, exit_code=ExitCode.USAGE)
    return found[0]


def _seed(app: App, file: str, name: str) -> dict[str, bytes]:
    """The seed's files by name; none where the machine has no seed."""
    from hikube_local.render import seed

    try:
        content = seed.portable(_machine(app, file, name))
    except seed.UserDataRefused as e:
        raise HikubeError("HK315", str(e), exit_code=ExitCode.USAGE) from None
    return content.files if content else {}


@cloudinit.command("render")
@click.argument("file")
@click.argument("name", default="")
@option("--to", "folder", type=click.Path(path_type=Path), default=None, help="Folder to write into (default: stdout).")
@common
def render(app: App, file: str, name: str, folder: Path | None) -> int:
    """The seed's files as the guest gets them: cloudinit render MANIFEST [NAME]."""
    from hikube_local import files as fs

    content = _seed(app, file, name)
    if not content:
        print(tr("no seed: neither sshKeys nor cloudInit"), file=sys.stderr)
    for key, data in content.items():
        if folder is None:
            print(f"# {key}", flush=True)
            sys.stdout.buffer.write(data if data.endswith(b"\n") else data + b"\n")
            sys.stdout.flush()
        else:
            fs.write(fs.make_folder(folder, 0o755) / key, data, 0o600)
            print(folder / key)
    return ExitCode.DONE


@cloudinit.command("diff")
@click.argument("old")
@click.argument("new")
@click.argument("name", default="")
@common
def diff(app: App, old: str, new: str, name: str) -> int:
    """What the guest would see differently, and whether cloud-init would act on it: cloudinit diff A B [NAME]."""
    import difflib
    import json

    a, b = _seed(app, old, name), _seed(app, new, name)
    for key in ("meta-data", "user-data"):
        before, after = (s.get(key, b"").decode("utf-8", "replace").splitlines(True) for s in (a, b))
        for line in difflib.unified_diff(before, after, f"{old}: {key}", f"{new}: {key}"):
            print(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n", end="")
    identity = [json.loads(s["meta-data"]).get("instance-id") if s else None for s in (a, b)]
    if a == b:
        print(tr("the guest sees the same"), file=sys.stderr)
        return ExitCode.DONE
    if not b:
        words = "the seed is removed: the next boot finds no datasource; what cloud-init did before is kept"
    elif identity[0] != identity[1]:
        from hikube_local.userdata import requested

        again = ", ".join(requested.again(b.get("user-data", b"").decode("utf-8", "replace")))
        words = "the instance-id changes: cloud-init runs its once-per-instance modules again at the next boot"
        words += f": {again}" if again else ""
    else:
        words = _same_instance(*(s.get("user-data", b"").decode("utf-8", "replace") for s in (a, b)))
    print(tr(words))
    return ExitCode.DONE


def _same_instance(before: str, after: str) -> str:
    """What a next boot of the same instance does with other user-data."""
    from hikube_local.userdata import requested

    always, once = requested.changed(before, after)
    words = "the instance-id is the same: at the next boot cloud-init "
    if not always and not once:
        return words + "finds no change that it acts on"
    words += f"acts on {', '.join(always)}" if always else "acts on none of what changed"
    if once:
        words += f"; it does not repeat {', '.join(once)} for this instance: set a new cloudInitSeed to run it again"
    return words
