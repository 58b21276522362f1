"""A request's parameters as Kubernetes reads them; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hikube_local.kube.status import Refused

LARGEST = 1 << 62  # of a revision, which is a signed number of 64 bits


def flag(query: Mapping[str, str], name: str) -> bool:
    """Absent, empty, `0` and `false` are no; all else is yes (apimachinery: Convert_Slice_string_To_bool)."""
    return query.get(name, "").lower() not in ("", "0", "false")


def count(text: Any, name: str) -> int:
    """What a text says that counts something; 400 for what is none."""
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20 and int(text) < LARGEST):
        raise Refused(400, f"{name}: {str(text)[:40]!r} is not a number")
    return int(text)


def number(query: Mapping[str, str], name: str) -> int | None:
    """The count that a parameter says, or None where it is absent."""
    return count(query[name], name) if query.get(name) else None


def dry(query: Mapping[str, str], body: Any = None) -> bool:
    """Whether the request is to change nothing; 400 for a dry run of a kind that is not known."""
    asked = [query["dryRun"]] if query.get("dryRun") else []
    inside = body.get("dryRun") if isinstance(body, dict) else None
    asked += [str(v) for v in inside] if isinstance(inside, list) else []
    if any(v != "All" for v in asked):
        raise Refused(400, f"dryRun: {', '.join(asked)[:60]!r} is not supported, only All")
    return bool(asked)
