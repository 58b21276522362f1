"""What a machine can be given while it runs, as KubeVirt's LiveUpdate has it: up to four times its vCPUs and memory; pure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from hikube_local.records import dataclass
from hikube_local.text import size as words

if TYPE_CHECKING:  # the catalogue comes with it, and every look needs a Capacity
    from hikube_local.render.sizing import Size

TIMES = 4
MOST = 255  # vCPUs of a machine without an IOMMU that knows more
LEAST, ALIGNED = 1 << 30, 2 << 20  # bytes of memory from which, and in steps of which, KubeVirt lets it grow
_UNITS = {"b": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True, slots=True)
class Capacity:
    """vCPUs, and memory in bytes."""

    vcpus: int = 0
    memory: int = 0

    def within(self, other: Capacity) -> bool:
        """In whole MiB: libvirt and QEMU round up."""
        return self.vcpus <= other.vcpus and -(-self.memory >> 20) <= -(-other.memory >> 20)

    def __str__(self) -> str:
        return f"{self.vcpus} vCPU{'s' if self.vcpus > 1 else ''}, {words(self.memory)} of memory"


def grows_memory(size: Size) -> bool:
    return size.memory >= LEAST and size.memory % ALIGNED == 0


def room(size: Size, kvm: bool = True) -> Capacity:
    """The most that a machine of this size can be given while it runs.

    An emulated guest of one vCPU that may get more boots with 5 % more work (measured with Debian 12, QEMU 7.2: its kernel
    takes locks that it would leave out), so it has no room for more vCPUs; one of several pays nothing.
    """
    inside = size.cores * size.threads
    sockets = max(size.sockets, min(size.sockets * TIMES, MOST // inside))
    if not kvm and size.vcpus == 1:
        sockets = 1
    return Capacity(sockets * inside, size.memory * TIMES if grows_memory(size) else size.memory)


def as_there(root: ET.Element, size: Size, kvm: bool) -> None:
    """Into the domain's tree: room for what may come."""
    most = room(size, kvm)
    vcpu, cpu, memory = root.find("vcpu"), root.find("cpu"), root.find("memory")
    assert vcpu is not None and cpu is not None and memory is not None
    vcpu.set("current", str(size.vcpus))
    vcpu.text = str(most.vcpus)
    topology = cpu.find("topology")
    assert topology is not None
    topology.set("sockets", str(most.vcpus // (size.cores * size.threads)))
    if most.memory == size.memory:
        return
    largest = ET.Element("maxMemory", {"slots": "1", "unit": "b"})
    largest.text = str(most.memory)
    root.insert(list(root).index(memory), largest)
    cell = {"id": "0", "cpus": f"0-{most.vcpus - 1}", "memory": str(size.memory), "unit": "b"}
    ET.SubElement(ET.SubElement(cpu, "numa"), "cell", cell)


def device(xml: str, memory: int) -> str:
    """The memory device of a running machine that brings it to so many bytes."""
    have = _Memory(ET.fromstring(xml))
    element = ET.Element("memory", {"model": "virtio-mem"})
    target = ET.SubElement(element, "target")
    ET.SubElement(target, "size", unit="b").text = str(have.most - have.cell)
    ET.SubElement(target, "node").text = "0"
    ET.SubElement(target, "block", unit="KiB").text = str(ALIGNED >> 10)
    wanted = (memory - have.cell) // ALIGNED * ALIGNED
    ET.SubElement(target, "requested", unit="KiB").text = str(wanted >> 10)
    return ET.tostring(element, encoding="unicode")


def has_device(xml: str) -> bool:
    return _Memory(ET.fromstring(xml)).device


def capacity(xml: str) -> Capacity:
    """vCPUs and memory of a running machine, by its live definition."""
    root = ET.fromstring(xml)
    vcpu = root.find("vcpu")
    now = (vcpu.get("current") or vcpu.text or "0") if vcpu is not None else "0"
    have = _Memory(root)
    return Capacity(int(now), have.cell + have.added)


def most(xml: str) -> Capacity:
    """What it can be given while it runs: memory comes on a root port of its own, while one is free."""
    root = ET.fromstring(xml)
    have = _Memory(root)
    ports = {int(c.get("index", "0")) for c in root.findall("devices/controller[@model='pcie-root-port']")}
    used = {int(a.get("bus", "0"), 16) for a in root.findall("devices/*/address[@type='pci']")}
    memory = have.most if have.device or ports - used else have.cell
    return Capacity(int(root.findtext("vcpu") or 0), memory)


def room_for(xml: str) -> int:
    """The most memory that its definition has room for, in bytes."""
    return _Memory(ET.fromstring(xml)).most


class _Memory:
    """Bytes: what it was started with, what was added, and the most that there may be."""

    def __init__(self, root: ET.Element) -> None:
        cell, room = root.find("cpu/numa/cell"), root.find("maxMemory")
        self.cell = _bytes(cell, cell.get("memory")) if cell is not None else _bytes(root.find("memory"))
        self.added = sum(_bytes(e) for e in root.findall("devices/memory/target/requested"))
        self.most = _bytes(room) if room is not None else self.cell
        self.device = root.find("devices/memory[@model='virtio-mem']") is not None


def _bytes(element: ET.Element | None, text: str | None = None) -> int:
    if element is None:
        return 0
    return int(text or element.text or 0) * _UNITS[element.get("unit", "KiB")]
