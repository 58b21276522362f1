"""The libvirt domain XML of a machine, built as a tree, shaped as KubeVirt's own (layout.py has the rest of that); pure."""

from __future__ import annotations

import hashlib
import posixpath
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from hikube_local.render import fit, layout
from hikube_local.render.machine import DiskDevice, Machine

NAMESPACE = "https://hikube-local.invalid/domain/1"
ALIAS = "ua-"  # libvirt keeps aliases of users that begin so
_TARGET = {"virtio": "vd", "sata": "sd", "scsi": "sd", "usb": "sd"}
# What QEMU's emulation does slowly once a guest knows of it: `rep movsb`, a byte at a time, page tables of five levels,
# and protection keys, saved at each switch. Without them a Debian 12 boots in 6 to 8 % less time (measured, QEMU 7.2).
SLOW_EMULATED = ("erms", "fsrm", "la57", "pku")


# libvirt's map has mpx in these models (cpu_map/x86_*.xml), which no AMD and no Intel since Ice Lake has: kubevirt#9239.
WITH_MPX = ("Skylake-", "Cascadelake-", "Icelake-")


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str | int | None) -> ET.Element:
    """A child element; `_` in an attribute's name is left as it is, None leaves the attribute out."""
    element = ET.SubElement(parent, tag, {k: str(v) for k, v in attributes.items() if v is not None})
    element.text = text
    return element


def domain(machine: Machine) -> str:
    """The XML text; its own digest stands in <metadata>, so that a change is seen without comparing XML."""
    ET.register_namespace("hikube", NAMESPACE)
    root = _tree(machine)
    layout.as_there(root, machine)
    metadata = ET.Element("metadata")
    metadata.append(_marks(machine))
    root.insert(2, metadata)
    if machine.owner:
        label = _add(root, "seclabel", type="static", model="dac", relabel="yes")
        _add(label, "label", "+{}:+{}".format(*machine.owner))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _marks(machine: Machine) -> ET.Element:
    found = digests(machine)
    attributes = {"namespace": machine.namespace, "name": machine.name, "digest": found.whole, "layout": layout.VERSION}
    attributes |= {"cold": found.cold} if found.cold != found.whole else {}
    return ET.Element(f"{{{NAMESPACE}}}machine", {**attributes, "shape": found.shape})


def marks(machine: Machine) -> str:
    """What stands in <metadata>, for a machine that becomes this one while it runs; libvirt adds the namespace itself."""
    return ET.tostring(ET.Element("machine", _marks(machine).attrib), encoding="unicode")


class Digests(NamedTuple):
    """Of a machine; of it without its hot disks; of that whatever its size."""

    whole: str
    cold: str
    shape: str


def digests(machine: Machine) -> Digests:
    """What `domain` writes into the XML, without the XML."""
    # A checkpoint puts another layer under a disk: that is no change of the machine.
    # Nor is whose the files are, nor how this host's clock ticks.
    plain = tuple(replace(d, path=d.path and d.name, backing=_image(d), own_base=True) for d in machine.disks)
    fixed = tuple(d for d in plain if not d.hot)
    machine = replace(machine, tsc=0)
    root = _tree(replace(machine, disks=plain))
    whole = cold = _mark(root)
    if len(fixed) != len(plain):
        root = _tree(replace(machine, disks=fixed))
        cold = _mark(root)
    # Sockets and memory come while it runs; cores, threads and huge pages do not.
    for path in ("memory", "vcpu"):
        root.remove(root.find(path))  # type: ignore[arg-type]
    del root.find("cpu/topology").attrib["sockets"]  # type: ignore[union-attr]
    return Digests(whole, cold, _mark(root) + ("" if machine.page_reporting else "-huge"))


def _image(d: DiskDevice) -> tuple[tuple[str, str], ...]:
    """What a disk stands on, without its own layers, which lie beside it."""
    return tuple(b for b in d.backing if posixpath.dirname(b[0]) != posixpath.dirname(d.path))


def _mark(root: ET.Element) -> str:
    cpu = root.find("cpu")
    if cpu is not None:
        for feature in cpu.findall("feature[@name='mpx']"):
            cpu.remove(feature)  # one that runs since before it was left out is no other machine
    return hashlib.sha256(ET.tostring(root)).hexdigest()


def digest(xml: str, cold: bool = False) -> str:
    """The digest that `domain` wrote into this XML (libvirt keeps it), or an empty string.

    `cold`: of the machine without the disks that come and go while it runs.
    """
    whole = _marked(xml, "digest")
    return _marked(xml, "cold") or whole if cold else whole


def shape(xml: str) -> str:
    """The digest of the machine without those disks and whatever its size; empty where an earlier release defined it."""
    return _marked(xml, "shape")


def laid_out(xml: str) -> bool:
    """Whether a definition is laid out as this release does it."""
    return _marked(xml, "layout") == layout.VERSION


def _marked(xml: str, name: str) -> str:
    element = ET.fromstring(xml).find(f"metadata/{{{NAMESPACE}}}machine")
    return element.get(name, "") if element is not None else ""


def disk(machine: Machine, name: str) -> str:
    """The XML of one disk, to be attached while the machine runs."""
    devices = ET.Element("devices")
    names = _names(machine.disks)
    at = next(i for i, d in enumerate(machine.disks) if d.name == name)
    _disk(devices, machine, machine.disks[at], names[at])
    return ET.tostring(devices[0], encoding="unicode")


def _tree(m: Machine) -> ET.Element:
    root = ET.Element("domain", {"type": "kvm" if m.kvm else "qemu"})
    _add(root, "name", m.domain)
    _add(root, "uuid", m.uuid)
    _add(root, "memory", str(m.size.memory), unit="b")
    _add(root, "vcpu", str(m.size.vcpus), placement="static")
    if m.profile.dedicated_iothread:
        _add(root, "iothreads", "1")
    sysinfo = _add(root, "sysinfo", type="smbios")
    system = _add(sysinfo, "system")
    for name, value in (("manufacturer", "KubeVirt"), ("product", "None"), ("uuid", m.uuid), ("family", "KubeVirt")):
        _add(system, "entry", value, name=name)
    if m.oem:
        strings = _add(sysinfo, "oemStrings")
        for text in m.oem:
            _add(strings, "entry", text)
    _firmware(root, m)
    features = _add(root, "features")
    _add(features, "acpi")
    _hyperv(features, m)
    if m.profile.smm:
        _add(features, "smm", state="on")
    if m.tb_cache is not None:
        _add(_add(features, "tcg"), "tb-cache", str(m.tb_cache), unit="MiB")
    cpu = _cpu(root, m)
    _add(cpu, "topology", sockets=m.size.sockets, dies=1, cores=m.size.cores, threads=m.size.threads)
    for feature in () if m.kvm else SLOW_EMULATED:
        _add(cpu, "feature", policy="disable", name=feature)
    _clock(root, m)
    _add(root, "on_poweroff", "destroy")
    _add(root, "on_reboot", "restart")
    _add(root, "on_crash", "destroy")
    _devices(root, m)
    return root


def _cpu(root: ET.Element, m: Machine) -> ET.Element:
    """KubeVirt's words: a mode of libvirt's, or a model's name, which the host must be able to give."""
    if not m.kvm:
        return _add(root, "cpu", mode="maximum")
    if m.cpu_model in ("", "host-model", "host-passthrough"):
        return _add(root, "cpu", mode=m.cpu_model or "host-model")
    cpu = _add(root, "cpu", mode="custom", match="exact", check="partial")
    _add(cpu, "model", m.cpu_model, fallback="forbid")
    if m.cpu_model.startswith(WITH_MPX):
        _add(cpu, "feature", policy="disable", name="mpx")
    return cpu


def _firmware(root: ET.Element, m: Machine) -> None:
    efi = m.profile.firmware == "efi"
    os = _add(root, "os", firmware="efi" if efi else None)
    _add(os, "type", "hvm", arch="x86_64", machine="q35")
    if efi:
        secure = "yes" if m.profile.secure_boot else "no"
        features = _add(os, "firmware")
        _add(features, "feature", enabled=secure, name="enrolled-keys")
        _add(features, "feature", enabled=secure, name="secure-boot")
        _add(os, "loader", secure="yes" if m.profile.secure_boot else None)
        _add(os, "nvram", m.places.variables)
    _add(os, "smbios", mode="sysinfo")


def _hyperv(features: ET.Element, m: Machine) -> None:
    if not m.profile.hyperv:
        return
    names = {"synictimer": "stimer"}
    hyperv = _add(features, "hyperv")
    for feature in m.profile.hyperv:
        if not m.kvm and feature in fit.KVM_ONLY:
            continue
        element = _add(hyperv, names.get(feature, feature), state="on")
        if feature == "spinlocks":
            element.set("retries", str(m.profile.hyperv_spinlock_retries))


def _clock(root: ET.Element, m: Machine) -> None:
    clock = _add(root, "clock", offset="utc")
    _add(clock, "timer", name="rtc", tickpolicy="catchup")
    if m.profile.clock:
        _add(clock, "timer", name="pit", tickpolicy="delay")
    _add(clock, "timer", name="hpet", present="no")
    if m.profile.clock.get("hypervclock") and m.kvm:
        _add(clock, "timer", name="hypervclock", present="yes")
    if m.tsc and m.kvm and "reenlightenment" in m.profile.hyperv:
        # Without it QEMU refuses to bring such a guest back from memory (target/i386/machine.c); KubeVirt says it too.
        _add(clock, "timer", name="tsc", frequency=m.tsc)


def _devices(root: ET.Element, m: Machine) -> None:
    devices = _add(root, "devices")
    names = _names(m.disks)
    for disk, target in zip(m.disks, names, strict=True):
        _disk(devices, m, disk, target)
    virtio = _virtio(m)
    scsi = any(d.bus == "scsi" for d in m.disks)
    usb = layout.usb(m)
    _add(devices, "controller", type="usb", index=0, model="qemu-xhci" if usb else "none")
    if scsi:
        _add(devices, "controller", type="scsi", index=0, model=virtio)
    _add(devices, "controller", type="virtio-serial", index=0, model=virtio)
    # NIC, virtio-serial, balloon, then what this machine has, and spare ones for hot plug.
    used = 3 + len(m.further) + scsi + usb + m.profile.rng + (m.profile.input.get("bus") == "virtio")
    used += sum(d.bus == "virtio" for d in m.disks)
    root = _add(devices, "controller", type="pci", index=0, model="pcie-root")
    if not m.profile.pci_hole64:
        _add(root, "pcihole64", "0", unit="KiB")
    for index in range(1, used + m.spare_ports + 1):
        _add(devices, "controller", type="pci", index=index, model="pcie-root-port")
    # The first root port: the guest calls the tenant's NIC enp1s0.
    nic = _nic(devices, m, m.mac, m.tap)
    if layout.on_root_ports(m):
        layout.address(nic, 1)
    for mac, tap in m.further:
        _nic(devices, m, mac, tap)
    _serial(devices, m)
    channel = _add(devices, "channel", type="unix")
    _add(channel, "source", mode="bind", path=m.places.agent)
    _add(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    if m.profile.input:
        bus = m.profile.input["bus"]
        _add(devices, "input", type=m.profile.input["type"], bus=bus, model="virtio" if bus == "virtio" else None)
    if m.profile.tpm:
        # A persistent TPM is tpm-crb, another tpm-tis.
        persistent = bool(m.profile.tpm.get("persistent"))
        tpm = _add(devices, "tpm", model="tpm-crb" if persistent else "tpm-tis")
        _add(tpm, "backend", type="emulator", version="2.0", persistent_state="yes" if persistent else None)
    if m.profile.graphics:
        graphics = _add(devices, "graphics", type="vnc")
        _add(graphics, "listen", type="socket", socket=m.places.vnc)
        video = _add(devices, "video")
        _add(video, "model", type="vga", heads=1, vram=16384)
    if m.profile.balloon:
        balloon = _add(devices, "memballoon", model=virtio, freePageReporting="on")
        _add(balloon, "stats", period=10)
    else:
        _add(devices, "memballoon", model="none")
    if m.profile.rng:
        rng = _add(devices, "rng", model=virtio)
        _add(rng, "backend", "/dev/urandom", model="random")


def _virtio(m: Machine) -> str:
    return "virtio-transitional" if m.profile.transitional else "virtio-non-transitional"


def _names(disks: tuple[DiskDevice, ...]) -> list[str]:
    """The disks' targets; those that come and go after all others."""
    order = sorted(range(len(disks)), key=lambda i: disks[i].hot)
    named = targets([disks[i].bus for i in order])
    return [name for _, name in sorted(zip(order, named, strict=True))]


def targets(buses: Sequence[str]) -> list[str]:
    """vda, vdb, … for virtio; sda, sdb, … for sata and scsi together."""
    counts: dict[str, int] = {}
    out = []
    for bus in buses:
        prefix = _TARGET[bus]
        index = counts[prefix] = counts.get(prefix, 0) + 1
        letters = ""
        while index:
            index, rest = divmod(index - 1, 26)
            letters = chr(97 + rest) + letters
        out.append(prefix + letters)
    return out


def _disk(devices: ET.Element, m: Machine, d: DiskDevice, target: str) -> None:
    model = _virtio(m) if d.bus == "virtio" else None
    disk = _add(devices, "disk", type="file", device="cdrom" if d.optical else "disk", model=model)
    iothread = 1 if m.profile.dedicated_iothread and d.bus == "virtio" else None
    discard = None if d.readonly else "unmap"
    _add(
        disk,
        "driver",
        name="qemu",
        type=d.format,
        error_policy="stop",
        discard=discard,
        iothread=iothread,
        cache="unsafe" if m.unsafe and not d.readonly else None,
    )
    if d.path:
        source(disk, d)
    _add(disk, "target", dev=target, bus=d.bus)
    if d.readonly:
        _add(disk, "readonly")
    if d.boot_order:
        _add(disk, "boot", order=d.boot_order)
    _add(disk, "alias", name=f"{ALIAS}{d.name}")


def source(disk: ET.Element, d: DiskDevice) -> None:
    """The file of a disk and everything below it, said in full so that QEMU looks for nothing itself."""
    _add(disk, "source", file=d.path)
    store = disk
    for at, (path, kind) in enumerate(d.backing, 1):
        store = _add(store, "backingStore", type="file")
        _add(store, "format", type=kind)
        file = _add(store, "source", file=path)
        if not d.own_base and at == len(d.backing):
            # libvirt would give it to QEMU's user, who could then write to what all machines stand on.
            _add(file, "seclabel", model="dac", relabel="no")
    _add(store, "backingStore")


def _nic(devices: ET.Element, m: Machine, mac: str, tap: str) -> ET.Element:
    nic = _add(devices, "interface", type="ethernet" if tap else "user")
    _add(nic, "mac", address=mac)
    if tap:
        _add(nic, "target", dev=tap, managed="no")
    _add(nic, "model", type=_virtio(m) if m.profile.nic == "virtio" else m.profile.nic)
    if tap:
        _add(nic, "mtu", size=1400)
    _add(nic, "rom", enabled="no")
    return nic


def _serial(devices: ET.Element, m: Machine) -> None:
    serial = _add(devices, "serial", type="unix")
    _add(serial, "source", mode="bind", path=m.places.console)
    _add(serial, "log", file=m.places.console_log, append="on")
    # Port 0 must be said: beside the second one libvirt 9.0 would make it ttyS2.
    _add(_add(serial, "target", type="isa-serial", port=0), "model", name="isa-serial")
    if m.profile.firmware == "bios":
        # SeaBIOS says nothing on the serial port.
        debug = _add(devices, "serial", type="file")
        _add(debug, "source", path=m.places.firmware_log, append="on")
        _add(_add(debug, "target", type="isa-debug", port=1), "model", name="isa-debugcon")
        _add(debug, "address", type="isa", iobase="0x402")
