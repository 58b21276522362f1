"""Of a VMInstance: KubeVirt's VirtualMachine and VirtualMachineInstance, the pod that runs it, its service; pure.

Fields as KubeVirt 1.8 and Kubernetes fill them, as far as they mean something here.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping

from hikube_local.api import names
from hikube_local.api.objects import Object
from hikube_local.kube.kinds import PODS, SERVICES, VMIS, VMS
from hikube_local.kube.projections import Value, begin, condition, found, of_boot, owned, uid
from hikube_local.kube.projections.host import node_name
from hikube_local.render import kubevirt
from hikube_local.render.sizing import Unsized, requested

RUNNING = ("Running", "Paused")
STARTING = ("Starting",)


def _labels(obj: Object) -> dict[str, str]:
    name = names.machine(obj.name)
    return {"app.kubernetes.io/name": kubevirt.APP, "app.kubernetes.io/instance": name, "vm.kubevirt.io/name": name}


def _word(seen: Value) -> str:
    return str(seen["status"].get("printableStatus", ""))


def _since(seen: Value) -> str:
    return str(seen["status"].get("startTime") or seen["metadata"]["creationTimestamp"])


def _address(seen: Value, type: str = "InternalIP") -> str:
    return next((a["address"] for a in seen["status"].get("addresses", ()) if a["type"] == type), "")


def _rendered(obj: Object, optical: Mapping[str, bool], kind: str) -> Value:
    return next(o for o in kubevirt.objects(obj, dict(optical)) if o["kind"] == kind)


def virtual_machine(obj: Object, seen: Value, optical: Mapping[str, bool]) -> tuple[Value, bool]:
    rendered = _rendered(obj, optical, "VirtualMachine")
    value = begin(VMS, obj, seen, names.machine(obj.name), **rendered["metadata"].get("labels", {}))
    value["metadata"]["generation"] = obj.generation
    ready, required = found(seen, "Ready"), found(seen, "RestartRequired")
    on = _word(seen) in RUNNING
    since = ready.get("lastTransitionTime", _since(seen))
    reason, message = ("", "") if on else ("VMINotExists", "VMI does not exist")
    conditions = [condition("Ready", on and _word(seen) == "Running", since, reason, message)]
    if seen["status"].get("agentConnected") and on:
        conditions.append(condition("AgentConnected", True, since))
    if _word(seen) == "Paused":
        conditions.append(condition("Paused", True, since, "PausedByUser", "VMI was paused by user"))
    if required:
        conditions.append(condition("RestartRequired", True, since, "RestartRequired", required["message"]))
    status = {
        "printableStatus": _word(seen),
        "created": on,
        "ready": on and _word(seen) == "Running",
        "runStrategy": str(obj.instance.strategy),
        "conditions": conditions,
        "observedGeneration": obj.generation,
    }
    return {**value, "spec": rendered["spec"], "status": status}, True


def instance(obj: Object, seen: Value, optical: Mapping[str, bool]) -> tuple[Value, bool]:
    name = names.machine(obj.name)
    value = owned(begin(VMIS, obj, seen, name, **_labels(obj)), VMS, name, uid(obj, VMS.kind))
    since = value["metadata"]["creationTimestamp"] = _since(seen)
    value["metadata"]["uid"] = of_boot(obj, VMIS.kind, since)
    on, paused = _word(seen) in RUNNING, _word(seen) == "Paused"
    conditions = [
        condition("Ready", on and not paused, since, "" if on else "GuestNotRunning"),
        condition("LiveMigratable", False, since, "DisksNotLiveMigratable", "one host has nowhere to migrate to"),
    ]
    if seen["status"].get("agentConnected") and on:
        conditions.append(condition("AgentConnected", True, since))
    if paused:
        conditions.append(condition("Paused", True, since, "PausedByUser", "VMI was paused by user"))
    interface = {"name": "default", "mac": names.mac(obj.namespace, obj.name), "infoSource": "domain", "queueCount": 1}
    if ip := _address(seen):
        interface |= {"ipAddress": ip, "ipAddresses": [ip]}
    phase = "Running" if on else "Scheduling"
    status = {
        "phase": phase,
        "nodeName": node_name() if on else "",
        "interfaces": [interface] if on else [],
        "conditions": conditions,
        "phaseTransitionTimestamps": [{"phase": phase, "phaseTransitionTimestamp": since}],
        "guestOSInfo": {},
        "qosClass": "Burstable",
    }
    spec = _rendered(obj, optical, "VirtualMachine")["spec"]["template"]["spec"]
    return {**value, "spec": spec, "status": status}, _word(seen) in (*RUNNING, *STARTING)


def pod_name(obj: Object) -> str:
    """virt-launcher's, whose end here is the same for one VMInstance at all its starts."""
    tail = hashlib.sha256(obj.uid.encode()).hexdigest()
    return f"virt-launcher-{names.machine(obj.name)}-{''.join('bcdfghjklm'[int(c, 16) % 10] for c in tail[:5])}"


def pod(obj: Object, seen: Value, optical: Mapping[str, bool]) -> tuple[Value, bool]:
    name = names.machine(obj.name)
    labels = _labels(obj) | {"kubevirt.io": "virt-launcher", "vm.kubevirt.io/name": name}
    since = _since(seen)
    value = owned(begin(PODS, obj, seen, pod_name(obj), **labels), VMIS, name, of_boot(obj, VMIS.kind, since))
    value["metadata"] |= {"creationTimestamp": since, "uid": of_boot(obj, PODS.kind, since)}
    on = _word(seen) in RUNNING
    requests = {}
    with contextlib.suppress(Unsized):  # what `serve --faithful` once accepted may have no size
        requests = {"memory": str(requested(obj.instance).memory)}
    container = {
        "name": "compute",
        "image": "hikube-local",
        "resources": {"requests": requests, "limits": {}},
        "command": ["qemu-system-x86_64"],
    }
    ip = _address(seen)
    status = {
        "phase": "Running" if on else "Pending",
        "startTime": since,
        "conditions": [
            {k: v for k, v in condition(type, on, since).items() if k != "reason"}
            for type in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
        ],
        "containerStatuses": [
            {
                "name": "compute",
                "ready": on,
                "started": on,
                "restartCount": 0,
                "image": "hikube-local",
                "imageID": "",
                "state": {"running": {"startedAt": since}} if on else {"waiting": {"reason": "ContainerCreating"}},
            }
        ],
        "hostIP": "127.0.0.1",
        "qosClass": "Burstable",
        **({"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {}),
    }
    spec = {"nodeName": node_name(), "containers": [container], "restartPolicy": "Never", "hostname": name}
    return {**value, "spec": spec, "status": status}, _word(seen) in (*RUNNING, *STARTING)


def service(obj: Object, seen: Value, optical: Mapping[str, bool]) -> tuple[Value, bool]:
    """Of one that is reached from outside the nodePort is the host's port."""
    rendered = _rendered(obj, optical, "Service")
    meta = rendered["metadata"]
    value = begin(SERVICES, obj, seen, meta["name"], **meta["labels"])
    if meta.get("annotations"):
        value["metadata"]["annotations"] = meta["annotations"]
    access = seen["status"].get("access", ())
    carried = {a["port"]: a["hostPort"] for a in access if a["protocol"] == "TCP"}
    ports = [
        {"protocol": "TCP", "targetPort": p["port"], **p}
        | ({"nodePort": carried[p["port"]]} if p["port"] in carried else {})
        for p in rendered["spec"]["ports"]
    ]
    ip = access[0]["address"] if access else _address(seen, "ExternalIP")
    spec = {**rendered["spec"], "ports": ports, "sessionAffinity": "None"}
    outside = {"ingress": [{"ip": ip}]} if ip and obj.instance.external else {}
    return {**value, "spec": spec, "status": {"loadBalancer": outside}}, True
