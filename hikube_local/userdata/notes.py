"""A finding about user-data, at a place of the user-data itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hikube_local.manifests.diagnostics import Severity


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
