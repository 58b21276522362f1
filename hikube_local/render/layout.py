"""Where KubeVirt puts each device, and what else a guest sees of its machine there; pure.

`domain` says what a machine is, and its digest marks it; how it is laid out came later and is no change of the machine,
so that one of an earlier release runs on as it is and is laid out anew when it starts again. Facts: what KubeVirt 1.8
says of its PCI topology (the first form, which the third keeps) and its converter.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import field

from hikube_local.records import dataclass
from hikube_local.render import growth
from hikube_local.render.machine import Machine

VERSION = "2"
RESERVED = 4  # root ports that KubeVirt keeps for NICs, in front of everything else
_PCIE_NICS = ("virtio", "e1000e")


@dataclass(slots=True)
class Ports:
    """The root port (a PCI bus, from 1) of each device; `open`: those for disks that come and go, in their order."""

    nics: list[int] = field(default_factory=list)
    xhci: int = 0
    scsi: int = 0
    serial: int = 0
    disks: dict[str, int] = field(default_factory=dict)  # by name: those on virtio
    balloon: int = 0
    rng: int = 0
    input: int = 0
    open: list[int] = field(default_factory=list)
    last: int = 0


def ports(m: Machine) -> Ports:
    """NICs, then what is left of the four, then controllers, disks, balloon, entropy, input: libvirt's own order."""
    found = Ports()
    nics = 1 + len(m.further)
    found.nics = list(range(1, nics + 1))
    count = iter(range(max(RESERVED, nics) + 1, 256))
    if usb(m):
        found.xhci = next(count)
    found.scsi = next(count)  # always there; ours is empty where no disk wants it, which saves an emulated guest time
    found.serial = next(count)
    for disk in m.disks:
        if disk.bus == "virtio" and not disk.hot:
            found.disks[disk.name] = next(count)
    if m.profile.balloon:
        found.balloon = next(count)
    if m.profile.rng:
        found.rng = next(count)
    if m.profile.input.get("bus") == "virtio":
        found.input = next(count)
    found.last = next(count) - 1
    hot = [d.name for d in m.disks if d.bus == "virtio" and d.hot]
    found.open = [*range(nics + 1, RESERVED + 1)]
    while len(found.open) < len(hot) + m.spare_ports:
        found.last += 1
        found.open.append(found.last)
    found.disks |= zip(hot, found.open, strict=False)
    return found


def placed(m: Machine) -> bool:
    """Whether its devices have their places from us: libvirt puts transitional ones on a bridge, all of them."""
    return not m.profile.transitional


def on_root_ports(m: Machine) -> bool:
    """Whether its NICs are; those of the older bus sit on a bridge, which libvirt adds where it finds room."""
    return m.profile.nic in _PCIE_NICS and placed(m)


def usb(m: Machine) -> bool:
    """Whether something of the machine is on USB."""
    return m.profile.input.get("bus") == "usb" or any(d.bus == "usb" for d in m.disks)


def as_there(root: ET.Element, m: Machine) -> None:
    """Lay the domain's tree out as KubeVirt does."""
    devices = root.find("devices")
    assert devices is not None
    where = ports(m)
    growth.as_there(root, m.size, m.kvm)
    for port in devices.findall("controller[@model='pcie-root-port']"):
        devices.remove(port)
    at = next(i for i, e in enumerate(devices) if e.get("model") == "pcie-root") + 1
    for index in range(where.last, 0, -1):
        devices.insert(at, ET.Element("controller", {"type": "pci", "index": str(index), "model": "pcie-root-port"}))
    for element, bus in _placed(devices, m, where) if placed(m) else ():
        address(element, bus)
    features = root.find("features")
    assert features is not None
    ET.SubElement(features, "vmport", {"state": "off"})
    for timer in features.findall("hyperv/stimer"):
        ET.SubElement(timer, "direct", {"state": "on"})
    if m.profile.firmware == "efi" and (model := devices.find("video/model")) is not None:
        del model.attrib["vram"]
        model.set("type", "bochs")
    clock = root.find("clock")
    if m.kvm and not m.profile.clock and clock is not None:
        for timer in clock.findall("timer"):
            clock.remove(timer)
    if not m.page_reporting and (balloon := devices.find("memballoon")) is not None:
        balloon.attrib.pop("freePageReporting", None)


def _placed(devices: ET.Element, m: Machine, where: Ports) -> Iterator[tuple[ET.Element, int]]:
    """Each device of the tree that has a root port of its own, with it."""
    nics = devices.findall("interface")
    yield from zip(nics, where.nics, strict=True) if on_root_ports(m) else ()
    single = {
        "controller[@type='usb']": where.xhci,
        "controller[@type='scsi']": where.scsi,
        "controller[@type='virtio-serial']": where.serial,
        "memballoon": where.balloon,
        "rng": where.rng,
        "input[@bus='virtio']": where.input,
    }
    for path, bus in single.items():
        if bus and (element := devices.find(path)) is not None:
            yield element, bus
    for element, disk in zip(devices.findall("disk"), m.disks, strict=True):
        if disk.name in where.disks:
            yield element, where.disks[disk.name]


def address(element: ET.Element, bus: int) -> None:
    """Put a device on a root port."""
    for old in element.findall("address"):
        element.remove(old)
    attributes = {"type": "pci", "domain": "0x0000", "bus": f"0x{bus:02x}", "slot": "0x00", "function": "0x0"}
    ET.SubElement(element, "address", attributes)
