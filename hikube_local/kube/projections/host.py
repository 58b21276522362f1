"""What stands around machines: the node that is this host, and the instance types and preferences of the catalogue."""

from __future__ import annotations

import functools
import os
import platform
import re
import socket
import uuid
from typing import Any

from hikube_local.catalogue import data
from hikube_local.host import facts
from hikube_local.kube.kinds import NODES, PREFERENCES, TYPES, Resource
from hikube_local.kube.projections import Value
from hikube_local.text import timestamp


@functools.cache
def node_name() -> str:
    """This host's name, as a node may be called."""
    name = re.sub(r"[^a-z0-9.-]", "-", socket.gethostname().lower()).strip("-.")
    return name[:63] or "localhost"


def _fixed(resource: Resource, name: str, made: float) -> Value:
    """Kind and metadata of an object that nobody makes and nobody changes."""
    metadata = {
        "name": name,
        "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.{resource.full}")),
        "resourceVersion": "1",
        "creationTimestamp": timestamp(made),
    }
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


def node(cpus: int, memory: int, version: str) -> Value:
    """This host: processors that we may use, memory in bytes. Its age is since the host started."""
    booted = facts.booted()
    value = _fixed(NODES, node_name(), booted)
    value["metadata"]["labels"] = {"kubernetes.io/hostname": node_name(), "kubernetes.io/arch": "amd64"}
    capacity = {"cpu": str(cpus), "memory": f"{memory // 1024}Ki", "pods": "110"}
    info = {
        "kernelVersion": platform.release(),
        "osImage": _os(),
        "architecture": "amd64",
        "operatingSystem": "linux",
        "kubeletVersion": version,
        "containerRuntimeVersion": "qemu",
        **{name: "" for name in ("machineID", "systemUUID", "bootID", "kubeProxyVersion")},
    }
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "this host"}
    status = {
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [{**ready, "lastHeartbeatTime": timestamp(booted), "lastTransitionTime": timestamp(booted)}],
        "addresses": [
            {"type": "InternalIP", "address": "127.0.0.1"},
            {"type": "Hostname", "address": node_name()},
        ],
        "nodeInfo": info,
    }
    return {**value, "spec": {}, "status": status}


def _os() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


@functools.cache
def instance_types() -> list[Value]:
    made = os.stat(data.__file__).st_mtime
    rows = sorted(data.instancetypes().values(), key=lambda t: t.name)
    return [
        {
            **_fixed(TYPES, t.name, made),
            "spec": {"cpu": {"guest": t.vcpu}, "memory": {"guest": f"{t.memory >> 20}Mi"}},
        }
        for t in rows
    ]


@functools.cache
def preferences() -> list[Value]:
    made = os.stat(data.__file__).st_mtime
    out = []
    for p in sorted(data.profiles().values(), key=lambda p: p.name):
        spec: dict[str, Any] = {
            "cpu": {"preferredCPUTopology": p.cpu_topology},
            "devices": {"preferredDiskBus": p.disk_bus, "preferredInterfaceModel": p.nic},
            "requirements": {
                "cpu": {"guest": p.min_vcpu},
                "memory": {"guest": f"{p.min_memory >> 20}Mi"},
                "architecture": p.architecture,
            },
            "preferredTerminationGracePeriodSeconds": p.termination_grace_seconds,
        }
        if p.firmware == "efi":
            efi = {"secureBoot": p.secure_boot, **({"persistent": True} if p.efi_persistent else {})}
            spec["firmware"] = {"preferredEfi": efi}
        out.append({**_fixed(PREFERENCES, p.name, made), "spec": spec})
    return out
