"""The kinds that the endpoint serves, by the names of their resources, with the columns of kubectl's tables; pure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from hikube_local.api.objects import DISK, INSTANCE
from hikube_local.text import age, moment

GROUP, VERSION = "apps.cozystack.io", "v1alpha1"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as clients name it."""

    plural: str
    singular: str
    kind: str

    @property
    def full(self) -> str:
        return f"{self.plural}.{GROUP}"


RESOURCES = {
    r.plural: r for r in (Resource("vminstances", "vminstance", INSTANCE), Resource("vmdisks", "vmdisk", DISK))
}
# Cozystack's own API server has these four for every kind; what we know beside them comes with -o wide.
_COLUMNS = (("Name", "string", 0), ("Ready", "string", 0), ("Age", "string", 0), ("Version", "string", 0))
_WIDE = {INSTANCE: ("Status", "Phase", "Address"), DISK: ("Phase", "Size", "Image")}


def columns(kind: str) -> list[dict[str, Any]]:
    wide = [(name, "string", 1) for name in _WIDE[kind]]
    rows = []
    for name, type, priority in (*_COLUMNS, *wide):
        format = "name" if name == "Name" else ""
        rows.append({"name": name, "type": type, "format": format, "description": name, "priority": priority})
    return rows


def row(value: dict[str, Any], include: str) -> dict[str, Any]:
    """One object as a row. `include`: None, Metadata or Object, as the request says."""
    meta, status = value["metadata"], value.get("status", {})
    ready = next((c["status"] for c in status.get("conditions", ()) if c["type"] == "Ready"), "Unknown")
    cells = [
        meta["name"],
        ready,
        age(time.time() - moment(meta["creationTimestamp"])),
        status.get("version", "<unknown>"),
        *_wide(value),
    ]
    out: dict[str, Any] = {"cells": cells}
    if include == "Object":
        out["object"] = value
    elif include != "None":
        out["object"] = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    return out


def _wide(value: dict[str, Any]) -> list[str]:
    status = value.get("status", {})
    if value["kind"] == DISK:
        return [
            status.get("phase", ""),
            str(value["spec"].get("storage", "")),
            status.get("imageDigest", "<none>")[:19],
        ]
    address = next((a["address"] for a in status.get("addresses", ()) if a["type"] != "Hostname"), "<none>")
    return [status.get("printableStatus", ""), status.get("phase", "<none>"), address]


def table(kind: str, values: list[dict[str, Any]], revision: str, include: str, head: bool = True) -> dict[str, Any]:
    """The answer that kubectl prints; in a watch the columns come with the first event alone."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": revision},
        "columnDefinitions": columns(kind) if head else [],
        "rows": [row(v, include) for v in values],
    }
