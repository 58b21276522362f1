"""`convert`."""

from __future__ import annotations

import sys

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common, files_option
from hikube_local.cli.references import manifests
from hikube_local.errors import ExitCode, UsageError
from hikube_local.language import tr


@click.command("convert")
@click.argument("files", nargs=-1)
@files_option()
@common
def convert(app: App, files: tuple[str, ...], filename: tuple[str, ...]) -> int:
    """Print what the platform's own migration made of a retired VirtualMachine: a VMDisk and a VMInstance."""
    from hikube_local.api.objects import API_VERSION
    from hikube_local.cli.tables import as_yaml
    from hikube_local.manifests.convert import machine
    from hikube_local.manifests.kinds import RETIRED
    from hikube_local.manifests.load import texts
    from hikube_local.source import nodes
    from hikube_local.source.finding import Findings

    out: list[str] = []
    unread = Findings()
    read = texts(manifests(files, filename), unread)
    for d in unread.items:
        print(d.render(), file=sys.stderr)
    if unread.failed:
        return ExitCode.USAGE
    count = 0
    for name, content in read:
        found: list = []
        try:
            documents = [
                n.data for n in nodes.documents(nodes.Text(name, content), content, found) if n.value is not None
            ]
        except nodes.Refused as e:
            raise UsageError("HK102", f"{name} cannot be read", why=e.finding.render()) from None
        if any(
            line.lstrip().startswith("#") and not line.lstrip().startswith("#cloud-config")
            for line in content.splitlines()
        ):
            print(tr(f"{name}: its comments are not carried over"), file=sys.stderr)
        for document in documents:
            ours = isinstance(document, dict) and (document.get("apiVersion"), document.get("kind")) == (
                API_VERSION,
                RETIRED,
            )
            count += ours
            made, told = machine(document) if ours else ([document], [])
            for text in told:
                print(f"{name}: {text}", file=sys.stderr)
            out += [as_yaml(resource) for resource in made]
    if not count:
        what = f"nothing to convert: no {RETIRED} of {API_VERSION} in the input"
        raise UsageError(
            "HK112", what, fix="KubeVirt's own VirtualMachine (kubevirt.io) cannot be converted: write a VMInstance"
        )
    print("\n---\n".join(out))
    return ExitCode.DONE
