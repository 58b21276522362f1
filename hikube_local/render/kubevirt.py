"""The Kubernetes objects that the platform's charts make of the same manifests (August 2026); pure.

After cozystack's packages/apps/vm-instance and vm-disk: the fields that the charts set and no others.
"""

from __future__ import annotations

from typing import Any, assert_never

from hikube_local.api import names
from hikube_local.api.objects import DISK, Object, RunStrategy
from hikube_local.api.sources import Blank, CopyOf, FromImage, FromUpload, FromUrl
from hikube_local.render import seed

APP = "vm-instance"
PLACEHOLDER = 65535  # the port of a service that has none
GRACE = 30  # seconds, written into every machine by the chart


def objects(obj: Object, optical: dict[str, bool]) -> list[dict[str, Any]]:
    """The objects of one VMDisk or VMInstance; `optical` tells for each disk's name whether it is a CD-ROM."""
    if obj.kind == DISK:
        return [_volume(obj)]
    out = [_machine(obj, optical), _service(obj)]
    name = names.machine(obj.name)
    if obj.instance.sshKeys:
        keys = {f"key{i}": key for i, key in enumerate(obj.instance.sshKeys)}
        out.append(_secret(obj, f"{name}-ssh-keys", keys))
    if obj.instance.has_seed:
        out.append(_secret(obj, f"{name}-cloud-init", {"userdata": seed.user_data(obj).decode()}))
        if obj.instance.netplanDhcp:
            out.append(_secret(obj, f"{name}-network-config", {"networkdata": seed.NETWORK.decode()}))
    return out


def file_name(resource: dict[str, Any]) -> str:
    return f"{resource['kind']}-{resource['metadata']['name']}.yaml"


def _metadata(obj: Object, name: str, **more: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "namespace": obj.namespace, **{k: v for k, v in more.items() if v}}


def _labels(obj: Object) -> dict[str, str]:
    return {"app.kubernetes.io/name": APP, "app.kubernetes.io/instance": f"{APP}-{obj.name}"}


def _secret(obj: Object, name: str, data: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(obj, name), "stringData": data}


def _machine(obj: Object, optical: dict[str, bool]) -> dict[str, Any]:
    spec = obj.instance
    sized = _sizing(obj)
    body: dict[str, Any] = {"runStrategy": str(spec.strategy or RunStrategy.ALWAYS)}
    if spec.instanceType and not spec.own_size:
        body["instancetype"] = {"kind": "VirtualMachineClusterInstancetype", "name": spec.instanceType}
    if spec.instanceProfile:
        body["preference"] = {"kind": "VirtualMachineClusterPreference", "name": spec.instanceProfile}
    template: dict[str, Any] = {
        "domain": {
            **sized,
            "firmware": {"uuid": names.firmware_uuid(obj.namespace, obj.name, spec.cloudInitSeed)},
            "devices": _devices(obj, optical),
            "machine": {"type": ""},
        }
    }
    if spec.sshKeys:
        secret = {"secretName": f"{names.machine(obj.name)}-ssh-keys"}
        access = {"source": {"secret": secret}, "propagationMethod": {"noCloud": {}}}
        template["accessCredentials"] = [{"sshPublicKey": access}]
    template["terminationGracePeriodSeconds"] = GRACE
    template["volumes"] = [
        {"name": f"disk-{d.name}", "dataVolume": {"name": d.dvName or names.volume(d.name)}} for d in spec.disks
    ]
    if spec.has_seed:
        ref = {"secretRef": {"name": f"{names.machine(obj.name)}-cloud-init"}}
        if spec.netplanDhcp:
            ref["networkDataSecretRef"] = {"name": f"{names.machine(obj.name)}-network-config"}
        template["volumes"].append({"name": "cloudinitdisk", "cloudInitNoCloud": ref})
    template["networks"] = [
        {"name": "default", "pod": {}},
        *({"name": n, "multus": {"networkName": f"{obj.namespace}/{n}"}} for n in spec.further_networks),
    ]
    annotations = {"kubevirt.io/allow-pod-bridge-network-live-migration": "true"}
    annotations |= {
        f"{n.name}.{obj.namespace}.ovn.kubernetes.io/ip_address": n.ipAddress for n in spec.attached if n.ipAddress
    }
    if spec.primaryNetwork:
        annotations["sdn.cozystack.io/vpc"] = f"{obj.namespace}/{spec.primaryNetwork}"
    metadata = {"annotations": annotations, "labels": _labels(obj)}
    body["template"] = {"metadata": metadata, "spec": template}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": _metadata(obj, names.machine(obj.name), labels=_labels(obj)),
        "spec": body,
    }


def _sizing(obj: Object) -> dict[str, Any]:
    """domain.cpu and domain.resources, as far as the manifest says something about them."""
    r, out = obj.instance.resources, {}
    cpu: dict[str, Any] = {"cores": int(r.cpu), "sockets": int(r.sockets)} if r.cpu and r.sockets else {}
    if obj.instance.cpuModel:
        cpu["model"] = obj.instance.cpuModel
    if cpu:
        out["cpu"] = cpu
    if r.memory:
        out["resources"] = {"requests": {"memory": r.memory}}
    return out


def _devices(obj: Object, optical: dict[str, bool]) -> dict[str, Any]:
    spec = obj.instance
    out: dict[str, Any] = {}
    if spec.gpus:
        out["gpus"] = [{"name": f"gpu{i}", "deviceName": g.name} for i, g in enumerate(spec.gpus, 1)]
    out["disks"] = [
        {
            "name": f"disk-{d.name}",
            "cdrom" if optical.get(d.name) else "disk": {"bus": d.bus} if d.bus else {},
            "bootOrder": i,
        }
        for i, d in enumerate(spec.disks, 1)
    ]
    if spec.has_seed:
        out["disks"].append({"name": "cloudinitdisk", "disk": {}})
    out["interfaces"] = [{"name": n, "bridge": {}} for n in ("default", *spec.further_networks)]
    return out


def _service(obj: Object) -> dict[str, Any]:
    """A LoadBalancer, or the headless service that gives the machine its name."""
    spec = obj.instance
    labels = {"apps.cozystack.io/user-service": "true", **_labels(obj)}
    annotations: dict[str, str] = {}
    body: dict[str, Any] = {"type": "LoadBalancer" if spec.external else "ClusterIP"}
    ports: list[dict[str, Any]] = [{"port": PLACEHOLDER}]
    if spec.external:
        labels["service.kubernetes.io/service-proxy-name"] = "cozy-proxy"
        annotations["networking.cozystack.io/wholeIP"] = "true" if spec.whole_ip else "false"
        if not spec.whole_ip:
            annotations["networking.cozystack.io/allowICMP"] = "true" if spec.externalAllowICMP else "false"
        if spec.externalIPs:
            annotations["local.sdn.cozystack.io/ip-address-claim"] = spec.externalIPs[0].claim
        body["externalTrafficPolicy"] = "Local"
        # The chart's default, also with WholeIP, which does not ask.
        listed = (22,) if spec.externalPorts is None else spec.externalPorts
        if listed:
            ports = [{"name": f"port-{p}", "port": p, "targetPort": p} for p in listed]
    else:
        body["clusterIP"] = "None"
    body |= {"selector": _labels(obj), "ports": ports}
    name = names.machine(obj.name)
    metadata = _metadata(obj, name, labels=labels, annotations=annotations)
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": body}


def _volume(obj: Object) -> dict[str, Any]:
    spec, name = obj.disk, names.volume(obj.name)
    annotations = {"vm-disk.cozystack.io/optical": "true" if spec.optical else "false"}
    source: dict[str, Any]
    match spec.content:
        case FromImage(image):
            source = {"pvc": {"name": f"{names.IMAGE_VOLUME}{image}", "namespace": names.IMAGES}}
        case FromUrl(url):
            source = {"http": {"url": url}}
        case FromUpload():
            source = {"upload": {}}
            annotations = {"cdi.kubevirt.io/storage.bind.immediate.requested": "", **annotations}
        case CopyOf(disk):
            source = {"pvc": {"name": names.volume(disk), "namespace": obj.namespace}}
        case Blank():
            source = {"blank": {}}
        case other:
            assert_never(other)
    storage: dict[str, Any] = {"resources": {"requests": {"storage": spec.storage}}}
    if spec.storageClass:
        storage["storageClassName"] = spec.storageClass
    return {
        "apiVersion": "cdi.kubevirt.io/v1beta1",
        "kind": "DataVolume",
        "metadata": _metadata(obj, name, labels={"app.kubernetes.io/instance": name}, annotations=annotations),
        "spec": {"contentType": "kubevirt", "source": source, "storage": storage},
    }
