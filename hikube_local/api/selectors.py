"""kubectl's selectors as tests over labels and over an object's identity."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

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


def fields(text: str) -> Callable[[Any], bool]:
    """kubectl's field selector, as far as its API knows fields of ours: metadata.name and metadata.namespace."""
    tests: list[Callable[[dict[str, str]], bool]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        m = _PLAIN.match(part)
        if not m or m["key"] not in ("metadata.name", "metadata.namespace"):
            fix = "write metadata.name=NAME or metadata.namespace=NAMESPACE"
            raise UsageError("HK810", f"the field selector {part!r} is not understood", fix=fix)
        tests.append(_member(m["key"].removeprefix("metadata."), {m["value"]}, m["op"] != "!="))
    return lambda obj: all(t({"name": obj.name, "namespace": obj.namespace}) for t in tests)


def _member(key: str, values: set[str], inside: bool) -> Callable[[dict[str, str]], bool]:
    return lambda labels: (labels.get(key) in values) == inside


def _present(key: str, there: bool) -> Callable[[dict[str, str]], bool]:
    return lambda labels: (key in labels) == there
