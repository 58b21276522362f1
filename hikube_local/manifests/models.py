"""What is read from a user, judged by pydantic: the shapes of api/objects.py, with both dialects of the manifests.

A look at what the store keeps needs none of it, and pydantic takes longer to load than such a look.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr, create_model

from hikube_local.api.objects import SPECS, Shape, VMDiskSpec, VMInstanceSpec, spec_of

QUANTITIES = ("cpu", "memory", "sockets", "storage")
_MODELS: dict[type[Shape], type[BaseModel]] = {}
_STRICT = {str: StrictStr, bool: StrictBool, int: StrictInt}


class Metadata(BaseModel):
    """What of an object's metadata means something here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: StrictStr
    namespace: StrictStr = ""
    labels: dict[StrictStr, StrictStr] = {}
    annotations: dict[StrictStr, StrictStr] = {}


def read_spec(kind: str, value: Any) -> VMInstanceSpec | VMDiskSpec:
    """The spec of `kind` as a manifest writes it; pydantic's ValidationError (a ValueError) where it is none."""
    return spec_of(kind, model(SPECS[kind]).model_validate(value).model_dump(exclude_unset=True))


def model(shape: type[Shape]) -> type[BaseModel]:
    """The reader of a shape: unknown keys are errors, values are never converted in silence."""
    if shape not in _MODELS:
        _MODELS[shape] = _made(shape)
    return _MODELS[shape]


def _made(shape: type[Shape]) -> type[BaseModel]:
    hints = get_type_hints(shape)
    columns: dict[str, Any] = {}
    for f in fields(shape):
        if f.name in shape.names():
            default = ... if f.default is MISSING else f.default
            columns[f.name] = (_read(f.name, hints[f.name]), Field(default, description=f.metadata.get("description")))
    config = ConfigDict(extra="forbid", frozen=True)
    return create_model(shape.__name__, __config__=config, __doc__=shape.__doc__, **columns)


def _read(name: str, hint: Any) -> Any:
    """How the field `name` of this type is read."""
    if get_origin(hint) is UnionType:
        return _read(name, get_args(hint)[0]) | None
    if get_origin(hint) is tuple:
        return list[_read(name, get_args(hint)[0])]  # type: ignore[misc]
    if isinstance(hint, type) and issubclass(hint, Shape):
        return Annotated[model(hint), BeforeValidator(_named)] if name == "disks" else model(hint)
    return Annotated[StrictStr, BeforeValidator(_quantity)] if name in QUANTITIES else _STRICT[hint]


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
    """The seed writes disks as names, the chart as objects."""
    return {"name": value} if isinstance(value, str) else value
