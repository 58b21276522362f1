"""What is read from a user, judged by pydantic: the shapes of api/objects.py, with both dialects of the manifests.

A look at what the store keeps needs none of it, and pydantic takes longer to load than such a look.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr, create_model

from hikube_local.api.objects import SPECS, Shape, VMDiskSpec, VMInstanceSpec, hints, spec_of

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
    columns: dict[str, Any] = {}
    for f in fields(shape):
        if f.name in hints(shape):
            reads = f.metadata.get("reads", "")
            about = Field(
                ... if f.default is MISSING else f.default,
                description=f.metadata.get("description"),
                json_schema_extra={"reads": reads} if reads else None,
            )
            columns[f.name] = (_read(hints(shape)[f.name], reads), about)
    config = ConfigDict(extra="forbid", frozen=True)
    return create_model(shape.__name__, __config__=config, __doc__=shape.__doc__, **columns)


def _read(hint: Any, reads: str) -> Any:
    """How a field of this type is read."""
    if get_origin(hint) is UnionType:
        return _read(get_args(hint)[0], reads) | None
    if get_origin(hint) is tuple:
        return list[_read(get_args(hint)[0], reads)]  # type: ignore[misc]
    inner = model(hint) if issubclass(hint, Shape) else _STRICT[hint]
    return Annotated[inner, BeforeValidator(_READS[reads])] if reads else inner


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
