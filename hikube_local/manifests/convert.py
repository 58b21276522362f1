"""A retired `VirtualMachine` of apps.cozystack.io becomes the VMDisk and VMInstance that the platform's own migration made.

The mapping is that of February 2026 (cozystack's migration): systemDisk becomes a VMDisk of the machine's own name.
"""

from __future__ import annotations

from typing import Any

from hikube_local.api.objects import API_VERSION, SPECS, VMDiskSpec

# What the old image names stood for.
IMAGES = {
    "ubuntu": "https://cloud-images.ubuntu.com/noble/current/noble-server-cloudimg-amd64.img",
    "cirros": "https://download.cirros-cloud.net/0.6.2/cirros-0.6.2-x86_64-disk.img",
    "alpine": "https://dl-cdn.alpinelinux.org/alpine/v3.20/releases/cloud/nocloud_alpine-3.20.8-x86_64-bios-cloudinit-r0.qcow2",
    "fedora": "https://download.fedoraproject.org/pub/fedora/linux/releases/42/Cloud/x86_64/images/Fedora-Cloud-Base-Generic-42-1.1.x86_64.qcow2",
    "talos": "https://github.com/siderolabs/talos/releases/download/v1.7.6/nocloud-amd64.raw.xz",
}
DEFAULT_IMAGE, DEFAULT_STORAGE, DEFAULT_CLASS = "ubuntu", VMDiskSpec().storage, VMDiskSpec().storageClass


def machine(old: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """([VMDisk, VMInstance], what could not be carried over, in words)."""
    told: list[str] = []
    metadata = {
        k: v
        for k, v in (old.get("metadata") or {}).items()
        if k in ("name", "namespace", "labels", "annotations") and v
    }
    spec = dict(old.get("spec") or {})
    system = spec.pop("systemDisk", None) or {}
    name = metadata.get("name", "")
    image = system.get("image", DEFAULT_IMAGE)
    source: dict[str, Any] = {"http": {"url": IMAGES[image]}} if image in IMAGES else {"image": {"name": image}}
    if image not in IMAGES:
        told.append(
            f"systemDisk.image {image!r} is not one of {', '.join(IMAGES)}: treated as an image of the catalogue"
        )
    disk = {
        "source": source,
        "storage": system.get("storage", DEFAULT_STORAGE),
        "storageClass": system.get("storageClass", DEFAULT_CLASS),
    }
    told += [
        f"systemDisk.{k} is unknown and is left out" for k in system if k not in ("image", "storage", "storageClass")
    ]
    known = SPECS["VMInstance"].names()
    told += [f"spec.{k} is not a field of VMInstance and is left out" for k in spec if k not in known]
    kept = {k: v for k, v in spec.items() if k in known and v is not None}
    if isinstance(kept.get("resources"), dict):
        kept["resources"], more = _resources(kept["resources"], kept)
        told += more
        if not kept["resources"]:
            del kept["resources"]
    if not kept.get("instanceType") and "instanceType" in kept and not kept.get("resources"):
        del kept["instanceType"]  # empty, and nothing beside it: the default
    disks = [{"name": name}, *kept.pop("disks", [])]
    base = {k: v for k, v in metadata.items() if k in ("name", "namespace")}
    return [
        {"apiVersion": API_VERSION, "kind": "VMDisk", "metadata": base, "spec": disk},
        {"apiVersion": API_VERSION, "kind": "VMInstance", "metadata": metadata, "spec": {**kept, "disks": disks}},
    ], told


def _resources(old: dict[str, Any], spec: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(resources in today's form, what was done): requests and limits of the retired kind are its cpu and memory."""
    told = []
    found = {k: v for k, v in old.items() if k in ("cpu", "memory", "sockets") and v not in (None, "")}
    for name in ("requests", "limits"):
        part = old.get(name)
        if not isinstance(part, dict):
            continue
        for key in ("cpu", "memory"):
            if part.get(key) not in (None, "") and key not in found:
                found[key] = part[key]
                told.append(f"resources.{name}.{key} became resources.{key}")
    told += [
        f"resources.{k} is not a field of VMInstance and is left out"
        for k in old
        if k not in ("cpu", "memory", "sockets", "requests", "limits")
    ]
    if found and spec.get("instanceType") and len(found) < 3:
        told.append(f"resources ({', '.join(found)}) is left out: with an instanceType it must be complete")
        return {}, told
    if found and not spec.get("instanceType"):
        found.setdefault("sockets", "1")
        if len(found) < 3:
            told.append(
                f"resources ({', '.join(found)}) is incomplete and is left out: the default instanceType applies"
            )
            return {}, told
    return found, told
