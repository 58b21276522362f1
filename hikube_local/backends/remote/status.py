"""What an API server says of an object, as `get`, `describe` and `wait` show it; pure.

An endpoint of ours says all of it. A tenant's says what Cozystack and KubeVirt know: whether the chart is installed, whether
the machine runs, where its service is. Nothing there tells when cloud-init is done, so Ready means that the machine runs.
"""

from __future__ import annotations

from typing import Any

from hikube_local.api import names
from hikube_local.api.objects import Object
from hikube_local.backends.remote.api import Beside

_CHART = ("Ready", "Released", "WorkloadsReady")  # Cozystack's own conditions


def conditions(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {str(c.get("type")): c for c in status.get("conditions") or [] if isinstance(c, dict)}


def _condition(kind: str, value: bool | None, reason: str, message: str = "") -> dict[str, Any]:
    told = {True: "True", False: "False", None: "Unknown"}[value]
    return {"type": kind, "status": told, "reason": reason, "message": message, "lastTransitionTime": ""}


def of(raw: dict[str, Any], obj: Object, beside: Beside | None) -> dict[str, Any]:
    """The status. `beside`: None where the object says everything itself."""
    theirs = dict(raw.get("status") or {})
    if beside is None:
        return _ours(theirs)
    return _machine(obj, theirs, beside) if obj.kind == "VMInstance" else _disk(obj, theirs, beside)


def says_all(raw: dict[str, Any]) -> bool:
    """Whether an endpoint of ours wrote it."""
    status = raw.get("status") or {}
    return "printableStatus" in status or "phase" in status


def _ours(theirs: dict[str, Any]) -> dict[str, Any]:
    """Cozystack's Ready is about the chart; ours is about the guest, which stands in WorkloadsReady there."""
    found = conditions(theirs)
    works = found.get("WorkloadsReady", {})
    rest = [c for name, c in found.items() if name not in _CHART]
    first = [_plain({**works, "type": "Ready"})] if works else []
    return {**theirs, "conditions": [*first, *map(_plain, rest)]}


def _plain(condition: dict[str, Any]) -> dict[str, Any]:
    return {"reason": "", "message": "", "lastTransitionTime": "", **condition}


def _refused(theirs: dict[str, Any]) -> str:
    """Why its chart was not installed: text that comes minutes after the object was taken."""
    for name in ("Ready", "Released"):
        found = conditions(theirs).get(name, {})
        if found.get("status") == "False" and "Failed" in str(found.get("reason")):
            return str(found.get("message") or found.get("reason"))
    return ""


def _machine(obj: Object, theirs: dict[str, Any], beside: Beside) -> dict[str, Any]:
    vm = beside.machines.get(names.machine(obj.name), {})
    service, pod = beside.services.get(names.machine(obj.name), {}), beside.pods.get(names.machine(obj.name), {})
    kubevirt: dict[str, Any] = vm.get("status") or {}
    works = conditions(theirs).get("WorkloadsReady", {})
    refused = _refused(theirs)
    running = str(kubevirt.get("printableStatus") or ("Running" if works.get("status") == "True" else ""))
    word = "Terminating" if obj.deletion else running or ("Provisioning" if not refused else "Stopped")
    ready = bool(kubevirt.get("ready")) if kubevirt else works.get("status") == "True"
    said = refused or str(works.get("message") or "") if not ready else ""
    agent = conditions(kubevirt).get("AgentConnected", {}).get("status") == "True"
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    outside = next((str(i["ip"]) for i in ingress if i.get("ip")), "")
    inside = str((pod.get("status") or {}).get("podIP") or "")
    addresses = [{"type": t, "address": a} for t, a in (("ExternalIP", outside), ("InternalIP", inside)) if a]
    addresses.append({"type": "Hostname", "address": names.fqdn(obj.namespace, obj.name)})
    ports = (service.get("spec") or {}).get("ports") or []
    access = [
        {"port": p.get("port"), "protocol": p.get("protocol", "TCP"), "address": outside, "hostPort": p.get("port")}
        for p in ports
        if outside
    ]
    told = [
        _condition("Ready", ready, "Ready" if ready else "ChartFailed" if refused else word, said),
        *(_plain(c) for c in (conditions(kubevirt).get(n) for n in ("RestartRequired", "Paused")) if c),
    ]
    status: dict[str, Any] = {
        "printableStatus": word,
        "ready": ready,
        "failed": True if refused else None,
        "conditions": told,
        "addresses": addresses,
        "access": access,
        "backend": "hikube",
        "startTime": (pod.get("status") or {}).get("startTime"),
        "cause": {"code": "HK822", "message": refused} if refused else None,
        "agentConnected": agent or None,
        "instanceID": names.firmware_uuid(obj.namespace, obj.name, obj.instance.cloudInitSeed),
        "differences": [],
    }
    return {name: value for name, value in status.items() if value is not None}


def _disk(obj: Object, theirs: dict[str, Any], beside: Beside) -> dict[str, Any]:
    volume = beside.volumes.get(names.volume(obj.name), {})
    cdi: dict[str, Any] = volume.get("status") or {}
    refused = _refused(theirs)
    phase = "Terminating" if obj.deletion else "Failed" if refused else str(cdi.get("phase") or "Unknown")
    ready = phase == "Succeeded"
    told = [_condition("Ready", None if phase == "Unknown" else ready, phase, refused)]
    status: dict[str, Any] = {
        "phase": phase,
        "progress": cdi.get("progress"),
        "backend": "hikube",
        "capacity": obj.disk.storage,
        "conditions": told,
        "cause": {"code": "HK822", "message": refused} if refused else None,
    }
    return {name: value for name, value in status.items() if value is not None}
