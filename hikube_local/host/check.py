"""One answer of `doctor`; light, since backends speak it too."""

from __future__ import annotations

from hikube_local.records import dataclass


@dataclass(frozen=True, slots=True)
class HostCheck:
    """One answer. `needed`: without it no machine runs."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = True
