"""What is read from a user, judged by pydantic's core: the shapes of api/objects.py, with both dialects of the manifests.

The core alone: pydantic's own models take a third of a short command to load, and say no more of these shapes.
"""

from __future__ import annotations

from dataclasses import MISSING, field, fields
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic_core import SchemaValidator

from hikube_local.api.objects import SPECS, VMDiskSpec, VMInstanceSpec, spec_of
from hikube_local.api.shapes import Shape, hints
from hikube_local.records import dataclass

_STRICT: dict[type, dict[str, Any]] = {
    str: {"type": "str", "strict": True},
    bool: {"type": "bool", "strict": True},
    int: {"type": "int", "strict": True},
}
_TEXTS = {"type": "dict", "keys_schema": _STRICT[str], "values_schema": _STRICT[str]}
_METADATA = {
    "type": "typed-dict",
    "extra_behavior": "ignore",
    "fields": {
        name: {"type": "typed-dict-field", "schema": schema, "required": name == "name"}
        for name, schema in {
            "name": _STRICT[str],
            "namespace": _STRICT[str],
            "labels": _TEXTS,
            "annotations": _TEXTS,
        }.items()
    },
}


@dataclass(frozen=True, slots=True)
class Metadata:
    """What of an object's metadata means something here."""

    name: str
    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


def read_metadata(value: Any) -> Metadata:
    """The metadata of a manifest; pydantic_core's ValidationError (a ValueError) where it is none."""
    return Metadata(**_reader("metadata").validate_python(value))


def read_spec(kind: str, value: Any) -> VMInstanceSpec | VMDiskSpec:
    """The spec of `kind` as a manifest writes it; pydantic_core's ValidationError (a ValueError) where it is none."""
    return spec_of(kind, _reader(kind).validate_python(value))


@cache
def _reader(what: str) -> SchemaValidator:
    """Made once: of an object's metadata, or of a kind's spec."""
    return SchemaValidator(_METADATA if what == "metadata" else _object(SPECS[what]))


def _object(shape: type[Shape]) -> dict[str, Any]:
    """Unknown keys are errors, values are never converted in silence."""
    columns = {
        f.name: {
            "type": "typed-dict-field",
            "schema": _read(hints(shape)[f.name], f.metadata.get("reads", "")),
            "required": f.default is MISSING,
        }
        for f in fields(shape)
        if f.name in hints(shape)
    }
    return {"type": "typed-dict", "extra_behavior": "forbid", "fields": columns}


def _read(hint: Any, reads: str) -> dict[str, Any]:
    """How a field of this type is read."""
    if get_origin(hint) is UnionType:
        return {"type": "nullable", "schema": _read(get_args(hint)[0], reads)}
    if get_origin(hint) is tuple:
        return {"type": "list", "items_schema": _read(get_args(hint)[0], reads)}
    inner = _object(hint) if issubclass(hint, Shape) else _STRICT[hint]
    if not reads:
        return inner
    return {"type": "function-before", "function": {"type": "no-info", "function": _READS[reads]}, "schema": inner}


def _quantity(value: Any) -> Any:
    """A quantity may be written as text or as a plain number."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, float) else value


def _named(value: Any) -> Any:
    """A disk by its name alone, as Hikube's pages write it, or as an object, as Cozystack's chart has it."""
    return {"name": value} if isinstance(value, str) else value


_READS = {"quantity": _quantity, "name": _named}
