"""What a user-data is by its first line, and the mapping of a #cloud-config."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from hikube_local.catalogue import data
from hikube_local.source import nodes
from hikube_local.source.finding import Finding

SECRET_LIMIT = 1 << 20  # bytes that a Secret of Kubernetes holds
CLOUD_CONFIG = "text/cloud-config"


def kind_of(text: str) -> str:
    """The MIME type that the first line stands for, as cloud-init sees it (handlers, type_from_starts_with), or an
    empty string: blank lines before it and capitals do not matter."""
    head = text.lstrip()[:200].lower()
    headers = data.headers()["headers"]
    found = [h for h in headers if head.startswith(h.lower())]
    return headers[max(found, key=len)] if found else ""


def is_mime(text: str) -> bool:
    """As cloud-init asks (user_data.py, convert_string): the word anywhere in the first 4096 bytes."""
    return "mime-version:" in text[:4096].lower()


@lru_cache(maxsize=16)
def parsed(text: str) -> Any:
    """The mapping of a #cloud-config, read within the manifest reader's bounds; None where it is none.

    Read once: several ask for one machine's, and get the same value, which they leave as it is.
    """
    if kind_of(text) != CLOUD_CONFIG:
        return None
    found: list[Finding] = []
    try:
        for node in nodes.documents(nodes.Text("user-data", text), text, found):
            return node.data
    except nodes.Refused:
        return None
    return None
