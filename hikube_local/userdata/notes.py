"""A finding about user-data, at a place of the user-data itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hikube_local.manifests.diagnostics import Severity
from hikube_local.manifests.userdata import WORDS


@dataclass(frozen=True, slots=True)
class Note:
    """`at` is a node of the tree, or a line from 1."""

    code: str
    severity: Severity
    message: str
    at: Any = 1
    path: str = ""
    help: str = ""

    @property
    def line(self) -> int:
        return self.at if isinstance(self.at, int) else self.at.line

    @property
    def column(self) -> int:
        return 1 if isinstance(self.at, int) else self.at.column


def known(code: str, at: Any, path: str = "", about: str = "") -> Note:
    """A warning that `validate` gives too, in the same words."""
    what, help = WORDS[code]
    return Note(code, Severity.WARNING, what.format(about), at, path, help)
