"""VMInstance and VMDisk (apps.cozystack.io/v1alpha1): both dialects of the manifests in one shape; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any, NamedTuple

from hikube_local.api import names
from hikube_local.api.shapes import Shape, hints, made, said, value_of
from hikube_local.api.sources import Blank, Content, CopyOf, FromImage, FromUpload, FromUrl
from hikube_local.records import dataclass

GROUP = "apps.cozystack.io"
API_VERSION = f"{GROUP}/v1alpha1"

INSTANCE = "VMInstance"
DISK = "VMDisk"
DEFAULT_BACKEND = "qemu"  # what carries an object that names nothing else
PLURAL = {INSTANCE: "vminstances", DISK: "vmdisks"}

BUSES = ("virtio", "sata", "scsi", "usb")  # of a disk

# What kubectl's and virtctl's users call the two kinds.
KIND_WORDS = {
    **dict.fromkeys(("vminstance", "vminstances", "vm", "vms", "vmi", "vmis"), INSTANCE),
    **dict.fromkeys(("vmdisk", "vmdisks", "dv", "dvs", "disk", "disks"), DISK),
    **{f"{w}{rest}": INSTANCE for w in ("vminstance", "vminstances") for rest in (f".{GROUP}", f".v1alpha1.{GROUP}")},
    **{f"{w}{rest}": DISK for w in ("vmdisk", "vmdisks") for rest in (f".{GROUP}", f".v1alpha1.{GROUP}")},
}


class Key(NamedTuple):
    """What names an object; `ref` is how messages and events write it, its namespace apart."""

    kind: str
    namespace: str
    name: str

    @property
    def ref(self) -> str:
        return f"{self.kind.lower()}/{self.name}"


class RunStrategy(StrEnum):
    """KubeVirt's run strategies."""

    ALWAYS = "Always"
    HALTED = "Halted"
    MANUAL = "Manual"
    RERUN_ON_FAILURE = "RerunOnFailure"
    ONCE = "Once"


@dataclass(frozen=True, kw_only=True)
class DiskRef(Shape):
    """A VMDisk to attach, and how."""

    name: str = said("Name of the VMDisk, in the machine's namespace.")
    bus: str | None = said("virtio, sata, scsi or usb; overrides the profile's bus.", None)
    hotpluggable: bool | None = said("Attach and detach while the machine runs.", None)
    dvName: str | None = said("An upcoming field of the platform: the DataVolume, by its own name.", None)


@dataclass(frozen=True, kw_only=True)
class Named(Shape):
    """A reference by name."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Network(Shape):
    """A network to attach."""

    name: str
    ipAddress: str | None = said("An upcoming field of the platform: the address there.", None)


@dataclass(frozen=True, kw_only=True)
class ExternalIP(Shape):
    """A reserved address; an upcoming field of the platform."""

    claim: str
    target: str = "default"


@dataclass(frozen=True, kw_only=True)
class Resources(Shape):
    """CPU and memory instead of an instanceType: cpu is cores a socket."""

    cpu: str = said("", "", "quantity")
    memory: str = said("", "", "quantity")
    sockets: str = said("", "", "quantity")


@dataclass(frozen=True, kw_only=True)
class Firmware(Shape):
    """Firmware of the machine; an upcoming field of the platform."""

    bootloader: str | None = None
    secureBoot: bool | None = None
    efiPersistent: bool | None = None


@dataclass(frozen=True, kw_only=True)
class VMInstanceSpec(Shape):
    """A virtual machine."""

    external: bool = said("Whether the machine is reached from outside its tenant.", False, live=True)
    externalMethod: str = said("PortList (listed TCP ports) or WholeIP (everything).", "PortList", live=True)
    externalPorts: tuple[int, ...] | None = said("TCP ports with PortList; absent means 22.", None, live=True)
    externalAllowICMP: bool = said("PortList: whether ping passes.", True, live=True)
    running: bool | None = said("false leaves the machine defined and stopped.", None, live=True)
    runStrategy: str | None = said("Always, Halted, Manual, RerunOnFailure or Once.", None, live=True)
    instanceType: str = said("vCPUs and memory by name.", "u1.medium")
    instanceProfile: str = said("Firmware, buses and NIC model by name.", "ubuntu")
    disks: tuple[DiskRef, ...] = said("VMDisks in boot order.", (), "name")
    networks: tuple[Network, ...] = said("Additional networks.", ())
    subnets: tuple[Network, ...] = said("The old name of networks.", ())
    primaryNetwork: str | None = said("An upcoming field of the platform: which of networks is the first NIC's.", None)
    externalIPs: tuple[ExternalIP, ...] = said("An upcoming field of the platform: reserved addresses.", (), live=True)
    schedulingClass: str | None = said("An upcoming field of the platform.", None, live=True)
    gpus: tuple[Named, ...] = said("GPUs to pass through.", ())
    cpuModel: str = said("CPU model; empty means the host's.", "")
    resources: Resources = said("CPU and memory instead of an instanceType.", Resources())
    sshKeys: tuple[str, ...] = said("Public keys for the image's default user.", (), live=True)
    cloudInit: str = said("user-data for cloud-init.", "", live=True)
    cloudInitSeed: str = said("A new value makes cloud-init run again at the next boot.", "", live=True)
    firmware: Firmware | None = said("An upcoming field of the platform.", None)
    netplanDhcp: bool = said("An upcoming field of the platform: network-config that asks for DHCP.", False, live=True)

    @property
    def strategy(self) -> RunStrategy:
        """What keeps the machine running: runStrategy wins over running."""
        if self.runStrategy:
            return RunStrategy(self.runStrategy)
        return RunStrategy.HALTED if self.running is False else RunStrategy.ALWAYS

    @property
    def whole_ip(self) -> bool:
        """Whether every port and protocol of its address reaches the machine."""
        return self.external and self.externalMethod == "WholeIP"

    @property
    def ports(self) -> tuple[int, ...]:
        """The TCP ports that are open from outside (PortList only)."""
        if not self.external or self.externalMethod != "PortList":
            return ()
        return (22,) if self.externalPorts is None else tuple(self.externalPorts)

    @property
    def further_networks(self) -> tuple[str, ...]:
        """Networks beside the first NIC's, by name; `subnets` is the old word."""
        return tuple(n.name for n in self.attached if n.name != self.primaryNetwork)

    @property
    def attached(self) -> tuple[Network, ...]:
        return self.networks or self.subnets

    @property
    def has_seed(self) -> bool:
        """As the chart asks: keys that are all empty make a seed, too."""
        return bool(self.cloudInit or self.sshKeys)

    @property
    def own_size(self) -> bool:
        """Whether complete resources stand instead of the instanceType."""
        return bool(self.resources.cpu and self.resources.memory and self.resources.sockets)


@dataclass(frozen=True, kw_only=True)
class Http(Shape):
    """A download."""

    url: str = said("Where the image is downloaded from.")


@dataclass(frozen=True, kw_only=True)
class Upload(Shape):
    """Waits for a file that the user uploads."""


@dataclass(frozen=True, kw_only=True)
class Pvc(Shape):
    """A volume of the cluster; an upcoming field of the platform."""

    name: str
    namespace: str = ""


@dataclass(frozen=True, kw_only=True)
class Source(Shape):
    """Where a disk's content comes from: nothing, or exactly one of these."""

    http: Http | None = None
    image: Named | None = None
    disk: Named | None = None
    upload: Upload | None = None
    pvc: Pvc | None = None


@dataclass(frozen=True, kw_only=True)
class VMDiskSpec(Shape):
    """A disk."""

    source: Source = said("{} is an empty disk.", Source())
    optical: bool = said("Attached as a read-only CD-ROM.", False)
    storage: str = said("Size that the guest sees.", "5Gi", "quantity", live=True)
    storageClass: str = said("local, replicated or replicated-async.", "replicated")
    schedulingClass: str | None = said("An upcoming field of the platform.", None, live=True)

    @property
    def content(self) -> Content:
        """What `source` says; of several, which no valid manifest has, the first."""
        source = self.source
        if source.pvc is not None:
            # The charts' own names of what is an image or a disk here; a valid manifest has no other.
            if source.pvc.name.startswith(names.IMAGE_VOLUME):
                return FromImage(source.pvc.name.removeprefix(names.IMAGE_VOLUME))
            return CopyOf(source.pvc.name.removeprefix(names.DISK_VOLUME))
        if source.http is not None:
            return FromUrl(source.http.url)
        if source.image is not None:
            return FromImage(source.image.name)
        if source.disk is not None:
            return CopyOf(source.disk.name)
        return FromUpload() if source.upload is not None else Blank()

    @property
    def empty_drive(self) -> bool:
        """A CD-ROM drive with nothing in it."""
        return self.optical and self.content == Blank()


SPECS: dict[str, type[Shape]] = {INSTANCE: VMInstanceSpec, DISK: VMDiskSpec}


@dataclass(frozen=True, kw_only=True)
class Object:
    """One VMInstance or VMDisk as the user asked for it, with what the store adds."""

    kind: str
    namespace: str
    name: str
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    spec: VMInstanceSpec | VMDiskSpec
    backend: str = DEFAULT_BACKEND
    uid: str = ""
    generation: int = 1
    resource_version: int = 0
    created: float = 0.0
    deletion: float | None = None

    @property
    def key(self) -> Key:
        return Key(self.kind, self.namespace, self.name)

    @property
    def ref(self) -> str:
        return self.key.ref

    @property
    def kind_and_name(self) -> str:
        """VMInstance/web: how findings name it; events and commands say its `ref`."""
        return f"{self.kind}/{self.name}"

    @property
    def instance(self) -> VMInstanceSpec:
        assert isinstance(self.spec, VMInstanceSpec)
        return self.spec

    @property
    def disk_keys(self) -> tuple[Key, ...]:
        """The VMDisks that a machine names, in their order."""
        return tuple(Key(DISK, self.namespace, ref.name) for ref in self.instance.disks)

    @property
    def origin(self) -> Key | None:
        """The disk that this one is a copy of."""
        content = self.disk.content
        return Key(DISK, self.namespace, content.disk) if isinstance(content, CopyOf) else None

    @property
    def disk(self) -> VMDiskSpec:
        assert isinstance(self.spec, VMDiskSpec)
        return self.spec


def object_of(body: Mapping[str, Any]) -> Object:
    """The object from plain data, whatever is beside what is known here; TypeError where it is none."""
    types = hints(Object)
    given = {n: value_of(n, types[n], body[n]) for n in types if n in body and n != "spec"}
    if missing := {"kind", "namespace", "name", "spec"} - body.keys():
        raise TypeError(f"it has no {', '.join(sorted(missing))}")
    if given["kind"] not in SPECS:
        raise TypeError(f"its kind is {given['kind']}")
    return Object(**given, spec=spec_of(given["kind"], body["spec"]))


def spec_of(kind: str, value: Mapping[str, Any]) -> VMInstanceSpec | VMDiskSpec:
    """The spec of `kind` from plain data, as `plain_spec` writes it and the store keeps it; TypeError where it is none."""
    return made(SPECS[kind], value)  # type: ignore[return-value]
