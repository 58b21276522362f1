"""A cloud-config as a tree with places, its values as PyYAML reads them for cloud-init (YAML 1.1); pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import yaml

from hikube_local.catalogue.cloudconfig import CLOUD_CONFIG
from hikube_local.source import nodes
from hikube_local.source.finding import Finding, Place, Severity
from hikube_local.source.nodes import Node, Refused, Text
from hikube_local.userdata import parts

_LITERAL = re.compile(r"(?:[&!]\S+\s+)*\|[0-9+-]*\s*(?:#.*)?$")
_RESOLVER = yaml.resolver.Resolver()


def read(text: str) -> tuple[Node | None, list[Finding]]:
    """The first document's tree (None: nothing, or it cannot be read) and what was found while reading."""
    found: list[Finding] = []
    first: Node | None = None
    try:
        for node in nodes.documents(Text("user-data", text), _untagged(text), found):
            if first is not None:
                place = Place("user-data", node.line, node.column)
                what = "more than one YAML document: cloud-init ignores all of them"
                found.append(Finding("HK340", Severity.ERROR, what, place, help="leave the --- out"))
                break
            first = node
        for line, column in no_binaries(text):
            what = "!!binary is not base64: cloud-init rejects this whole part"
            found.append(Finding("HK340", Severity.ERROR, what, Place("user-data", line, column), help="base64 < FILE"))
    except Refused as e:
        found.append(e.finding)
        return None, found
    return first, found


def shifted(node: Node, line: Callable[[int], int]) -> Node:
    """The tree with other lines."""
    value = node.value
    if isinstance(value, dict):
        value = {k: (shifted(a, line), shifted(b, line)) for k, (a, b) in value.items()}
    elif isinstance(value, list):
        value = [shifted(v, line) for v in value]
    return Node(value, line(node.line), node.column, node.plain, node.text)


def no_binaries(text: str) -> list[tuple[int, int]]:
    """(line, column) of the !!binary values that are no base64: PyYAML refuses the whole document for one."""
    if "!!binary" not in text:
        return []
    found = []
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.ScalarEvent) and event.tag == "tag:yaml.org,2002:binary":
                try:
                    base64.decodebytes(event.value.encode("ascii"))
                except ValueError:
                    assert event.start_mark is not None
                    found.append((event.start_mark.line + 1, event.start_mark.column + 1))
    except yaml.YAMLError:
        pass  # told where the text is read
    return found


def _untagged(text: str) -> str:
    """cloud-init's reader takes !!binary and !!timestamp; their places stay."""
    return re.sub(r"!!(?:binary|timestamp)\b", lambda m: " " * len(m[0]), text)


@cache
def _plain(text: str) -> Any:
    # Not by a whole document for each scalar: a hundred thousand commands took 12 s.
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    if tag == "tag:yaml.org,2002:str":
        return text
    try:
        return yaml.constructor.SafeConstructor().construct_object(yaml.ScalarNode(tag, text))
    except (yaml.YAMLError, ValueError):
        return text


def value(node: Node) -> Any:
    """A scalar as cloud-init gets it; lists and mappings as they are."""
    return _plain(node.text) if node.plain else node.value


def data(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {k: data(v) for k, (_, v) in node.value.items()}
    if isinstance(node.value, list):
        return [data(v) for v in node.value]
    return value(node)


def type_of(node: Node) -> str:
    """The JSON type of a value, as the schema names it."""
    found = value(node)
    if found is None:
        return "null"
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(found), "string" if isinstance(found, bytes) else "date")


def archived(root: Node) -> Iterator[tuple[Node, Node | None, str]]:
    """(item, its content, its type) of a cloud-config-archive's list; without content where it has no text."""
    for item in root.value:
        content = item if isinstance(item.value, str) else item.get("content")
        if content is None or not isinstance(content.value, str):
            yield item, None, ""
            continue
        said = item.get("type") if isinstance(item.value, dict) else None
        # cloud-init takes a part that says nothing of itself for a cloud-config.
        yield item, content, str(said.value) if said else parts.kind_of(content.value) or CLOUD_CONFIG


def is_literal(lines: list[str], node: Node) -> bool:
    """Whether a value is a block whose lines are those of the file, from the line below its indicator on."""
    return 0 < node.line <= len(lines) and bool(_LITERAL.match(lines[node.line - 1], node.column - 1))
