"""Findings about user-data at the lines of the file that people edit: a bare file, or the manifest around it."""

from __future__ import annotations

import re

from hikube_local.manifests.load import Loaded
from hikube_local.render.seed import UserDataRefused, chart_text
from hikube_local.source.finding import Finding, Place, Severity
from hikube_local.source.nodes import Text
from hikube_local.userdata import check, parts

_BLOCK = re.compile(r":\s*(?:[&!]\S+\s+)*([|>])[0-9+-]*\s*(?:#.*)?$")
_MANIFEST = re.compile(r"(?m)^(?:\{.*)?[\"']?(?:apiVersion|kind)[\"']?\s*:")


def is_bare(raw: bytes) -> bool:
    """Whether a file is user-data itself and not a manifest."""
    if raw.startswith(parts.GZIP):
        return True
    text = raw.decode("utf-8", "replace").lstrip("\ufeff")
    if parts.kind_of(text) or not _MANIFEST.search(text):
        return True
    # A manifest may carry a MIME message: that of a bare one begins in the first line.
    head = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
    return parts.is_mime(head) and not _MANIFEST.search(head)


def of_file(name: str, raw: bytes) -> list[Finding]:
    text = Text(name, raw.decode("utf-8", "replace"))
    return [_placed(f, text.place(f.line, f.column), "") for f in check.check(raw)]


def of_manifest(item: Loaded) -> list[Finding]:
    """The findings about a VMInstance's cloudInit, as the chart hands it on."""
    spec = item.object.instance
    ref = item.object.kind_and_name
    at = item.place("spec", "cloudInit")
    try:
        carried = chart_text(spec.cloudInit)
    except UserDataRefused as e:
        return [Finding("HK315", Severity.ERROR, str(e), at, ref=ref, path="spec.cloudInit")]
    found = check.check(carried.encode(), any(spec.sshKeys), bare=False)
    return [_placed(f, within(item, at, f.line, f.column), ref) for f in found]


def line_in_manifest(item: Loaded, line: int) -> Place:
    """Where a line of the user-data stands in the manifest."""
    return within(item, item.place("spec", "cloudInit"), line)


def within(item: Loaded, at: Place, line: int, column: int = 1) -> Place:
    """A place in a text that a manifest has at `at`: in a block scalar line n is the n-th below its indicator; elsewhere
    the value's own place.
    """
    block = _BLOCK.search(at.text)
    if not block or block[1] == ">":
        return at  # folded and quoted text has other lines than the file
    lines = (item.text.line(at.line + 1 + i) for i in range(1000))
    first = next((line for line in lines if line.strip()), "")
    indent = len(first) - len(first.lstrip(" "))
    place = item.text.place(at.line + line, indent + column)
    return place if place.text or not at.text else at


def _placed(found: Finding, place: Place, ref: str) -> Finding:
    path = f"spec.cloudInit: {found.path}" if ref and found.path else ("spec.cloudInit" if ref else found.path)
    return found.placed(place, ref, path)
