"""Warnings about user-data that `validate` gives too, in the same words."""

from __future__ import annotations

from hikube_local.manifests.userdata import WORDS
from hikube_local.source.finding import Finding, Severity, Spot


def known(code: str, at: Spot | int, path: str = "", about: str = "") -> Finding:
    what, help = WORDS[code]
    return Finding(code, Severity.WARNING, what.format(about), at, path=path, help=help)
