"""Disks that come and go while the machine runs (`hotpluggable: true`, on virtio or scsi)."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from typing import Any

from hikube_local.api.objects import DiskRef, Object
from hikube_local.backends.qemu import libvirt
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.render import domain, layout
from hikube_local.render.machine import SEED_DISK, Machine

PATIENCE = 30.0  # seconds for a guest to release a disk
AGAIN = 5.0  # a guest that was deaf has forgotten what it was asked


def may(ref: DiskRef, bus: str, optical: bool) -> bool:
    """Whether the disk is attached live: on virtio and SCSI."""
    return bool(ref.hotpluggable) and bus in ("virtio", "scsi") and not optical


def attached(xml: str, fixed: set[str]) -> frozenset[str]:
    """The disks of a live domain beside those that stay."""
    return frozenset(libvirt.disks(xml)) - fixed - {SEED_DISK}


def bring(dom: Any, machine: Machine, obj: Object, emit: Emit) -> None:
    """Attach what is missing, detach what is too many."""
    lv = libvirt.module()
    have = attached(dom.XMLDesc(0), {d.name for d in machine.disks if not d.hot})
    want = {d.name for d in machine.disks if d.hot}
    for name in sorted(have - want):
        _detach(dom, name, obj, emit)
    for name in sorted(want - have):
        element = ET.fromstring(domain.disk(machine, name))
        _free(dom, element, layout.ports(machine).open if layout.placed(machine) else [])
        try:
            dom.attachDeviceFlags(ET.tostring(element, encoding="unicode"), lv.VIR_DOMAIN_AFFECT_LIVE)
        except lv.libvirtError as e:
            raise libvirt.translated(e, f"the disk {name} could not be attached to {obj.name}") from None


def _free(dom: Any, element: ET.Element, ports: list[int]) -> None:
    """The first root port that is free, as there; another target name where a disk that runs already has this one."""
    xml = dom.XMLDesc(0)
    devices = ET.fromstring(xml).find("devices")
    assert devices is not None
    if element.get("model") and domain.laid_out(xml):
        there = {c.get("index") for c in devices.findall("controller[@model='pcie-root-port']")}
        used = {a.get("bus") for a in devices.findall("*/address[@type='pci']")}
        # With none free libvirt says so.
        if free := [p for p in ports if f"0x{p:02x}" not in used and str(p) in there]:
            layout.address(element, free[0])
    taken = {t.get("dev", "") for t in devices.findall("disk/target")}
    target = element.find("target")
    assert target is not None
    prefix = target.get("dev", "")[:2]
    if target.get("dev") in taken:
        target.set("dev", next(n for c in "abcdefghijklmnopqrstuvwxyz" if (n := prefix + c) not in taken))


def _detach(dom: Any, name: str, obj: Object, emit: Emit) -> None:
    """libvirt's answer says nothing: a deaf guest "succeeds" after five seconds. Only the disk's going counts."""
    lv = libvirt.module()
    deadline, asked = time.monotonic() + PATIENCE, 0.0
    while (element := libvirt.disks(dom.XMLDesc(0)).get(name)) is not None:
        now = time.monotonic()
        if now > deadline:
            what = f"the guest has not released the disk {name}"
            raise HikubeError("HK806", what, fix=f"unmount it in the guest, or: hikube-local restart {obj.name}")
        if now - asked > AGAIN:
            asked = now
            emit(Event(EventType.PROGRESS, f"asks the guest to release the disk {name}", obj.ref, obj.namespace))
            try:
                dom.detachDeviceFlags(ET.tostring(element, encoding="unicode"), lv.VIR_DOMAIN_AFFECT_LIVE)
            except lv.libvirtError as e:
                raise libvirt.translated(e, f"the disk {name} could not be detached from {obj.name}") from None
        time.sleep(0.2)
