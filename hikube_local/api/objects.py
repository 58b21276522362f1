"""VMInstance and VMDisk (apps.cozystack.io/v1alpha1): both dialects of the manifests in one shape; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, NamedTuple, Self

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


def said(description: str, default: Any = MISSING) -> Any:
    """A field that users write, and what it is; required without a default."""
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What both kinds' parts have in common. Values were judged where a manifest was read (manifests/models.py).

    `given`: the fields that the user wrote; everything else has its default.
    """

    given: frozenset[str] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.given is None:
            written = (f.name for f in fields(self) if f.name != "given" and getattr(self, f.name) != f.default)
            object.__setattr__(self, "given", frozenset(written))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What a user may write in it, in order."""
        return tuple(f.name for f in fields(cls) if f.name != "given")

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The fields that have a value of their own where nothing is given, as plain data."""
        return {f.name: _plain(f.default) for f in fields(cls) if f.default not in (None, MISSING)}

    def but(self, **changes: Any) -> Self:
        """The same with these fields given otherwise."""
        return replace(self, **changes, given=(self.given or frozenset()) | changes.keys())


@dataclass(frozen=True, kw_only=True)
class DiskRef(Shape):
    """A VMDisk to attach, and how."""

    name: str = said("Name of the VMDisk, in the machine's namespace.")
    bus: str | None = said("virtio, sata or scsi; overrides the profile's bus.", None)
    hotpluggable: bool | None = said("Attach and detach while the machine runs.", None)


@dataclass(frozen=True, kw_only=True)
class Named(Shape):
    """A reference by name (networks, gpus)."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Resources(Shape):
    """CPU and memory instead of an instanceType: cpu is cores a socket."""

    cpu: str = ""
    memory: str = ""
    sockets: str = ""


@dataclass(frozen=True, kw_only=True)
class Firmware(Shape):
    """Firmware of the machine; a field that the platform is about to take."""

    bootloader: str | None = None
    secureBoot: bool | None = None
    efiPersistent: bool | None = None


@dataclass(frozen=True, kw_only=True)
class VMInstanceSpec(Shape):
    """A virtual machine."""

    external: bool = said("Whether the machine is reached from outside its tenant.", False)
    externalMethod: str = said("PortList (listed TCP ports) or WholeIP (everything).", "PortList")
    externalPorts: tuple[int, ...] | None = said("TCP ports with PortList; absent means 22.", None)
    externalAllowICMP: bool = said("PortList: whether ping passes.", True)
    running: bool | None = said("false leaves the machine defined and stopped.", None)
    runStrategy: str | None = said("Always, Halted, Manual, RerunOnFailure or Once.", None)
    instanceType: str = said("vCPUs and memory by name.", "u1.medium")
    instanceProfile: str = said("Firmware, buses and NIC model by name.", "ubuntu")
    disks: tuple[DiskRef, ...] = said("VMDisks in boot order.", ())
    networks: tuple[Named, ...] = said("Additional networks.", ())
    subnets: tuple[Named, ...] = said("The old name of networks.", ())
    gpus: tuple[Named, ...] = said("GPUs to pass through.", ())
    cpuModel: str = said("CPU model; empty means the host's.", "")
    resources: Resources = said("CPU and memory instead of an instanceType.", Resources())
    sshKeys: tuple[str, ...] = said("Public keys for the image's default user.", ())
    cloudInit: str = said("user-data for cloud-init.", "")
    cloudInitSeed: str = said("A new value makes cloud-init run again at the next boot.", "")
    firmware: Firmware | None = said("An upcoming field of the platform.", None)

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


@dataclass(frozen=True, kw_only=True)
class Http(Shape):
    """A download."""

    url: str = said("Where the image is downloaded from.")


@dataclass(frozen=True, kw_only=True)
class Upload(Shape):
    """Waits for a file that the user uploads."""


@dataclass(frozen=True, kw_only=True)
class Source(Shape):
    """Where a disk's content comes from: nothing, or exactly one of these."""

    http: Http | None = None
    image: Named | None = None
    disk: Named | None = None
    upload: Upload | None = None


@dataclass(frozen=True, kw_only=True)
class VMDiskSpec(Shape):
    """A disk."""

    source: Source = said("{} is an empty disk.", Source())
    optical: bool = said("Attached as a read-only CD-ROM.", False)
    storage: str = said("Size that the guest sees.", "5Gi")
    storageClass: str = said("local, replicated or replicated-async.", "replicated")

    @property
    def content(self) -> Content:
        """What `source` says; of several, which no valid manifest has, the first."""
        for name in Source.names():
            match getattr(self.source, name):
                case None:
                    continue
                case Http(url=url):
                    return FromUrl(url)
                case Named(name=of):
                    return FromImage(of) if name == "image" else CopyOf(of)
                case Upload():
                    return FromUpload()
                case other:
                    raise TypeError(f"source.{name} is {other!r}, which is no content")
        return Blank()

    @property
    def empty_drive(self) -> bool:
        """A CD-ROM drive with nothing in it."""
        return self.optical and self.content == Blank()


SPECS: dict[str, type[Shape]] = {INSTANCE: VMInstanceSpec, DISK: VMDiskSpec}


# The part that a field holds, one or a list of them; every other field is a plain value.
PARTS: dict[str, type[Shape]] = {
    "disks": DiskRef,
    "networks": Named,
    "subnets": Named,
    "gpus": Named,
    "resources": Resources,
    "firmware": Firmware,
    "source": Source,
    "http": Http,
    "image": Named,
    "disk": Named,
    "upload": Upload,
}


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


def spec_of(kind: str, value: Mapping[str, Any]) -> VMInstanceSpec | VMDiskSpec:
    """The spec of `kind` from plain data, as `plain_spec` writes it and the store keeps it; TypeError where it is none."""
    return _made(SPECS[kind], value)  # type: ignore[return-value]


def _made(shape: type[Shape], value: Any) -> Shape:
    if not isinstance(value, Mapping):
        raise TypeError(f"{shape.__name__} is no mapping")
    kinds = {f.name: str(f.type) for f in fields(shape)}
    if unknown := value.keys() - kinds.keys():
        raise TypeError(f"{shape.__name__} has no {', '.join(sorted(unknown))}")
    return shape(**{name: _part(name, kinds[name], v) for name, v in value.items()}, given=frozenset(value))


def _part(name: str, kind: str, value: Any) -> Any:
    """A value of the field `name`, whose annotation is `kind`."""
    if isinstance(value, list):
        return tuple(_part(name, kind, v) for v in value)
    if value is None:
        return None
    if name in PARTS:
        return _made(PARTS[name], value)
    if type(value).__name__ not in kind:
        raise TypeError(f"{name} is a {type(value).__name__}")
    return value


def plain_spec(spec: Shape) -> dict[str, Any]:
    """The spec as the user wrote it: only what was given, in the shape of today's chart."""
    return {name: _plain(getattr(spec, name)) for name in spec.names() if name in (spec.given or ())}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return plain_spec(value) if isinstance(value, Shape) else value
