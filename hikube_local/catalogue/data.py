"""The shipped tables: instance types, profiles, named images."""

from __future__ import annotations

from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Any

from hikube_local.api.quantities import in_bytes
from hikube_local.records import dataclass

# Series whose memory is huge pages there (common-instancetypes).
HUGE_PAGES = ("cx1", "m1", "n1", "rt1")

# Copies that each class keeps on Hikube.
STORAGE_CLASSES = {"local": 1, "replicated": 3, "replicated-async": 3}


def _table(name: str) -> dict[str, dict[str, Any]]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    rows: dict[str, dict[str, Any]] = yaml.load(Path(__file__).with_name(name).read_bytes(), Loader=loader)
    return rows


@dataclass(frozen=True, slots=True)
class InstanceType:
    """vCPUs and memory (bytes) by name; `hikube`: on Hikube's own page."""

    name: str
    vcpu: int
    memory: int
    hikube: bool

    @property
    def series(self) -> str:
        return self.name.split(".")[0]


@dataclass(frozen=True, slots=True)
class Profile:
    """What an instanceProfile prefers and requires (min_memory in bytes)."""

    name: str
    min_memory: int
    hikube: bool
    os: str = "linux"
    disk_bus: str = "virtio"
    nic: str = "virtio"
    firmware: str = "bios"
    min_vcpu: int = 1
    smm: bool = False
    rng: bool = False
    dedicated_iothread: bool = False
    secure_boot: bool = False
    efi_persistent: bool = False
    cpu_topology: str = "sockets"
    architecture: str = "amd64"
    tpm: dict[str, Any] = field(default_factory=dict)
    input: dict[str, str] = field(default_factory=dict)
    hyperv: list[str] = field(default_factory=list)
    hyperv_spinlock_retries: int = 0
    clock: dict[str, Any] = field(default_factory=dict)
    termination_grace_seconds: int = 30
    spread_ratio: int = 2  # of cpu_topology spread: cores of a socket, of two threads each
    transitional: bool = False  # virtio devices that old drivers know, too
    multiqueue: bool = False
    graphics: bool = True
    balloon: bool = True
    pci_hole64: bool = True


@dataclass(frozen=True, slots=True)
class NamedImage:
    """An image of the catalogue: where it comes from, its default user, the smallest storage in bytes."""

    name: str
    user: str
    smallest: int
    url: str = ""
    reason: str = ""
    recipe: str = ""
    also: str = ""
    format: str = "qcow2"
    hikube: bool = True
    checksum: str = ""


@cache
def instancetypes() -> dict[str, InstanceType]:
    found = {}
    for owner, rows in _table("instancetypes.yaml").items():
        for name, size in rows.items():
            vcpus, memory = size.split(" vCPU, ")
            found[name] = InstanceType(name, int(vcpus), in_bytes(memory), owner == "hikube")
    return found


@cache
def profiles() -> dict[str, Profile]:
    return {
        name: Profile(name=name, **{**row, "min_memory": in_bytes(row["min_memory"])})
        for name, row in _table("profiles.yaml").items()
    }


def huge_pages(instance_type: str) -> bool:
    return instance_type.split(".")[0] in HUGE_PAGES


@cache
def images() -> dict[str, NamedImage]:
    """The named images under both families of names."""
    found: dict[str, NamedImage] = {}
    for name, row in _table("images.yaml").items():
        image = NamedImage(name=name, **{**row, "smallest": in_bytes(row["smallest"])})
        found[name] = image
        if image.also:
            found[image.also] = image
    return found


FIELDS_IN = ("fr",)  # languages with descriptions of the fields


@cache
def fields(language: str = "en") -> dict[str, Any]:
    """What fields mean on Hikube and what differs here, by kind and path (fields.yaml, and its translations)."""
    return _table(f"fields.{language}.yaml" if language in FIELDS_IN else "fields.yaml")


@cache
def cloudinit() -> dict[str, Any]:
    """cloud-init's keys and modules (cloudinit.yaml)."""
    return _table("cloudinit.yaml")


@cache
def headers() -> dict[str, Any]:
    """`headers`: the MIME type that a part's first line stands for; `gone`: the release that took one no more."""
    return _table("headers.yaml")


def default_user(profile: str, image_name: str | None = None) -> str:
    """The user that the image's cloud-init makes, as far as its name or the profile tells."""
    if image_name and (image := images().get(image_name)) and image.user:
        return image.user
    for prefix, user in _PROFILE_USERS.items():
        if profile.startswith(prefix):
            return user
    return "root"


_PROFILE_USERS = {
    "alpine": "alpine",
    "centos": "cloud-user",
    "cirros": "cirros",
    "fedora": "fedora",
    "opensuse": "opensuse",
    "rhel": "cloud-user",
    "sles": "sles",
    "ubuntu": "ubuntu",
    "windows": "Administrator",
}
