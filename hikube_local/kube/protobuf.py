"""Kubernetes' protobuf bodies, as far as clients send them: kubectl, Helm and typed clients do for built-in kinds; pure.

A table of field numbers for each message (k8s.io/api, generated.proto of core/v1, authorization/v1, meta/v1) and a reader of
the wire format (protobuf.dev/programming-guides/encoding). Answers stay JSON, which every client takes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from hikube_local.kube.status import Refused
from hikube_local.records import dataclass
from hikube_local.text import timestamp

MAGIC = b"k8s\x00"
DEPTH = 12


@dataclass(frozen=True, slots=True)
class Field:
    """`kind`: text, number, flag, bytes (base64 in JSON), raw JSON, time, or the name of a message."""

    name: str
    kind: str = "text"
    many: bool = False
    map: bool = False


_MESSAGES: dict[str, dict[int, Field]] = {
    "TypeMeta": {1: Field("apiVersion"), 2: Field("kind")},
    "Unknown": {1: Field("typeMeta", "TypeMeta"), 2: Field("raw", "raw"), 4: Field("contentType")},
    "ObjectMeta": {
        1: Field("name"),
        2: Field("generateName"),
        3: Field("namespace"),
        5: Field("uid"),
        6: Field("resourceVersion"),
        7: Field("generation", "number"),
        8: Field("creationTimestamp", "time"),
        11: Field("labels", map=True),
        12: Field("annotations", map=True),
        13: Field("ownerReferences", "OwnerReference", many=True),
        14: Field("finalizers", many=True),
    },
    "OwnerReference": {
        1: Field("kind"),
        3: Field("name"),
        4: Field("uid"),
        5: Field("apiVersion"),
        6: Field("controller", "flag"),
        7: Field("blockOwnerDeletion", "flag"),
    },
    "Secret": {
        1: Field("metadata", "ObjectMeta"),
        2: Field("data", "bytes", map=True),
        3: Field("type"),
        4: Field("stringData", map=True),
        5: Field("immutable", "flag"),
    },
    "ConfigMap": {
        1: Field("metadata", "ObjectMeta"),
        2: Field("data", map=True),
        3: Field("binaryData", "bytes", map=True),
        4: Field("immutable", "flag"),
    },
    "Namespace": {1: Field("metadata", "ObjectMeta")},
    "SelfSubjectAccessReview": {1: Field("metadata", "ObjectMeta"), 2: Field("spec", "AccessSpec")},
    "AccessSpec": {
        1: Field("resourceAttributes", "ResourceAttributes"),
        2: Field("nonResourceAttributes", "NonResourceAttributes"),
    },
    "ResourceAttributes": {
        1: Field("namespace"),
        2: Field("verb"),
        3: Field("group"),
        4: Field("version"),
        5: Field("resource"),
        6: Field("subresource"),
        7: Field("name"),
    },
    "NonResourceAttributes": {1: Field("path"), 2: Field("verb")},
    "SelfSubjectRulesReview": {1: Field("metadata", "ObjectMeta"), 2: Field("spec", "RulesSpec")},
    "RulesSpec": {1: Field("namespace")},
    "DeleteOptions": {
        1: Field("gracePeriodSeconds", "number"),
        2: Field("preconditions", "Preconditions"),
        3: Field("orphanDependents", "flag"),
        4: Field("propagationPolicy"),
        5: Field("dryRun", many=True),
    },
    "Preconditions": {1: Field("uid"), 2: Field("resourceVersion")},
}


def read(body: bytes) -> dict[str, Any]:
    """The object that a body holds; Refused where it cannot be read or its kind is not known."""
    try:
        head = _message("Unknown", memoryview(body)[len(MAGIC) :], 0)
        about = head.get("typeMeta", {})
        kind = about.get("kind", "")
        if kind not in _MESSAGES:
            raise Refused(415, f"protobuf is not supported for the kind {kind[:60]!r}: send JSON")
        return {**about, **_message(kind, memoryview(head.get("raw", b"")), 0)}
    except (ValueError, IndexError, RecursionError, OverflowError, OSError):
        raise Refused(400, "the body of the request is not valid protobuf") from None


def _message(name: str, data: memoryview, depth: int) -> dict[str, Any]:
    if depth > DEPTH:
        raise ValueError("too deep")
    table = _MESSAGES[name]
    out: dict[str, Any] = {}
    for number, wire, content in _fields(data):
        field = table.get(number)
        if field is None:
            continue
        if field.map:
            key, value = _entry(field, content, depth)
            out.setdefault(field.name, {})[key] = value
        elif field.many:
            out.setdefault(field.name, []).append(_value(field.kind, wire, content, depth))
        else:
            out[field.name] = _value(field.kind, wire, content, depth)
    return out


def _entry(field: Field, content: Any, depth: int) -> tuple[str, Any]:
    key, value = "", b"" if field.kind == "bytes" else ""
    found: Any = _value(field.kind, 2, memoryview(b""), depth) if field.kind == "bytes" else value
    for number, wire, inner in _fields(_bytes(content)):
        if number == 1:
            key = _value("text", wire, inner, depth)
        elif number == 2:
            found = _value(field.kind, wire, inner, depth)
    return key, found


def _value(kind: str, wire: int, content: Any, depth: int) -> Any:
    if kind in ("number", "flag"):
        if wire != 0:
            raise ValueError("no number")
        return bool(content) if kind == "flag" else int(content)
    data = _bytes(content)
    if kind == "text":
        return bytes(data).decode()
    if kind == "bytes":
        return base64.b64encode(data).decode()
    if kind == "raw":
        return bytes(data)
    if kind == "time":
        seconds = next((c for n, w, c in _fields(data) if n == 1 and w == 0), None)
        return timestamp(float(seconds)) if seconds is not None else None
    return _message(kind, data, depth + 1)


def _bytes(content: Any) -> memoryview:
    if not isinstance(content, memoryview):
        raise ValueError("no bytes")
    return content


def _fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, content) of each field: an int, or the bytes of one that has a length."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            content, at = _varint(data, at)
            yield number, wire, content
            continue
        if wire == 2:
            length, at = _varint(data, at)
        else:
            length = {1: 8, 5: 4}.get(wire, -1)
        if length < 0 or at + length > len(data):
            raise ValueError("cut short")
        yield number, wire, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError("a number without end")
