"""Of a VMDisk: CDI's DataVolume and the claim that holds its content; pure."""

from __future__ import annotations

from collections.abc import Mapping

from hikube_local.api import names
from hikube_local.api.objects import Object
from hikube_local.api.sources import FromUpload
from hikube_local.kube.kinds import CLAIMS, VOLUMES
from hikube_local.kube.projections import Value, begin, condition, found, owned, uid
from hikube_local.render import kubevirt

# virtctl's image-upload asks the claim how far its content is.
POD_PHASE = "cdi.kubevirt.io/storage.pod.phase"
CONTENT = {"cdi.kubevirt.io/storage.contentType": "kubevirt"}


def data_volume(obj: Object, seen: Value, optical: Mapping[str, bool]) -> tuple[Value, bool]:
    (rendered,) = kubevirt.objects(obj, {})
    meta, status = rendered["metadata"], seen["status"]
    value = begin(VOLUMES, obj, seen, meta["name"], **meta["labels"])
    value["metadata"]["annotations"] = meta["annotations"]
    phase = status.get("phase", "Pending")
    ready = found(seen, "Ready")
    since = ready.get("lastTransitionTime", value["metadata"]["creationTimestamp"])
    done = phase == "Succeeded"
    conditions = [
        condition("Bound", done, since, "Bound" if done else "Pending"),
        condition("Ready", done, since, "" if done else phase, "" if done else ready.get("message", "")),
        condition("Running", phase.endswith("InProgress"), since, "Completed" if done else phase),
    ]
    body = {
        "phase": phase,
        "progress": status.get("progress", "N/A"),
        "claimName": meta["name"],
        "conditions": conditions,
    }
    return {**value, "spec": rendered["spec"], "status": body}, True


def claim(obj: Object, seen: Value, optical: Mapping[str, bool]) -> tuple[Value, bool]:
    name = names.volume(obj.name)
    value = owned(
        begin(CLAIMS, obj, seen, name, **{"app": "containerized-data-importer"}), VOLUMES, name, uid(obj, VOLUMES.kind)
    )
    done = seen["status"].get("phase") == "Succeeded"
    waits = seen["status"].get("phase") == "UploadReady"
    value["metadata"]["annotations"] = {
        **CONTENT,
        POD_PHASE: "Succeeded" if done else "Running" if waits else "Pending",
        **({"cdi.kubevirt.io/storage.pod.ready": "true"} if waits else {}),
        **({"cdi.kubevirt.io/storage.upload.target": ""} if isinstance(obj.disk.content, FromUpload) else {}),
    }
    asked = obj.disk.storage
    spec = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": asked}},
        "storageClassName": obj.disk.storageClass,
        "volumeMode": "Block",
        **({"volumeName": f"pvc-{value['metadata']['uid']}"} if done else {}),
    }
    status: Value = {"phase": "Bound" if done else "Pending"}
    if done:
        status |= {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": str(seen["status"].get("capacity", asked))},
        }
    return {**value, "spec": spec, "status": status}, True
