"""Names and identities that are functions of the manifest alone (cozystack's packages/apps/vm-instance, KubeVirt)."""

from __future__ import annotations

import hashlib
import re

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"  # the whole object as kubectl sent it last
# Annotations of a VMInstance, ours: which accelerator it is to have.
ACCELERATOR, ACCELERATORS = "hikube.local/accelerator", ("kvm", "tcg")
WARM, SWITCH = "hikube.local/warm", ("true", "false")  # whether it may start from the state after an earlier first boot

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
INSTANCE_MAX = 41
DISK_MAX = 45
DOMAIN = "cozy.local"
# How the charts name the volumes of an image and of a VMDisk; images' are in a namespace of their own.
IMAGE_VOLUME, IMAGES, DISK_VOLUME = "vm-default-images-", "cozy-public", "vm-disk-"


def machine(name: str) -> str:
    """The VirtualMachine's name for VMInstance `name`, as the chart cuts it."""
    return f"vm-instance-{name}"[:63].rstrip("-")


def volume(name: str) -> str:
    """The DataVolume's name for VMDisk `name`."""
    return f"{DISK_VOLUME}{name}"


def domain(namespace: str, name: str) -> str:
    """The libvirt domain's name, as KubeVirt has it."""
    return f"{namespace}_{machine(name)}"


def hostname(name: str) -> str:
    """local-hostname in the seed: the VMI's name, cut at the first dot and at 63 characters."""
    return machine(name).split(".")[0][:63]


def firmware_uuid(namespace: str, name: str, seed: str) -> str:
    """The machine's UUID and cloud-init's instance-id; a new `seed` gives a new one."""
    h = hashlib.sha256(f"{namespace}-vm-instance-{name}-{seed}".encode()).hexdigest()
    return f"{h[0:8]}-{h[8:12]}-4{h[13:16]}-9{h[17:20]}-{h[20:32]}"


def mac(namespace: str, name: str, network: str = "", host: str = "") -> str:
    """A locally administered MAC that stays the same for this namespace and name (and further network, and host)."""
    h = hashlib.sha256(f"mac:{namespace}/{name}{network and '/' + network}{host and '@' + host}".encode()).digest()
    return ":".join(f"{b:02x}" for b in (0x02, *h[:5]))


def tap(root: str, namespace: str, name: str, network: str = "") -> str:
    """The host side of the machine's NIC, at most 15 characters."""
    return "hk" + hashlib.sha256(f"{root}:{namespace}/{name}{network and '/' + network}".encode()).hexdigest()[:11]


def isolated(namespace: str, network: str) -> str:
    """The bridge of a further network that only machines of its Kubernetes namespace sit on."""
    return "hkn" + hashlib.sha256(f"{namespace}/{network}".encode()).hexdigest()[:10]


def bridge(namespace: str) -> str:
    """The bridge of a Kubernetes namespace, at most 15 characters."""
    return "hkb" + hashlib.sha256(namespace.encode()).hexdigest()[:10]


def fqdn(namespace: str, name: str, domain: str = DOMAIN) -> str:
    """The machine's name inside its tenant."""
    return f"{machine(name)}.{namespace}.svc.{domain}"


def user_names(word: str) -> str:
    """A machine as people type it (`vm-instance-web`, `web`) as the VMInstance's name."""
    return word.removeprefix("vm-instance-")
