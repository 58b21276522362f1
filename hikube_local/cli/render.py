"""`render FILE --to FOLDER`: the domain XML and the seed's files, without store, libvirt or network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import files_option, option, without_host
from hikube_local.cli.references import manifests
from hikube_local.errors import ExitCode, UsageError


@click.command("render")
@click.argument("files", nargs=-1)
@files_option()
@option("--to", default="", help="Folder to write into; - prints one stream of documents.")
@option("--as", "form", type=click.Choice(["libvirt", "kubevirt"]), default="libvirt", help="What to write.")
@option("--host", is_flag=True, help="As this host would really run it.")
@without_host
def render(app: App, files: tuple[str, ...], filename: tuple[str, ...], to: str, form: str, host: bool) -> int:
    """Write FOLDER/NAMESPACE/NAME/{domain.xml,user-data,meta-data}, the same on every host.

    With --as kubevirt: FOLDER/NAMESPACE/KIND-NAME.yaml, the objects that Hikube's charts make of it; without --to they are
    printed, so that they can be piped.
    """
    import sys

    from hikube_local import files as fs
    from hikube_local.api.objects import DISK, INSTANCE
    from hikube_local.manifests.validate import Known, validate
    from hikube_local.render import domain, machine, seed
    from hikube_local.source.finding import Severity

    if not to and form != "kubevirt":
        raise UsageError("HK810", "no output given", fix="add --to FOLDER, or --to - to print it")
    result = validate(manifests(files, filename), app.flag_namespace, app.default_namespace, Known.nothing())
    for d in result.findings.of(Severity.ERROR):
        print(d.render(), file=sys.stderr)
    if result.findings.failed:
        return ExitCode.USAGE
    optical = {
        (o.object.namespace, o.object.name): o.object.disk.optical for o in result.objects if o.object.kind == DISK
    }
    if form == "kubevirt":
        return _kubevirt([i.object for i in result.objects], optical, "" if to == "-" else to)
    for item in result.objects:
        obj = item.object
        if obj.kind != INSTANCE:
            continue
        if host:
            from hikube_local.engine.session import capabilities

            xml = app.session.require(obj, capabilities.Libvirt).domain_xml(obj)
        else:
            xml = domain.domain(machine.portable(obj, {n: v for (ns, n), v in optical.items() if ns == obj.namespace}))
        content = seed.portable(obj)
        if to == "-":
            _print(obj, {"domain.xml": xml.encode(), **(content.files if content else {})})
            continue
        folder = fs.make_folder(Path(to) / obj.namespace / obj.name, 0o755)
        fs.write(folder / "domain.xml", xml, 0o644)
        for name in ("user-data", "meta-data"):
            if content is None:
                (folder / name).unlink(missing_ok=True)
            else:
                fs.write(folder / name, content.files[name], 0o600)
        print(folder)
    return ExitCode.DONE


def _print(obj: Any, parts: dict[str, bytes]) -> None:
    for name, content in parts.items():
        print(f"# {obj.namespace}/{obj.name}/{name}")
        print(content.decode("utf-8", "replace").rstrip("\n"))


def _kubevirt(objects: list[Any], optical: dict[tuple[str, str], bool], to: str) -> int:
    from hikube_local import files as fs
    from hikube_local.cli.tables import as_yaml
    from hikube_local.render import kubevirt

    for obj in objects:
        resources = kubevirt.objects(obj, {n: v for (ns, n), v in optical.items() if ns == obj.namespace})
        if not to:
            print("".join(f"---\n{as_yaml(resource)}\n" for resource in resources), end="")
            continue
        folder = fs.make_folder(Path(to) / obj.namespace, 0o755)
        for resource in resources:
            path = folder / kubevirt.file_name(resource)
            fs.write(path, as_yaml(resource) + "\n", 0o600 if resource["kind"] == "Secret" else 0o644)
            print(path)
    return ExitCode.DONE
