"""What the shapes of the API are made of: fields with their words, what of them was given, to plain data and back; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, field, fields, replace
from functools import cache
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from hikube_local.records import dataclass

_HINTS: dict[type, dict[str, Any]] = {}
_DEFAULTS: dict[type, list[tuple[str, Any]]] = {}


def hints(kind: type) -> dict[str, Any]:
    """The type of each field that a user, or the store, writes; in order."""
    if kind not in _HINTS:
        _HINTS[kind] = {name: hint for name, hint in get_type_hints(kind).items() if name != "given"}
    return _HINTS[kind]


def said(description: str, default: Any = MISSING, reads: str = "", live: bool = False) -> Any:
    """A field that users write, and what it is; required without a default.

    `reads`: "quantity" (a number stands for its text), "name" (a name stands for the part that has it). `live`: a change
    needs no restart by us: taken at once, or (keys, user-data) written to the seed, which the guest reads at its next boot.
    """
    return field(default=default, metadata={"description": description or None, "reads": reads, "live": live})


def _defaults(kind: type[Shape]) -> list[tuple[str, Any]]:
    if kind not in _DEFAULTS:
        _DEFAULTS[kind] = [(f.name, f.default) for f in fields(kind) if f.name != "given"]
    return _DEFAULTS[kind]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What both kinds' parts have in common. Values were judged where a manifest was read (manifests/models.py).

    `given`: the fields that the user wrote; everything else has its default. Two that mean the same are equal, whatever
    was written; `plain_spec` is what tells them apart.
    """

    given: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    def __post_init__(self) -> None:
        """What is not as it is by default was given."""
        other = (name for name, default in _defaults(type(self)) if getattr(self, name) != default)
        object.__setattr__(self, "given", self.given.union(other))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What a user may write in it, in order."""
        return tuple(hints(cls))

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The fields that have a value of their own where nothing is given, as plain data."""
        return {name: _plain(default) for name, default in _defaults(cls) if default not in (None, MISSING)}

    @classmethod
    def live(cls) -> frozenset[str]:
        """The fields of which a change needs no restart."""
        return frozenset(f.name for f in fields(cls) if f.metadata.get("live"))

    @classmethod
    def part(cls, name: str) -> type[Shape] | None:
        """What the field holds, one or a list of them; None for a plain value, and where there is no such field."""
        hint = hints(cls).get(name)
        while get_args(hint):
            hint = get_args(hint)[0]
        return hint if isinstance(hint, type) and issubclass(hint, Shape) else None

    def but(self, **changes: Any) -> Self:
        """The same with these fields given otherwise."""
        return replace(self, **changes, given=self.given.union(changes))


def made(shape: type[Shape], value: Any) -> Shape:
    """The shape from plain data, as `plain_spec` writes it; TypeError where it is none."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{shape.__name__} is a {type(value).__name__}, not a mapping")
    known = hints(shape)
    if unknown := value.keys() - known.keys():
        raise TypeError(f"{shape.__name__} has no {', '.join(sorted(unknown))}")
    return shape(**{name: value_of(name, known[name], v) for name, v in value.items()}, given=frozenset(value))


@cache
def _form(hint: Any) -> tuple[Any, Any]:
    """What a type is made of: `X | None`, `tuple[X, ...]` or `dict`, and X."""
    return get_origin(hint), next(iter(get_args(hint)), None)


def value_of(name: str, hint: Any, value: Any) -> Any:
    """A value of the field `name` of this type, from plain data; TypeError where it is none."""
    origin, inner = _form(hint)
    if origin is UnionType:
        return None if value is None else value_of(name, inner, value)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"{name} is a {type(value).__name__}, not a list")
        return tuple(value_of(name, inner, v) for v in value)
    if origin is dict:
        if not isinstance(value, dict) or any(type(v) is not str for pair in value.items() for v in pair):
            raise TypeError(f"{name} is not a map of strings")
        return value
    if issubclass(hint, Shape):
        return made(hint, value)
    if type(value) is not hint and not (hint is float and type(value) is int):
        raise TypeError(f"{name} is a {type(value).__name__}, not a {hint.__name__}")
    return value


def plain_spec(spec: Shape) -> dict[str, Any]:
    """The spec as the user wrote it: only what was given, in the shape of today's chart."""
    return {name: _plain(getattr(spec, name)) for name in spec.names() if name in spec.given}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return plain_spec(value) if isinstance(value, Shape) else value
