"""Manifests that a command was given: read, judged, and what was found told; nothing is changed."""

from __future__ import annotations

import hashlib
import sys
import time
from typing import Any

import click

from hikube_local.cli.app import App, annotate
from hikube_local.errors import ExitCode
from hikube_local.language import tr
from hikube_local.text import one_line


class Invalid(click.exceptions.Exit):
    """The manifests have errors, which were told; nothing was changed."""

    def __init__(self, findings: list[dict[str, object]]) -> None:
        super().__init__(ExitCode.USAGE)
        self.findings = findings


def load(
    app: App, files: tuple[str, ...], for_plan: bool, quiet: bool = False, unknown: str = "strict", makes: bool = True
) -> Any:
    """Validate everything, tell the findings, and stop before anything is changed when there is an error.

    `makes`: whether what is read is to be made; else it is only looked for.
    """
    from hikube_local.manifests.validate import validate
    from hikube_local.source.finding import Severity, folded

    known = app.session.known(app.session.offer(makes))
    result = validate(files, app.flag_namespace, app.default_namespace, known, for_plan, unknown)
    for d in folded(result.findings.items):
        if d.severity is Severity.ERROR or (d.severity is Severity.WARNING and not quiet):
            print(d.render(), file=sys.stderr)
    if not quiet:
        _tell_differences(app, result.findings.of(Severity.DIFFERENCE), files)
    annotate(result.findings.items)
    if result.findings.failed:
        count = len(result.findings.of(Severity.ERROR))
        print(tr(f"{count} error{'s' if count > 1 else ''}; nothing was changed"), file=sys.stderr)
        raise Invalid([d.as_json() for d in result.findings.items])
    return result


TOLD, TOLD_MOST = "told", 50  # the store's own row of what was told at length


def _tell_differences(app: App, found: list[Any], files: tuple[str, ...]) -> None:
    """At length the first time that these are met, then as a count."""
    from hikube_local.source.finding import counted

    if app.no_differences or not found:
        return
    if _digest(found) in app.store.allocation(TOLD):
        print(tr(f"{counted(found)} from Hikube: hikube-local validate {' '.join(files)}"), file=sys.stderr)
        return
    for d in found:
        word = "note" if d.word == "note" else "differs from Hikube"
        print(f"{tr(word)} [{d.code}]: {d.ref + ': ' if d.ref else ''}{one_line(tr(d.message))}", file=sys.stderr)


def _digest(found: list[Any]) -> str:
    return hashlib.sha256(repr([(d.code, d.message) for d in found]).encode()).hexdigest()[:16]


def remember(app: App, loaded: Any) -> None:
    """These differences were told at length."""
    from hikube_local.source.finding import Severity

    found = loaded.findings.of(Severity.DIFFERENCE)
    if found and not app.no_differences and (digest := _digest(found)) not in (old := app.store.allocation(TOLD)):
        kept = sorted(old, key=lambda k: old[k])[: max(0, len(old) + 1 - TOLD_MOST)]
        app.store.note(TOLD, **{**dict.fromkeys(kept), digest: time.time()})
