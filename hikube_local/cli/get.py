"""`get` (and `ps`)."""

from __future__ import annotations

import re
from typing import Any

import click

from hikube_local.api.selectors import fields, identity, selector
from hikube_local.cli.app import App
from hikube_local.cli.options import common, complete_object, files_option, option, output_option, refresh_option
from hikube_local.cli.references import references, urls
from hikube_local.errors import ExitCode, NotFound, UsageError
from hikube_local.language import tr
from hikube_local.records import dataclass

EVERY = 0.3  # seconds between two looks at machines that run, while they are watched


def chosen(app: App, words: tuple[str, ...], all_namespaces: bool, labels: str) -> tuple[list[Any], bool]:
    """The objects asked for, and whether exactly one was named."""
    from hikube_local.api.objects import DISK, INSTANCE

    wanted = references(words, bare(app, words)) or [(INSTANCE, None), (DISK, None)]
    namespace = None if all_namespaces else app.namespace
    matches = selector(labels)
    objects = []
    for kind, name in wanted:
        if name is None:
            objects += [o for o in app.store.objects(kind, namespace) if matches(o.labels)]
        elif all_namespaces:
            raise UsageError("HK810", "a name cannot be asked for in all namespaces", fix="leave -A or the name out")
        else:
            objects.append(app.find(kind, name))
    return objects, len(wanted) == 1 and wanted[0][1] is not None


def bare(app: App, words: tuple[str, ...]) -> str | None:
    """The kind of a name that stands without one: a machine's, or a disk's where no machine is called so."""
    from hikube_local.api.objects import DISK, INSTANCE, KIND_WORDS

    if not words or "/" in words[0] or words[0] == "all" or all(w in KIND_WORDS for w in words[0].lower().split(",")):
        return None
    for kind, prefix in ((INSTANCE, "vm-instance-"), (DISK, "vm-disk-")):
        if words[0].removeprefix(prefix) in app.store.names(kind, app.namespace):
            return kind
    return None


@dataclass(frozen=True, slots=True)
class Columns:
    """What `get` was asked to show beside the usual columns."""

    headers: bool = True
    show_labels: bool = False
    labels: tuple[str, ...] = ()

    def head(self) -> list[str]:
        return [*(name.rpartition("/")[2].upper() for name in self.labels), *(["LABELS"] if self.show_labels else [])]

    def cells(self, resource: dict[str, Any]) -> list[str]:
        have = resource["metadata"].get("labels", {})
        every = ",".join(f"{k}={v}" for k, v in sorted(have.items())) or "<none>"
        return [*(have.get(name, "") for name in self.labels), *([every] if self.show_labels else [])]


def text(
    resources: list[dict[str, Any]], wide: bool, all_namespaces: bool, kinds: int, more: Columns = Columns()
) -> str:
    from hikube_local.cli import tables

    blocks = []
    for kind, header, wider, row in (
        ("VMInstance", tables.MACHINE_HEADER, tables.MACHINE_WIDE, tables.machine_row),
        ("VMDisk", tables.DISK_HEADER, tables.DISK_WIDE, tables.disk_row),
    ):
        mine = [r for r in resources if r["kind"] == kind]
        if not mine:
            continue
        rows = [[*row(r, wide), *more.cells(r)] for r in mine]
        head = [*header, *(wider if wide else []), *more.head()]
        if kinds > 1:
            rows = [[f"{kind.lower()}/{r[0]}", *r[1:]] for r in rows]
        if all_namespaces:
            head = ["NAMESPACE", *head]
            rows = [[r["metadata"]["namespace"], *cells] for r, cells in zip(mine, rows, strict=True)]
        blocks.append(tables.table(head if more.headers else None, rows))
    return "\n\n".join(blocks)


def _get(
    app: App,
    words: tuple[str, ...],
    all_namespaces: bool,
    labels: str,
    output: str,
    watch: bool,
    watch_only: bool,
    filename: tuple[str, ...],
    field: str,
    sort_by: str,
    no_headers: bool,
    show_labels: bool,
    label_columns: tuple[str, ...],
    ignore_not_found: bool,
    refresh: bool,
) -> int:
    import sys

    from hikube_local.cli import tables

    if words[:1] and words[0].lower() in ("events", "event", "ev"):
        raise UsageError("HK810", "events are not objects here", fix="hikube-local events [-f] [--for vm/NAME]")
    statuses = app.session.statuses
    # Before the first look, so that no change is missed.
    bell = app.session.bell() if watch or watch_only else None
    if filename:
        from hikube_local.cli.load import load

        known = [
            app.store.get(i.object.key)
            for i in load(app, urls(filename), for_plan=False, quiet=True, makes=False).objects
        ]
        objects, single = [o for o in known if o], False
    else:
        try:
            objects, single = chosen(app, words, all_namespaces, labels)
        except NotFound:
            if not ignore_not_found:
                raise
            return ExitCode.DONE
    by_field = fields(field)
    objects = [o for o in objects if by_field(identity(o.namespace, o.name))]
    app.refresh(objects, refresh)
    resources = [statuses.resource(o) for o in objects]
    if sort_by:
        path = sort_by if sort_by.startswith("{") else "{" + ("" if sort_by.startswith(".") else ".") + sort_by + "}"
        pairs = sorted(zip(objects, resources, strict=True), key=lambda pair: _natural(tables.jsonpath(path, pair[1])))
        objects, resources = [o for o, _ in pairs], [r for _, r in pairs]
    more = Columns(not no_headers, show_labels, tuple(n for part in label_columns for n in part.split(",") if n))
    if watch or watch_only:
        return _watch(app, words, all_namespaces, labels, output, objects, resources, watch_only, refresh, bell, more)
    if (not resources and output in ("", "wide")) or (not resources and output.startswith("custom-columns=")):
        where = "" if all_namespaces else f" in {app.namespace} namespace"
        print(tr(f"No resources found{where}."), file=sys.stderr)
        return ExitCode.DONE
    value = resources[0] if single else tables.as_list(resources)
    kinds = len({r["kind"] for r in resources})
    shown = tables.show(
        value, output, lambda: text(resources, output == "wide", all_namespaces, kinds, more), no_headers
    )
    if shown or resources:  # no names are no line
        print(shown, end="" if output.startswith("jsonpath") else "\n")
    return ExitCode.DONE


def _natural(text: str) -> list[Any]:
    """Numbers in it count as numbers."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def _at_rest(resource: dict[str, Any]) -> bool:
    """Whether it changes only when a command changes it."""
    status = resource["status"]
    return status.get("printableStatus") == "Stopped" or status.get("phase") == "Succeeded"


def _watch(app, words, all_namespaces, labels, output, objects, resources, watch_only, refresh, bell, more) -> int:
    """A line for each change, until interrupted. The store tells what commands changed; guests are looked at again."""
    from hikube_local.cli import tables

    def fingerprint(r: dict) -> Any:
        row = (tables.machine_row if r["kind"] == "VMInstance" else tables.disk_row)(r, output == "wide")
        age = len(tables.MACHINE_HEADER if r["kind"] == "VMInstance" else tables.DISK_HEADER) - 1
        return row[:age] + row[age + 1 :] + [r["metadata"]["resourceVersion"] if output not in ("", "wide") else ""]

    def tell(items: list[dict]) -> None:
        if output in ("", "wide"):
            lines = text(items, output == "wide", all_namespaces, 1, more).split("\n") if items else []
            for line in lines:
                if line and line not in headers:
                    print(line, flush=True)
                    if line.split()[0] in ("NAME", "NAMESPACE"):
                        headers.add(line)
        else:
            for item in items:
                print(tables.show(item, output, lambda: ""), flush=True)

    headers: set[str] = set()
    seen: dict[Any, Any] = {}
    statuses = app.session.statuses
    first = True
    while True:
        fresh = []
        for r in resources:
            key = (r["kind"], r["metadata"]["namespace"], r["metadata"]["name"])
            mark = fingerprint(r)
            if seen.get(key) != mark:
                seen[key] = mark
                fresh.append(r)
        if fresh and not (first and watch_only):
            tell(fresh)
        first = False
        rang = bell.wait(EVERY)
        if rang:
            try:
                objects, _ = chosen(app, words, all_namespaces, labels)
            except NotFound:
                return ExitCode.DONE
        app.refresh(objects, refresh)
        if rang:
            resources = [statuses.resource(o) for o in objects]
        else:
            resources = [r if _at_rest(r) else statuses.resource(o) for o, r in zip(objects, resources, strict=True)]


def _options(command: Any) -> Any:
    options = [
        click.argument("words", shell_complete=complete_object, metavar="[KIND [NAME]...]", nargs=-1),
        option("-A", "--all-namespaces", is_flag=True, help="In every namespace."),
        option("-l", "--selector", "labels", default="", help="Label selector: a=b,c!=d."),
        option("-w", "--watch", is_flag=True, help="Print a line at each change."),
        option("--watch-only", is_flag=True, help="Watch without the list first."),
        files_option("The objects of a file, a folder, a URL or -."),
        option("--field-selector", "field", default="", help="metadata.name=NAME."),
        option("--sort-by", default="", help="A jsonpath: .metadata.creationTimestamp."),
        option("--no-headers", is_flag=True, help="Without the line of column names."),
        option("--show-labels", is_flag=True, help="A column with the labels."),
        option("-L", "--label-columns", multiple=True, help="A column for a label."),
        refresh_option(),
        option("--ignore-not-found", is_flag=True, help="Do not fail if an object does not exist."),
        output_option("wide", "json", "yaml", "name", "jsonpath=…", "custom-columns=…"),
        common,
    ]
    for decorate in reversed(options):
        command = decorate(command)
    return command


@click.command("get")
@_options
def get(app: App, **options: Any) -> int:
    """Show objects: get vm, get vmdisk NAME -o yaml, get -A."""
    return _get(app, **options)


@click.command("ps")
@_options
def ps(app: App, **options: Any) -> int:
    """The same as `get`."""
    return _get(app, **options)
