"""The JSON schema of both kinds, for editors (yaml-language-server), made from their shapes; and the fields for `explain`."""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin

from hikube_local.api.objects import API_VERSION, BUSES, DISK, INSTANCE, SPECS, RunStrategy
from hikube_local.api.shapes import Shape, hints
from hikube_local.catalogue import data
from hikube_local.records import dataclass

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """One schema for a document of either kind; null means absent, for every field."""
    kinds = {kind: schema_of(kind) for kind in (INSTANCE, DISK)}
    return {
        "$schema": DRAFT,
        "title": "Hikube's virtual machines: VMInstance and VMDisk",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "oneOf": list(kinds.values()),
    }


def schema_of(kind: str) -> dict[str, Any]:
    names = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 41 if kind == INSTANCE else 45}
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    metadata = {"name": names, "namespace": {"type": "string"}, "labels": texts, "annotations": texts}
    return {
        "title": kind,
        "description": (SPECS[kind].__doc__ or "").strip(),
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind},
            "metadata": {"type": "object", "required": ["name"], "properties": metadata},
            "spec": {"anyOf": [_part(SPECS[kind]), {"type": "null"}]},
            "status": {},
        },
    }


def _part(shape: type[Shape]) -> dict[str, Any]:
    """A shape, null allowed for each of its fields, what a reader takes besides said."""
    said = [f for f in fields(shape) if f.name in hints(shape)]
    required = [f.name for f in said if f.default is MISSING]
    properties = {}
    for f in said:
        found = _typed(hints(shape)[f.name], f.metadata.get("reads", ""))
        if f.name in _enums():
            found["enum"] = _enums()[f.name]
        about = f.metadata.get("description") or found.get("description")
        properties[f.name] = {**({"description": about} if about else {}), "anyOf": [found, {"type": "null"}]}
    return {
        "title": shape.__name__,
        "description": (shape.__doc__ or "").strip(),
        **({"required": required} if required else {}),
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _typed(hint: Any, reads: str) -> dict[str, Any]:
    if get_origin(hint) is UnionType:
        return _typed(get_args(hint)[0], reads)
    if get_origin(hint) is tuple:
        items = _typed(get_args(hint)[0], "")
        return {"type": "array", "items": {"anyOf": [_TYPES[str], items]} if reads == "name" else items}
    if issubclass(hint, Shape):
        return _part(hint)
    return {"type": ["string", "integer", "number"]} if reads == "quantity" else dict(_TYPES[hint])


_TYPES = {str: {"type": "string"}, bool: {"type": "boolean"}, int: {"type": "integer"}}


@cache
def _enums() -> dict[str, list[str]]:
    return {
        "instanceType": ["", *sorted(data.instancetypes())],
        "instanceProfile": ["", *sorted(data.profiles())],
        "externalMethod": ["PortList", "WholeIP"],
        "runStrategy": [str(s) for s in RunStrategy],
        "bus": [*BUSES],
    }


@dataclass(frozen=True, slots=True)
class Field:
    """A field as `explain` tells it."""

    path: str
    type: str
    description: str
    hikube: str = ""
    here: str = ""
    children: tuple[tuple[str, str], ...] = ()


def explain(path: str, language: str = "en") -> Field | None:
    """The field at `vminstance.spec.disks.bus`; None when there is no such one."""
    words = path.split(".")
    kind = {"vminstance": INSTANCE, "vmdisk": DISK}.get(words[0])
    if kind is None:
        return None
    part = schema_of(kind)
    description = part["description"]
    here: dict[str, Any] = part
    for word in words[1:]:
        found = _object(here).get("properties", {}).get(word)
        if found is None:
            return None
        description = found.get("description", "")
        here = found
    rows = data.fields(language).get(words[0], {})
    texts = rows.get("spec", {}).get(".".join(words[2:]), {}) if words[2:] else rows
    description = texts.get("about", description)
    inner = _object(here).get("properties", {})
    children = tuple((name, _type(child)) for name, child in inner.items())
    return Field(path, _type(here), description, texts.get("hikube", ""), texts.get("here", ""), children)


def _object(part: dict[str, Any]) -> dict[str, Any]:
    """The object inside: behind `or null`, behind a list's items."""
    for option in part.get("anyOf", [part]):
        if option.get("type") == "array":
            return _object(option["items"])
        if "properties" in option:
            return option
    return part


def _type(part: dict[str, Any]) -> str:
    options = [o for o in part.get("anyOf", [part]) if o.get("type") != "null"]
    if not options:
        return "Object"
    kinds = [o.get("type", "object" if "properties" in o or "const" not in o else "string") for o in options]
    if kinds[0] == "array":
        return f"[]{_type(options[0]['items'])}"
    if isinstance(kinds[0], list):
        return "Quantity"
    if "enum" in options[0]:
        return "enum"
    return (
        " or ".join(dict.fromkeys(str(k) for k in kinds))
        if len(kinds) > 1
        else {"object": "Object"}.get(str(kinds[0]), str(kinds[0]))
    )
