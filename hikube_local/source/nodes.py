"""YAML text to a tree with places, built from parser events so that every bound holds before anything is expanded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from hikube_local.records import dataclass
from hikube_local.source.finding import Finding, Place, Severity
from hikube_local.source.scalars import Value, resolve

MAX_BYTES = 16 << 20
MAX_DEPTH = 64
MAX_ALIASES = 100
MAX_NODES = 250_000
MAX_STRING = 4 << 20
MAX_DOCUMENTS = 10_000

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAGS = {f"tag:yaml.org,2002:{t}": t for t in ("str", "int", "bool", "null", "float", "map", "seq")}
_TYPES: dict[str, type | tuple[type, ...]] = {"int": int, "bool": bool, "float": (int, float)}
_BREAKS = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # and halves of characters


class Refused(Exception):
    """The file cannot be read any further; carries the finding."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding


@dataclass(slots=True)
class Node:
    """A value with its place. `value` is a Value, a list of nodes, or a dict of key to (key's node, value's node)."""

    value: Any
    line: int
    column: int
    plain: bool = False
    text: str = ""

    @property
    def data(self) -> Any:
        """The plain Python value."""
        if isinstance(self.value, dict):
            return {k: v.data for k, (_, v) in self.value.items()}
        if isinstance(self.value, list):
            return [v.data for v in self.value]
        return self.value

    def get(self, *path: str | int) -> Node | None:
        """The node at `path`, or None."""
        node: Node | None = self
        for step in path:
            if node is None:
                return None
            if isinstance(node.value, dict):
                pair = node.value.get(step)
                node = pair[1] if pair else None
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
            else:
                return None
        return node

    def key(self, *path: str | int) -> Node | None:
        """The node of the key at `path` (for a list item, the item)."""
        parent = self.get(*path[:-1])
        if parent is not None and isinstance(parent.value, dict):
            pair = parent.value.get(path[-1])
            return pair[0] if pair else None
        return self.get(*path)


class Text:
    """The lines of a file, for places in messages."""

    def __init__(self, name: str, content: str) -> None:
        self.name = name
        self._content = content
        self._lines: list[str] | None = None

    def line(self, number: int) -> str:
        if self._lines is None:
            self._lines = _BREAKS.split(self._content)
        return self._lines[number - 1][:4000] if 0 < number <= len(self._lines) else ""

    def place(self, line: int, column: int) -> Place:
        return Place(self.name, line, column, self.line(line))


def decode(name: str, raw: bytes) -> str:
    """The text of a manifest as kubectl reads it: UTF-8, or UTF-16 that begins with its byte order mark."""
    if len(raw) > MAX_BYTES:
        raise Refused(
            Finding(
                "HK107", Severity.ERROR, f"the file has {len(raw)} bytes, at most {MAX_BYTES} are read", Place(name)
            )
        )
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return raw.decode("utf-16")
        except UnicodeDecodeError as e:
            what = f"the file begins as UTF-16, but byte {e.start} is not UTF-16"
            raise Refused(Finding("HK103", Severity.ERROR, what, Place(name, 1, 1), help="save it as UTF-8")) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        before = raw[: e.start]
        line = before.count(b"\n") + 1
        column = len(before) - before.rfind(b"\n")
        raise Refused(
            Finding(
                "HK103",
                Severity.ERROR,
                f"byte 0x{raw[e.start]:02x} is not UTF-8",
                Place(name, line, column),
                help="save the file as UTF-8 (an image or an archive is not a manifest)",
            )
        ) from None


def documents(text: Text, content: str, found: list[Finding]) -> Iterator[Node]:
    """The documents of a file; findings that do not stop the reading go to `found`, others raise Refused."""
    builder = _Builder(text, found)
    try:
        events = yaml.parse(content, Loader=_Loader)
        yield from builder.build(events)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = text.place(mark.line + 1, mark.column + 1) if mark else Place(text.name)
        if "nesting depth" in (e.problem or ""):  # the bound of newer PyYAMLs comes before ours
            deep = f"nested deeper than {MAX_DEPTH} levels"
            raise Refused(Finding("HK106", Severity.ERROR, deep, place)) from None
        problem = " ".join(str(p) for p in (e.problem, f"({e.context})" if e.context else "") if p)
        raise Refused(
            Finding("HK102", Severity.ERROR, f"not YAML: {problem}", place, help=_yaml_help(e, place))
        ) from None
    except yaml.YAMLError as e:
        position = getattr(e, "position", None)
        place = Place(text.name)
        if isinstance(position, int):
            line = content.count("\n", 0, position) + 1
            place = text.place(line, position - content.rfind("\n", 0, position))
        raise Refused(Finding("HK110", Severity.ERROR, "a character that YAML does not allow", place)) from None


def _yaml_help(error: yaml.MarkedYAMLError, place: Place) -> str:
    problem = str(error.problem or "")
    if "\t" in place.text[: max(place.column, 1)] or "cannot start any token" in problem:
        return "indent with spaces, not tabs; quote values that begin with @, ` or %"
    if "mapping values" in problem:
        return "quote a value that contains ': ', and look at the indentation of the line above"
    if "block" in problem or "expected" in problem:
        return "look at the indentation here and at brackets and quotes left open above"
    return ""


class _Builder:
    """Events to nodes, within the bounds."""

    def __init__(self, text: Text, found: list[Finding]) -> None:
        self.text = text
        self.found = found
        self.nodes = 0
        self.aliases = 0

    def refuse(self, code: str, message: str, mark: Any, help: str = "") -> Refused:
        place = self.text.place(mark.line + 1, mark.column + 1)
        return Refused(Finding(code, Severity.ERROR, message, place, help=help))

    def build(self, events: Iterator[Any]) -> Iterator[Node]:
        count = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                count += 1
                if count > MAX_DOCUMENTS:
                    raise self.refuse("HK107", f"more than {MAX_DOCUMENTS} documents in one file", event.start_mark)
                self.anchors: dict[str, tuple[Node, int]] = {}
                node = self.node(next(events), events, 0)
                yield node

    def count(self, n: int, event: Any) -> None:
        self.nodes += n
        if self.nodes > MAX_NODES:
            raise self.refuse("HK107", f"more than {MAX_NODES} values in one file", event.start_mark)

    def node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self.refuse("HK106", f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        before = self.nodes
        self.count(1, event)
        tag = event.tag
        if tag is not None and tag != "!" and tag not in _TAGS:
            raise self.refuse(
                "HK108", f"the tag {tag[:60]} is not used in manifests", event.start_mark, "leave the tag out"
            )
        mark = event.start_mark
        node = Node(None, mark.line + 1, mark.column + 1)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, -1)  # -1: not closed yet, so an alias inside itself is seen
        if isinstance(event, yaml.ScalarEvent):
            self.scalar(node, event)
        elif isinstance(event, yaml.SequenceStartEvent):
            node.value = []
            while not isinstance(item := next(events), yaml.SequenceEndEvent):
                node.value.append(self.node(item, events, depth + 1))
        else:
            self.mapping(node, event, events, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, self.nodes - before)
        return node

    def alias(self, event: Any) -> Node:
        self.aliases += 1
        if event.anchor not in self.anchors:
            raise self.refuse("HK102", f"undefined anchor &{event.anchor[:60]}", event.start_mark)
        node, weight = self.anchors[event.anchor]
        if weight < 0:
            raise self.refuse("HK105", f"*{event.anchor[:60]} contains itself", event.start_mark)
        if self.aliases > MAX_ALIASES:
            raise self.refuse(
                "HK105", f"more than {MAX_ALIASES} aliases", event.start_mark, "write the values out instead"
            )
        self.count(weight, event)
        return node

    def scalar(self, node: Node, event: Any) -> None:
        text = event.value
        if len(text) > MAX_STRING:
            raise self.refuse("HK107", f"a value is longer than {MAX_STRING} characters", event.start_mark)
        if _CONTROLS.search(text):
            raise self.refuse("HK110", "a control character in a value", event.start_mark, "take it out")
        kind = _TAGS.get(event.tag or "")
        node.text = text
        node.plain = event.style in (None, "") and event.tag is None
        node.value = resolve(text) if node.plain or kind in ("int", "bool", "null", "float") else text
        wanted = _TYPES.get(kind or "")
        if wanted and not isinstance(node.value, wanted):
            raise self.refuse("HK205", f"{text[:40]!r} is not a valid !!{kind}", event.start_mark)

    def mapping(self, node: Node, event: Any, events: Iterator[Any], depth: int) -> None:
        pairs: dict[str, tuple[Node, Node]] = {}
        merges: list[Node] = []
        while not isinstance(item := next(events), yaml.MappingEndEvent):
            key = self.node(item, events, depth + 1)
            value = self.node(next(events), events, depth + 1)
            if key.plain and key.text == "<<":
                merges += value.value if isinstance(value.value, list) else [value]
                continue
            if isinstance(key.value, dict | list) or key.value is None:
                raise self.refuse("HK109", "a key must be text", item.start_mark)
            name = key.text
            if name in pairs:
                first = pairs[name][0]
                place = self.text.place(key.line, key.column)
                self.found.append(
                    Finding(
                        "HK104",
                        Severity.ERROR,
                        f"duplicate key {name[:60]!r}, first on line {first.line}",
                        place,
                        help="keep one of them: YAML readers disagree on which one counts",
                    )
                )
                continue
            pairs[name] = (key, value)
        for merge in merges:
            if not isinstance(merge.value, dict):
                raise self.refuse("HK102", "<< merges mappings only", event.start_mark)
            for name, pair in merge.value.items():
                pairs.setdefault(name, pair)
        node.value = pairs


def value_words(value: Value | list[Any] | dict[str, Any]) -> str:
    """A value with its type, as messages name it."""
    if value is None:
        return "nothing"
    kind = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "mapping"}[type(value)]
    if isinstance(value, dict | list):
        return f"a {kind}"
    shown = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
    return f"{kind} {str(shown)[:40]!r}" if isinstance(value, str) else f"{kind} {str(shown)[:40]}"
