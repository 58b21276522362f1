"""A VMInstance with its profile and its host, brought to the frozen description that the domain XML is made of; pure."""

from __future__ import annotations

from dataclasses import replace

from hikube_local.api import names
from hikube_local.api.objects import Object, VMInstanceSpec
from hikube_local.api.quantities import in_bytes
from hikube_local.catalogue import data
from hikube_local.errors import HikubeError
from hikube_local.records import dataclass
from hikube_local.render.sizing import Size, requested

SPARE_PORTS = 4  # root ports for disks that are attached later
# Files of a machine's folder.
VARIABLES, SEED, SEED_MARK = "vars.fd", "seed.iso", "seed.json"
SEED_DISK = "cloudinitdisk"


@dataclass(frozen=True, slots=True)
class DiskDevice:
    """A disk as the machine sees it. `backing` is the chain below it, (path, format) from the top."""

    name: str
    path: str
    format: str
    bus: str
    optical: bool = False
    readonly: bool = False
    boot_order: int | None = None
    hot: bool = False  # attached and detached while the machine runs
    backing: tuple[tuple[str, str], ...] = ()
    own_base: bool = True  # the last one below is this machine's alone: QEMU's user may own it


@dataclass(frozen=True, slots=True)
class Places:
    """Paths of one machine's sockets and logs, as QEMU sees them."""

    console: str
    console_log: str
    firmware_log: str
    agent: str
    vnc: str
    variables: str  # of EFI


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything the domain XML says."""

    namespace: str
    name: str
    uuid: str
    size: Size
    profile: data.Profile
    disks: tuple[DiskDevice, ...]
    mac: str
    tap: str  # empty: QEMU's own user network
    places: Places
    further: tuple[tuple[str, str], ...] = ()  # (MAC, tap) of each further NIC
    kvm: bool = True
    tb_cache: int | None = None  # MiB, TCG's translation cache
    unsafe: bool = False  # a throw-away machine: its disks are never flushed
    tsc: int = 0  # Hz of the host's time stamp counter, where it is stable
    cpu_model: str = ""  # with KVM; empty is the host's
    spare_ports: int = SPARE_PORTS
    owner: tuple[int, int] | None = None  # user and group of its QEMU; None: whoever runs libvirt
    oem: tuple[str, ...] = ()  # SMBIOS' OEM strings, from which systemd takes credentials
    page_reporting: bool = True  # the balloon tells of free pages; not where huge pages back the memory there

    @property
    def domain(self) -> str:
        return names.domain(self.namespace, self.name)


def profile_of(spec: VMInstanceSpec) -> data.Profile:
    """The profile, with what the manifest's own `firmware` says instead; HK303 where there is none of its name."""
    profile = data.profiles().get(spec.instanceProfile or "ubuntu")
    if profile is None:
        raise HikubeError("HK303", f"there is no instanceProfile {spec.instanceProfile!r}", fix="use another")
    own = spec.firmware
    if own is None:
        return profile
    efi = profile.firmware == "efi" if own.bootloader is None else own.bootloader.lower() != "bios"
    secure = efi and (profile.secure_boot if own.secureBoot is None else own.secureBoot)
    kept = efi and (profile.efi_persistent if own.efiPersistent is None else own.efiPersistent)
    firmware = "efi" if efi else "bios"
    return replace(profile, firmware=firmware, secure_boot=secure, smm=profile.smm or secure, efi_persistent=kept)


def bus_of(spec: VMInstanceSpec, index: int, optical: bool) -> str:
    """A disk's bus: the manifest's, else sata for an optical one, else the profile's."""
    return spec.disks[index].bus or ("sata" if optical else profile_of(spec).disk_bus)


def places(folder: str, sockets: str) -> Places:
    """The usual names below the machine's folder (logs) and its runtime folder (sockets)."""
    return Places(
        console=f"{sockets}/console.sock",
        console_log=f"{folder}/console.log",
        firmware_log=f"{folder}/firmware.log",
        agent=f"{sockets}/agent.sock",
        vnc=f"{sockets}/vnc.sock",
        variables=f"{folder}/{VARIABLES}",
    )


def portable(obj: Object, optical: dict[str, bool]) -> Machine:
    """The machine as `render` shows it: the same on every host, sizes as the manifest has them.

    `optical` tells for each disk's name whether it is a CD-ROM (unknown names are not).
    """
    spec = obj.instance
    root = "/var/lib/hikube-local"
    devices = [
        DiskDevice(
            name=ref.name,
            path=f"{root}/disks/{obj.namespace}/{ref.name}/disk.qcow2",
            format="qcow2",
            bus=bus_of(spec, i, optical.get(ref.name, False)),
            optical=optical.get(ref.name, False),
            readonly=optical.get(ref.name, False),
            boot_order=i + 1,
        )
        for i, ref in enumerate(spec.disks)
    ]
    folder = f"{root}/machines/{obj.namespace}/{obj.name}"
    if spec.has_seed:
        devices.append(seed_device(spec, f"{folder}/seed.iso"))
    return Machine(
        namespace=obj.namespace,
        name=obj.name,
        uuid=names.firmware_uuid(obj.namespace, obj.name, spec.cloudInitSeed),
        size=requested(spec),
        cpu_model=spec.cpuModel,
        page_reporting=not data.huge_pages(spec.instanceType),
        profile=profile_of(spec),
        disks=tuple(devices),
        mac=names.mac(obj.namespace, obj.name),
        tap=names.tap("", obj.namespace, obj.name),
        further=further(obj, ""),
        places=places(folder, f"/run/hikube-local/{obj.namespace}/{obj.name}"),
    )


def further(obj: Object, root: str) -> tuple[tuple[str, str], ...]:
    """(MAC, tap) of each further NIC, in the manifest's order; `root` names the state root."""
    return tuple(
        (names.mac(obj.namespace, obj.name, n), names.tap(root, obj.namespace, obj.name, n))
        for n in obj.instance.further_networks
    )


def seed_device(spec: VMInstanceSpec, path: str) -> DiskDevice:
    """The seed: the last *disk*, on the profile's bus, not a CD-ROM (some cloud kernels have no AHCI driver)."""
    bus = profile_of(spec).disk_bus
    # libvirt: "readonly sata disks are not supported"; a SATA one is written anew at each start, as KubeVirt does.
    return DiskDevice(SEED_DISK, path, "raw", bus, readonly=bus != "sata")


def storage_bytes(obj: Object) -> int:
    """The size of a VMDisk that the guest sees, a multiple of 512."""
    return -(-in_bytes(obj.disk.storage) // 512) * 512
