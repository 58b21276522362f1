"""kubectl's selectors as tests over labels and over an object's identity."""

from __future__ import annotations

import re
from collections.abc import Callable

from hikube_local.errors import UsageError

_SET = re.compile(r"(?P<key>\S+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)$")
_PLAIN = re.compile(r"(?P<key>[^\s=!,()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!,()]*)$")
_EXISTS = re.compile(r"(?P<no>!?)\s*(?P<key>[^\s=!,()]+)$")


def selector(text: str) -> Callable[[dict[str, str]], bool]:
    """kubectl's label selector (a=b, a!=b, a in (b,c), a notin (b), a, !a; comma means and) as a test over labels."""
    tests: list[Callable[[dict[str, str]], bool]] = []
    for part in filter(None, (p.strip() for p in re.split(r",(?![^(]*\))", text))):
        if m := _SET.match(part):
            tests.append(_member(m["key"], {v.strip() for v in m["values"].split(",")}, m["op"] == "in"))
        elif m := _PLAIN.match(part):
            tests.append(_member(m["key"], {m["value"]}, m["op"] != "!="))
        elif m := _EXISTS.match(part):
            tests.append(_present(m["key"], not m["no"]))
        else:
            fix = "write a=b, a!=b, 'a in (b,c)', 'a notin (b)', a or !a"
            raise UsageError("HK810", f"the label selector {part!r} is not understood", fix=fix)
    return lambda labels: all(t(labels) for t in tests)


IDENTITY = ("metadata.name", "metadata.namespace")


def fields(text: str, known: tuple[str, ...] = IDENTITY) -> Callable[[Callable[[str], str]], bool]:
    """kubectl's field selector over the fields that its kind's API knows, as a test of what tells a field's value."""
    tests: list[Callable[[Callable[[str], str]], bool]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        m = _PLAIN.match(part)
        if not m or m["key"] not in known:
            fix = f"write FIELD=VALUE or FIELD!=VALUE; the fields are {', '.join(known)}"
            raise UsageError("HK810", f"the field selector {part!r} is not understood", fix=fix)
        tests.append(_is(m["key"], m["value"], m["op"] != "!="))
    return lambda value: all(t(value) for t in tests)


def identity(namespace: str, name: str) -> Callable[[str], str]:
    """What tells the fields that every object has."""
    return lambda path: {"metadata.namespace": namespace, "metadata.name": name}[path]


def _is(path: str, wanted: str, same: bool) -> Callable[[Callable[[str], str]], bool]:
    return lambda value: (value(path) == wanted) == same


def _member(key: str, values: set[str], inside: bool) -> Callable[[dict[str, str]], bool]:
    return lambda labels: (labels.get(key) in values) == inside


def _present(key: str, there: bool) -> Callable[[dict[str, str]], bool]:
    return lambda labels: (key in labels) == there
