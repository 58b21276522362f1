"""VMInstance and VMDisk (apps.cozystack.io/v1alpha1): both dialects of the manifests in one shape; no I/O."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from hikube_local.api.sources import Blank, Content, CopyOf, FromImage, FromUpload, FromUrl

GROUP = "apps.cozystack.io"
API_VERSION = f"{GROUP}/v1alpha1"

INSTANCE = "VMInstance"
DISK = "VMDisk"
DEFAULT_BACKEND = "qemu"  # what carries an object that names nothing else
PLURAL = {INSTANCE: "vminstances", DISK: "vmdisks"}

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


def _quantity(value: Any) -> Any:
    """A quantity may be written as text or as a plain number."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, float) else value


def _disk(value: Any) -> Any:
    """The seed writes disks as names, the chart as objects."""
    return {"name": value} if isinstance(value, str) else value


Quantity = Annotated[StrictStr, BeforeValidator(_quantity)]


class Shape(BaseModel):
    """What both kinds' parts have in common: unknown keys are errors, values are never converted in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class DiskRef(Shape):
    """A VMDisk to attach, and how."""

    name: StrictStr = Field(description="Name of the VMDisk, in the machine's namespace.")
    bus: StrictStr | None = Field(None, description="virtio, sata or scsi; overrides the profile's bus.")
    hotpluggable: StrictBool | None = Field(None, description="Attach and detach while the machine runs.")


class Named(Shape):
    """A reference by name (networks, gpus)."""

    name: StrictStr


class Resources(Shape):
    """CPU and memory instead of an instanceType: cpu is cores a socket."""

    cpu: Quantity = ""
    memory: Quantity = ""
    sockets: Quantity = ""


class Firmware(Shape):
    """Firmware of the machine; a field that the platform is about to take."""

    bootloader: StrictStr | None = None
    secureBoot: StrictBool | None = None
    efiPersistent: StrictBool | None = None


class VMInstanceSpec(Shape):
    """A virtual machine."""

    external: StrictBool = Field(False, description="Whether the machine is reached from outside its tenant.")
    externalMethod: StrictStr = Field("PortList", description="PortList (listed TCP ports) or WholeIP (everything).")
    externalPorts: list[StrictInt] | None = Field(None, description="TCP ports with PortList; absent means 22.")
    externalAllowICMP: StrictBool = Field(True, description="PortList: whether ping passes.")
    running: StrictBool | None = Field(None, description="false leaves the machine defined and stopped.")
    runStrategy: StrictStr | None = Field(None, description="Always, Halted, Manual, RerunOnFailure or Once.")
    instanceType: StrictStr = Field("u1.medium", description="vCPUs and memory by name.")
    instanceProfile: StrictStr = Field("ubuntu", description="Firmware, buses and NIC model by name.")
    disks: list[Annotated[DiskRef, BeforeValidator(_disk)]] = Field([], description="VMDisks in boot order.")
    networks: list[Named] = Field([], description="Further networks.")
    subnets: list[Named] = Field([], description="The old name of networks.")
    gpus: list[Named] = Field([], description="GPUs to pass through.")
    cpuModel: StrictStr = Field("", description="CPU model; empty is the host's.")
    resources: Resources = Field(Resources(), description="CPU and memory instead of an instanceType.")
    sshKeys: list[StrictStr] = Field([], description="Public keys for the image's default user.")
    cloudInit: StrictStr = Field("", description="user-data for cloud-init.")
    cloudInitSeed: StrictStr = Field("", description="A new value makes cloud-init run again at the next boot.")
    firmware: Firmware | None = Field(None, description="A field that the platform is about to take.")

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
        """Networks beside the tenant's own, by name; `subnets` is the old word."""
        return tuple(n.name for n in (self.networks or self.subnets))

    @property
    def has_seed(self) -> bool:
        return bool(self.cloudInit) or any(self.sshKeys)


class Http(Shape):
    url: StrictStr = Field(description="Where the image is downloaded from.")


class Upload(Shape):
    """Waits for a file that the user uploads."""


class Source(Shape):
    """Where a disk's content comes from: nothing, or exactly one of these."""

    http: Http | None = None
    image: Named | None = None
    disk: Named | None = None
    upload: Upload | None = None


class VMDiskSpec(Shape):
    """A disk."""

    source: Source = Field(Source(), description="{} is an empty disk.")
    optical: StrictBool = Field(False, description="Attached as a read-only CD-ROM.")
    storage: Quantity = Field("5Gi", description="Size that the guest sees.")
    storageClass: StrictStr = Field("replicated", description="local, replicated or replicated-async.")

    @property
    def content(self) -> Content:
        """What `source` says; of several, which no valid manifest has, the first."""
        for field in Source.model_fields:
            match getattr(self.source, field):
                case None:
                    continue
                case Http(url=url):
                    return FromUrl(url)
                case Named(name=name):
                    return FromImage(name) if field == "image" else CopyOf(name)
                case Upload():
                    return FromUpload()
                case other:
                    raise TypeError(f"source.{field} is {other!r}, which is no content")
        return Blank()

    @property
    def empty_drive(self) -> bool:
        """A CD-ROM drive with nothing in it."""
        return self.optical and self.content == Blank()


SPECS: dict[str, type[Shape]] = {INSTANCE: VMInstanceSpec, DISK: VMDiskSpec}


class Metadata(BaseModel):
    """What of an object's metadata means something here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: StrictStr
    namespace: StrictStr = ""
    labels: dict[StrictStr, StrictStr] = {}
    annotations: dict[StrictStr, StrictStr] = {}


class Object(BaseModel):
    """One VMInstance or VMDisk as the user asked for it, with what the store adds."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["VMInstance", "VMDisk"]
    namespace: str
    name: str
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
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


def spec_of(kind: str, value: dict[str, Any]) -> VMInstanceSpec | VMDiskSpec:
    """The spec of `kind` from plain data (as the store keeps it)."""
    return SPECS[kind].model_validate(value)  # type: ignore[return-value]


def plain_spec(spec: Shape) -> dict[str, Any]:
    """The spec as the user wrote it: only what was given, in the shape of today's chart."""
    return spec.model_dump(mode="json", exclude_unset=True)
