"""`schema` and `explain`."""

from __future__ import annotations

import textwrap

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common
from hikube_local.errors import ExitCode, UsageError
from hikube_local.language import language


@click.command("schema")
@common
def schema(app: App) -> int:
    """Print a JSON schema of both kinds, for editors: schema > hikube.schema.json."""
    from hikube_local.cli.tables import as_json
    from hikube_local.manifests.schema import schema as make

    print(as_json(make()))
    return ExitCode.DONE


@click.command("explain")
@click.argument("field", metavar="KIND[.FIELD]...")
@common
def explain(app: App, field: str) -> int:
    """What a field means on Hikube, and what differs here: explain vminstance.spec.externalMethod."""
    from hikube_local.api.objects import API_VERSION, KIND_WORDS
    from hikube_local.manifests.schema import explain as look
    from hikube_local.text import nearest

    head, *rest = field.split(".")
    kind = KIND_WORDS.get(head.lower())
    if kind is None:
        raise UsageError("HK810", f"unknown kind {head!r}", fix="write explain vminstance.spec or explain vmdisk.spec")
    path = ".".join([kind.lower(), *rest])
    spoken = language()
    found = look(path, spoken)
    if found is None:
        parent = look(".".join([kind.lower(), *rest[:-1]]))
        near = nearest(rest[-1], [name for name, _ in parent.children]) if parent else None
        fix = f"did you mean {near}?" if near else f"explain {kind.lower()}.spec lists the fields"
        raise UsageError("HK810", f"there is no field {field!r}", fix=fix)
    there, here = ("Sur Hikube : ", "Ici : ") if spoken == "fr" else ("On Hikube: ", "Here: ")
    # kubectl's own headings, which scripts look for, in every language.
    print(f"KIND:       {kind}\nVERSION:    {API_VERSION}\n")
    if rest:
        print(f"FIELD: {rest[-1]} <{found.type}>\n")
    print("DESCRIPTION:")
    for title, text in (("", found.description), (there, found.hikube), (here, found.here)):
        if text:
            print(textwrap.fill(title + text, 100, initial_indent="    ", subsequent_indent="    "))
    if found.children:
        print("\nFIELDS:")
        for name, type_ in found.children:
            print(f"  {name}\t<{type_}>")
    return ExitCode.DONE
