"""What the platform makes of VMInstances and VMDisks, and what stands around them, as read-only objects; pure."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from hikube_local.api.objects import Object
from hikube_local.kube.kinds import Resource

Value = dict[str, Any]
# Of an object and its Kubernetes form with status (engine.status), with the disks that are CD-ROMs by their names:
# the projected object, and whether it is there at this moment.
Projection = Callable[[Object, Value, Mapping[str, bool]], tuple[Value, bool]]


def uid(obj: Object, kind: str) -> str:
    """Of an object of this kind that is made of `obj`; always the same."""
    return str(uuid.uuid5(uuid.UUID(obj.uid), kind))


def of_boot(obj: Object, kind: str, since: str) -> str:
    """The uid of an object of this kind that each boot makes anew."""
    return str(uuid.uuid5(uuid.UUID(obj.uid), f"{kind} {since}"))


def begin(resource: Resource, obj: Object, seen: Value, name: str, **labels: str) -> Value:
    """Kind and metadata of an object that is made of `obj`."""
    meta = seen["metadata"]
    metadata = {
        "name": name,
        "namespace": obj.namespace,
        "uid": uid(obj, resource.kind),
        "resourceVersion": meta["resourceVersion"],
        "creationTimestamp": meta["creationTimestamp"],
    }
    if labels:
        metadata["labels"] = labels
    if "deletionTimestamp" in meta:
        metadata["deletionTimestamp"] = meta["deletionTimestamp"]
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


def owned(value: Value, by: Resource, name: str, uid: str) -> Value:
    """With its owner named, as controllers do."""
    reference = {"apiVersion": by.api_version, "kind": by.kind, "name": name, "uid": uid}
    value["metadata"]["ownerReferences"] = [{**reference, "controller": True, "blockOwnerDeletion": True}]
    return value


def condition(type: str, value: bool, since: str, reason: str = "", message: str = "") -> Value:
    return {
        "type": type,
        "status": "True" if value else "False",
        "reason": reason,
        "message": message,
        "lastProbeTime": None,
        "lastTransitionTime": since,
    }


def found(seen: Value, type: str) -> Value:
    """A condition of ours, or nothing."""
    return next((c for c in seen["status"].get("conditions", ()) if c["type"] == type), {})
