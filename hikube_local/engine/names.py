"""Names for the shell's completion: read from the store alone, nothing is parsed and nothing heavy is loaded."""

from __future__ import annotations

from hikube_local.paths import Layout
from hikube_local.store.db import Store


def of_kind(layout: Layout, kind: str, namespace: str) -> list[str]:
    return Store(layout).names(kind, namespace)
