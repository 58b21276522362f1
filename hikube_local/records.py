"""`dataclass`, as the standard library's, which compiles nothing before a class is used.

The library compiles six functions for each class as it is defined: a third of what a short command took, for a hundred
classes of which it makes instances of thirty. Here a class has its fields at once (dataclasses.fields, replace, asdict
and a type checker see what they know), its __init__ is compiled when it is first called, and the other methods are
closures. Of the library's options those that are used here: frozen, slots, kw_only, eq; no InitVar.
"""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, FrozenInstanceError
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, slots=False, kw_only=False, eq=True):
        def define(cls):
            own = set(vars(cls))
            if "__eq__" in own and vars(cls)["__hash__"] is None:  # which Python adds to a class that says __eq__ alone
                own.discard("__hash__")
            cls.__doc__ = cls.__doc__ or cls.__name__  # else the library works out a signature
            made = dataclasses.dataclass(cls, init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)
            methods = {"__init__": _first_init(made, frozen), **_methods(dataclasses.fields(made), frozen, slots, eq)}
            for name, method in methods.items():
                if name not in own:
                    setattr(made, name, method)
            return made

        return define if cls is None else define(cls)


def _first_init(cls: Any, frozen: bool) -> Any:
    def __init__(self: Any, *words: Any, **named: Any) -> None:
        cls.__init__ = _init(cls, frozen)
        cls.__init__(self, *words, **named)

    return __init__


def _init(cls: Any, frozen: bool) -> Any:
    space: dict[str, Any] = {"_set": object.__setattr__, "_made": object()}
    words, named, lines = ["self"], ["*"], []
    for field in dataclasses.fields(cls):
        value, default, parameter = field.name, f"_default_{field.name}", field.name
        if field.default_factory is not MISSING:
            space[default] = field.default_factory
            value, parameter = f"{default}() if {value} is _made else {value}", f"{parameter}=_made"
        elif field.default is not MISSING:
            space[default] = field.default
            parameter = f"{parameter}={default}"
        (named if field.kw_only else words).append(parameter)
        lines.append(f"_set(self, {field.name!r}, {value})" if frozen else f"self.{field.name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    parameters = ", ".join([*words, *(named if named[1:] else [])])
    exec(f"def __init__({parameters}):\n " + "\n ".join(lines or ["pass"]), space)
    space["__init__"].__qualname__ = f"{cls.__qualname__}.__init__"  # as a wrong call names it
    return space["__init__"]


def _methods(fields: tuple[dataclasses.Field[Any], ...], frozen: bool, slots: bool, eq: bool) -> dict[str, Any]:
    shown = [f.name for f in fields if f.repr]
    values = _values([f.name for f in fields if f.compare])

    @recursive_repr()
    def __repr__(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def __eq__(self: Any, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(values(self))

    methods: dict[str, Any] = {"__repr__": __repr__}
    if eq:
        methods |= {"__eq__": __eq__, "__hash__": __hash__ if frozen else None}
    if frozen:
        methods |= {"__setattr__": _no_set, "__delattr__": _no_delete}
    if frozen and slots:
        methods |= {"__getstate__": _get_state, "__setstate__": _set_state}
    return methods


def _values(names: list[str]) -> Any:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple(getattr(record, name) for name in names)


def _no_set(self: Any, name: str, value: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _no_delete(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _get_state(self: Any) -> list[Any]:
    return [getattr(self, f.name) for f in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)
