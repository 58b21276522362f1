"""Objects as text: what the store keeps of each, and what lies in its own folder, so that a lost store can be rebuilt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from hikube_local.api.objects import Key, Object, object_of
from hikube_local.api.shapes import plain_spec
from hikube_local.errors import HikubeError
from hikube_local.files import read_json, write_json

OBJECT_FILE = "object.json"


def to_json(obj: Object) -> dict[str, Any]:
    """The object as the store and its own folder keep it."""
    return vars(obj) | {"spec": plain_spec(obj.spec)}


_PARSED: dict[Key, tuple[str, Object]] = {}
_MOST_PARSED = 10_000  # objects


def parsed(body: str, revision: int, key: Key) -> Object:
    """An object as the store keeps it. It never changes once it is made: the newest text of each is read once."""
    kept = _PARSED.get(key)
    if kept is not None and kept[0] == body and kept[1].resource_version == revision:
        return kept[1]
    made = replace(from_json(json.loads(body)), resource_version=revision)
    if len(_PARSED) >= _MOST_PARSED:
        _PARSED.clear()
    _PARSED[key] = (body, made)
    return made


def from_json(body: dict[str, Any]) -> Object:
    """The object of `to_json`, whatever else a newer version wrote beside its spec; HK608 for a spec that is not known here."""
    try:
        return object_of(body)
    except TypeError as e:
        named = f"{body.get('kind')} {body.get('namespace')}/{body.get('name')}"
        what = f"{named} was written by another version of hikube-local"
        raise HikubeError("HK608", what, str(e), "use that version, or another HIKUBE_LOCAL_HOME") from None


def record(folder: Path, obj: Object) -> None:
    """Lay the object into its own folder, so that a lost store can be rebuilt."""
    write_json(folder / OBJECT_FILE, to_json(obj))


def recorded(folder: Path) -> dict[str, Any] | None:
    row = read_json(folder / OBJECT_FILE)
    return row if isinstance(row, dict) else None
