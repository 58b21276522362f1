"""What `test` is to look at: a list of checks in a file, or in a machine's annotation. All that is wrong with it is found at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hikube_local.manifests.load import Loaded
from hikube_local.records import dataclass
from hikube_local.source import nodes
from hikube_local.source.finding import Finding, Place, Severity
from hikube_local.source.nodes import Node, value_words
from hikube_local.text import nearest
from hikube_local.userdata import places

ANNOTATION = "hikube.local/checks"
# What each kind of check may say, and what it must.
KINDS: dict[str, tuple[set[str], set[str]]] = {
    "run": ({"command", "exit", "stdout", "contains", "matches"}, {"command"}),
    "file": ({"path", "exists", "mode", "owner", "group", "contains"}, {"path"}),
    "service": ({"name", "active", "enabled"}, {"name"}),
    "package": ({"name", "installed"}, {"name"}),
    "user": ({"name", "groups", "sudo", "keys", "exists"}, {"name"}),
    "port": ({"port", "listening"}, {"port"}),
    "http": ({"port", "path", "status", "contains"}, {"port"}),
    "mount": ({"path"}, {"path"}),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its kind, what it says, of which machine (empty: each), after a reboot or not, and where it is written."""

    kind: str
    values: dict[str, Any]
    machine: str = ""
    after_reboot: bool = False
    place: Place = Place()

    def concerns(self, machine: str) -> bool:
        return self.machine in ("", machine)

    @property
    def title(self) -> str:
        first = next(iter(self.values.values()), "")
        return f"{self.kind} {str(first)[:80]}" + (" (after reboot)" if self.after_reboot else "")


def gather(machines: Sequence[Loaded], file: str, text: str) -> tuple[list[Check], list[Finding]]:
    """The checks of a file (its name and content; empty: none) and of the machines' annotations, and what is wrong."""
    checks, found = parse(text, file)
    names = [item.object.name for item in machines]
    for check in checks:
        if names and check.machine and check.machine not in names:
            what, help = f"no machine is named {check.machine[:60]!r}", f"one of {', '.join(names)}"
            found.append(Finding("HK331", Severity.ERROR, what, check.place, help=help))
    for item in machines:
        at = item.place("metadata", "annotations", ANNOTATION)
        own, wrong = parse(item.object.annotations.get(ANNOTATION, ""), item.object.ref)
        checks += [replace(c, machine=item.object.name, place=_there(item, at, c.place)) for c in own]
        found += [d.placed(_there(item, at, d.place), item.object.ref, d.path) for d in wrong]
    return checks, found


def _there(item: Loaded, at: Place, inside: Place) -> Place:
    return places.within(item, at, max(1, inside.line), max(1, inside.column))


def parse(text: str, name: str) -> tuple[list[Check], list[Finding]]:
    """The checks of a YAML text, and what is wrong with it: HK331, or the manifest reader's codes for what is no YAML."""
    found: list[Finding] = []
    reader = _Reader(nodes.Text(name, text), found)
    checks: list[Check | None] = []
    try:
        for root in nodes.documents(reader.text, text, found):
            if isinstance(root.value, list):
                checks += [reader.check(row) for row in root.value]
            elif root.value is not None:
                reader.wrong(root, "the checks must be a list", "- run: {command: …}")
    except nodes.Refused as e:
        found.append(e.finding)
    return [c for c in checks if c], found


class _Reader:
    def __init__(self, text: nodes.Text, found: list[Finding]) -> None:
        self.text, self.found = text, found

    def wrong(self, node: Node, what: str, help: str = "") -> None:
        place = self.text.place(node.line, node.column)
        self.found.append(Finding("HK331", Severity.ERROR, what, place, help=help))

    def check(self, row: Node) -> Check | None:
        if not isinstance(row.value, dict):
            self.wrong(row, f"a check must be a mapping, not {value_words(row.value)}", "- run: {command: …}")
            return None
        kinds = [k for k in row.value if k in KINDS]
        self._unknown(row, "a check", {*KINDS, "machine", "after"})
        if len(kinds) != 1:
            if kinds or set(row.value) <= {"machine", "after"}:
                what = f"a check must have exactly one kind, not {' and '.join(kinds) or 'none'}"
                self.wrong(row, what, f"one of {', '.join(KINDS)}; each as its own list item")
            return None
        kind = kinds[0]
        self._values(kind, row.value[kind][1])
        after, machine = row.get("after"), row.get("machine")
        if after is not None and after.value != "reboot":
            self.wrong(after, f"after: must be reboot, not {value_words(after.value)}", "after: reboot")
        values = row.value[kind][1].data
        if not isinstance(values, dict):
            return None
        named = str(machine.data) if machine else ""
        return Check(kind, values, named, after is not None, self.text.place(row.line, row.column))

    def _unknown(self, node: Node, who: str, allowed: set[str]) -> None:
        for name, (key, _) in node.value.items():
            if name not in allowed:
                near = nearest(name, sorted(allowed))
                help = f"did you mean {near}?" if near else f"known keys: {', '.join(sorted(allowed))}"
                self.wrong(key, f"unknown key {name[:60]!r} in {who}", help)

    def _values(self, kind: str, node: Node) -> None:
        allowed, needed = KINDS[kind]
        if not isinstance(node.value, dict):
            self.wrong(
                node, f"{kind} must be a mapping, not {value_words(node.value)}", f"keys: {', '.join(sorted(allowed))}"
            )
            return
        self._unknown(node, kind, allowed)
        for name in sorted(needed - set(node.value)):
            self.wrong(node, f"{kind} needs {name}")
        for name, (_, value) in node.value.items():
            if name in _GOOD and not _GOOD[name][0](value.data):
                self.wrong(value, f"invalid {kind}.{name}: {value_words(value.value)}", _GOOD[name][1])


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _absolute(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _pattern(value: Any) -> bool:
    try:
        re.compile(str(value))
    except re.error:
        return False
    return True


# What would mislead later; what is not here may be anything.
_GOOD: dict[str, tuple[Callable[[Any], bool], str]] = {
    # 0644 without quotes is read as 420: our own warning of user-data holds here too.
    "mode": (lambda v: isinstance(v, str) and bool(re.fullmatch("[0-7]{3,4}", v)), "quote a mode: '0644'"),
    "groups": (lambda v: isinstance(v, list), "a list: [sudo, docker]"),
    "keys": (lambda v: isinstance(v, list | int), "a list of public keys, their number, or true"),
    "matches": (_pattern, "a Python regular expression"),
    "command": (_text, "a line for the guest's shell"),
    "path": (_absolute, "an absolute path (it begins with /)"),
    "name": (_text, "a name; quote one that is a number"),
    "port": (lambda v: _number(v) and 0 < v < 65536, "a number from 1 to 65535"),
    **dict.fromkeys(("status", "exit"), (_number, "a number")),
    **dict.fromkeys(
        ("exists", "active", "enabled", "installed", "listening", "sudo"),
        (lambda v: isinstance(v, bool), "true or false"),
    ),
}
