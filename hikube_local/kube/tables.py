"""The columns of kubectl's tables, by kind: those of Cozystack, KubeVirt, CDI and Kubernetes; pure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hikube_local.kube import kinds
from hikube_local.kube.kinds import Resource
from hikube_local.records import dataclass
from hikube_local.text import age, moment

Value = dict[str, Any]
NONE = "<none>"


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `wide`: with -o wide alone."""

    name: str
    cell: Callable[[Value], object]
    wide: bool = False
    type: str = "string"

    def as_json(self) -> dict[str, Any]:
        format = "name" if self.name == "Name" else ""
        about = {"name": self.name, "type": self.type, "format": format}
        return {**about, "description": self.name, "priority": int(self.wide)}


def _at(*path: str, missing: object = "") -> Callable[[Value], object]:
    def cell(value: Value) -> object:
        found: Any = value
        for step in path:
            found = found.get(step) if isinstance(found, dict) else None
        return missing if found is None else found

    return cell


def _condition(value: Value, kind: str) -> str:
    rows = value.get("status", {}).get("conditions", ())
    return next((str(c["status"]) for c in rows if c["type"] == kind), "")


def _since(value: Value) -> str:
    made = value["metadata"].get("creationTimestamp")
    return age(time.time() - moment(made)) if made else "<unknown>"


NAME, AGE = Column("Name", _at("metadata", "name")), Column("Age", _since)


def _address(value: Value) -> str:
    rows = value.get("status", {}).get("addresses", ())
    return next((str(a["address"]) for a in rows if a["type"] != "Hostname"), NONE)


def _first_interface(value: Value) -> str:
    return next((str(i.get("ipAddress", "")) for i in value.get("status", {}).get("interfaces", ())), "")


def _containers(value: Value) -> str:
    rows = value.get("status", {}).get("containerStatuses", ())
    return f"{sum(bool(c['ready']) for c in rows)}/{len(value['spec'].get('containers', ()))}"


def _external(value: Value) -> str:
    rows = value.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    waits = value["spec"].get("type") == "LoadBalancer"
    return ",".join(i["ip"] for i in rows) or ("<pending>" if waits else NONE)


def _ports(value: Value) -> str:
    rows = value["spec"].get("ports", ())
    return ",".join(f"{p['port']}{':' + str(p['nodePort']) if 'nodePort' in p else ''}/TCP" for p in rows) or NONE


def _selector(value: Value) -> str:
    return ",".join(f"{k}={v}" for k, v in value["spec"].get("selector", {}).items()) or NONE


def _keys(value: Value) -> int:
    return len(value.get("data") or {}) + len(value.get("binaryData") or {})


def _about(value: Value) -> str:
    involved = value["involvedObject"]
    return f"{involved['kind'].lower()}/{involved['name']}"


def _ago(value: Value) -> str:
    return age(time.time() - moment(value["lastTimestamp"]))


_COZYSTACK = (
    NAME,
    Column("Ready", lambda v: _condition(v, "Ready") or "Unknown"),
    AGE,
    Column("Version", _at("status", "version", missing="<unknown>")),
)
# Cozystack's own API server has the same four columns for every kind; what we know beside them comes with -o wide.
COLUMNS: dict[Resource, tuple[Column, ...]] = {
    kinds.MACHINES: (
        *_COZYSTACK,
        Column("Status", _at("status", "printableStatus"), True),
        Column("Phase", _at("status", "phase", missing=NONE), True),
        Column("Address", _address, True),
    ),
    kinds.DISKS: (
        *_COZYSTACK,
        Column("Phase", _at("status", "phase"), True),
        Column("Size", _at("spec", "storage"), True),
        Column("Image", lambda v: str(v.get("status", {}).get("imageDigest", NONE))[:19], True),
    ),
    kinds.VMS: (
        NAME,
        AGE,
        Column("Status", _at("status", "printableStatus")),
        Column("Ready", lambda v: _condition(v, "Ready")),
    ),
    kinds.VMIS: (
        NAME,
        AGE,
        Column("Phase", _at("status", "phase")),
        Column("IP", _first_interface),
        Column("NodeName", _at("status", "nodeName")),
        Column("Ready", lambda v: _condition(v, "Ready")),
        Column("Live-Migratable", lambda v: _condition(v, "LiveMigratable"), True),
        Column("Paused", lambda v: _condition(v, "Paused"), True),
    ),
    kinds.VOLUMES: (
        NAME,
        Column("Phase", _at("status", "phase")),
        Column("Progress", _at("status", "progress")),
        Column("Restarts", lambda v: 0, type="integer"),
        AGE,
    ),
    kinds.OPTIONS: (NAME, Column("Items", lambda v: len(v["spec"].get("items", ())), type="integer")),
    kinds.CLAIMS: (
        NAME,
        Column("Status", _at("status", "phase")),
        Column("Volume", _at("spec", "volumeName")),
        Column("Capacity", _at("status", "capacity", "storage")),
        Column("Access Modes", lambda v: "RWX" if v["status"].get("accessModes") else ""),
        Column("StorageClass", _at("spec", "storageClassName")),
        AGE,
        Column("VolumeMode", _at("spec", "volumeMode"), True),
    ),
    kinds.PODS: (
        NAME,
        Column("Ready", _containers),
        Column("Status", _at("status", "phase")),
        Column("Restarts", lambda v: "0"),
        AGE,
        Column("IP", _at("status", "podIP", missing=NONE), True),
        Column("Node", _at("spec", "nodeName", missing=NONE), True),
    ),
    kinds.SERVICES: (
        NAME,
        Column("Type", _at("spec", "type")),
        Column("Cluster-IP", _at("spec", "clusterIP", missing=NONE)),
        Column("External-IP", _external),
        Column("Port(s)", _ports),
        AGE,
        Column("Selector", _selector, True),
    ),
    kinds.NODES: (
        NAME,
        Column("Status", lambda v: "Ready" if _condition(v, "Ready") == "True" else "NotReady"),
        Column("Roles", lambda v: NONE),
        AGE,
        Column("Version", _at("status", "nodeInfo", "kubeletVersion")),
        Column("OS-Image", _at("status", "nodeInfo", "osImage"), True),
        Column("Kernel-Version", _at("status", "nodeInfo", "kernelVersion"), True),
    ),
    kinds.NAMESPACES: (NAME, Column("Status", _at("status", "phase")), AGE),
    kinds.EVENTS: (
        Column("Last Seen", _ago),
        Column("Type", _at("type")),
        Column("Reason", _at("reason")),
        Column("Object", _about),
        Column("Message", _at("message")),
        Column("Name", _at("metadata", "name"), True),
    ),
    kinds.SECRETS: (NAME, Column("Type", _at("type", missing="Opaque")), Column("Data", _keys, type="integer"), AGE),
    kinds.CONFIGMAPS: (NAME, Column("Data", _keys, type="integer"), AGE),
}
_PLAIN = (NAME, AGE)


def table(
    resource: Resource, values: list[Value], revision: str, include: str = "Metadata", head: bool = True
) -> Value:
    """The answer that kubectl prints; in a watch the columns come with the first event alone.

    `include`: None, Metadata or Object, as the request says.
    """
    columns = COLUMNS.get(resource, _PLAIN)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": revision},
        "columnDefinitions": [c.as_json() for c in columns] if head else [],
        "rows": [_row(columns, v, include) for v in values],
    }


def _row(columns: tuple[Column, ...], value: Value, include: str) -> Value:
    out: Value = {"cells": [c.cell(value) for c in columns]}
    if include == "Object":
        out["object"] = value
    elif include != "None":
        out["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": value["metadata"],
        }
    return out
