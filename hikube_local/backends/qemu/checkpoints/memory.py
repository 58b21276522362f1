"""The memory of a running machine in a file, and a machine started from one: libvirt's external snapshot and its restore."""

from __future__ import annotations

import os
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from hikube_local.api.objects import Object
from hikube_local.backends.qemu import libvirt, owners
from hikube_local.backends.qemu.context import Context
from hikube_local.backends.qemu.machine import definition, limits, spec
from hikube_local.host import qemu_ids
from hikube_local.plan.running import comes_back
from hikube_local.plan.steps import RunOptions, RunState
from hikube_local.render import domain
from hikube_local.render.machine import SEED_DISK

FILE = "memory"
WHOLE = b"LibvirtQemudSave"  # the first bytes of one that is complete
JOB = 120.0  # seconds that a memory file may take
LIVE_FROM = 512 << 20  # bytes of memory from which it is written while the guest runs on


def writable(xml: str) -> set[str]:
    """The disks of a domain that its guest can write to, by name."""
    found = libvirt.disks(xml).items()
    return {n for n, d in found if d.find("readonly") is None and d.find("source") is not None} - {SEED_DISK}


def write(context: Context, obj: Object, dom: Any, target: Path, new: dict[str, str]) -> None:
    """Write the memory into a file in `target`; the guest goes on in the layers `new`, by disk."""
    lv = libvirt.module()
    root = ET.Element("domainsnapshot")
    ET.SubElement(root, "memory", snapshot="external", file=context.sandbox.seen(target / FILE))
    disks = ET.SubElement(root, "disks")
    xml = dom.XMLDesc(0)
    for name, element in libvirt.disks(xml).items():
        dev = libvirt.device(element)
        if name not in new:
            ET.SubElement(disks, "disk", name=dev, snapshot="no")
            continue
        disk = ET.SubElement(disks, "disk", name=dev, snapshot="external", type="file")
        ET.SubElement(disk, "driver", type="qcow2")
        path = context.layout.disk(obj.namespace, name) / new[name]
        if owner := owners.in_xml(xml) or (qemu_ids.shared() if context.layout.root else None):
            os.chown(path, *owner)  # made by root, opened by QEMU while it runs
        ET.SubElement(disk, "source", file=context.sandbox.seen(path))
    flags = lv.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA | lv.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    flags |= lv.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    if dom.maxMemory() << 10 >= LIVE_FROM and libvirt.state(dom)[0] is RunState.RUNNING:
        flags |= lv.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE
    try:
        dom.snapshotCreateXML(ET.tostring(root, encoding="unicode"), flags)
    except lv.libvirtError as e:
        raise libvirt.translated(e, f"the checkpoint of {obj.name} could not be taken") from None


def whole(path: Path) -> bool:
    try:
        with open(path, "rb") as f:
            return f.read(len(WHOLE)) == WHOLE
    except OSError:
        return False


def resume(context: Context, obj: Object, target: Path) -> None:
    """Start from memory. The persistent definition names the new layers already: restoring does not touch it."""
    lv = libvirt.module()
    connection = context.connection.ensure()
    assert connection is not None
    context.sandbox.make_sockets(context.tenants.tap(obj), context.sandbox.owner(context.uuid(obj)))
    image = context.sandbox.seen(target / FILE)
    try:
        xml = _with_layers(context, obj, connection.saveImageGetXMLDesc(image, lv.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE))
        connection.restoreFlags(image, xml, lv.VIR_DOMAIN_SAVE_RUNNING)
        # QEMU's own network has forgotten its forwards.
        if (dom := context.domain(obj)) is not None:
            libvirt.ends(dom, comes_back(obj))
            limits.bound(context, dom.name(), dom.XMLDesc(0))
        definition.open_ports(context, obj)
    except lv.libvirtError as e:
        raise libvirt.translated(e, f"{obj.name} could not be started from its checkpoint") from None


def _with_layers(context: Context, obj: Object, xml: str) -> str:
    """The XML of a memory file with the disks as they are now."""
    ET.register_namespace("hikube", domain.NAMESPACE)
    root = ET.fromstring(xml)
    machine = spec.machine(context, obj, RunOptions())
    fresh = ET.fromstring(domain.domain(machine))
    _rehome(root, fresh)
    for old in root.findall("seclabel[@model='dac']"):
        root.remove(old)
    root.extend(fresh.findall("seclabel"))
    devices = {d.name: d for d in machine.disks}
    for name, element in libvirt.disks(root).items():
        device = devices.get(name)
        if device is None or not device.path or device.optical:
            continue
        for old in element.findall("backingStore") + element.findall("source"):
            element.remove(old)
        domain.source(element, device)
    return ET.tostring(root, encoding="unicode")


def _rehome(root: ET.Element, fresh: ET.Element) -> None:
    """Sockets, logs, taps and variables where this state root has them: the memory may come from another one."""
    for kind in ("serial", "channel"):
        for old, new in zip(root.findall(f"devices/{kind}"), fresh.findall(f"devices/{kind}"), strict=False):
            for part in ("source", "log"):
                for element in old.findall(part):
                    element.set(*_path(new, part))
    first = root.find("devices/serial/source")
    for console in root.findall("devices/console/source"):
        if first is not None and "path" in first.attrib:
            console.set("path", first.attrib["path"])
    for log in root.findall("devices/console/log"):
        log.set(*_path(fresh.find("devices/serial"), "log"))
    for old, new in zip(root.findall("devices/interface"), fresh.findall("devices/interface"), strict=False):
        target, wanted = old.find("target"), new.find("target")
        if target is not None and wanted is not None:
            target.set("dev", wanted.get("dev", ""))
    listen = fresh.find("devices/graphics/listen")
    for graphics in root.findall("devices/graphics"):
        for element in [graphics, *graphics.findall("listen")]:
            if "socket" in element.attrib and listen is not None:
                element.set("socket", listen.get("socket", ""))
    old_nvram, new_nvram = root.find("os/nvram"), fresh.find("os/nvram")
    if old_nvram is not None and new_nvram is not None:
        old_nvram.text = new_nvram.text


def _path(device: ET.Element | None, part: str) -> tuple[str, str]:
    """(attribute, value) of the path in a device's source or log."""
    element = device.find(part) if device is not None else None
    name = "file" if part == "log" else "path"
    return name, element.get(name, "") if element is not None else ""


def await_job(dom: Any) -> None:
    """libvirtd goes on with a memory file when we are gone."""
    lv = libvirt.module()
    deadline = time.monotonic() + JOB
    while time.monotonic() < deadline:
        try:
            if dom.jobInfo()[0] == lv.VIR_DOMAIN_JOB_NONE:
                return
        except lv.libvirtError:
            return
        time.sleep(0.1)


def named(xml: str) -> dict[str, str]:
    """Which file a domain names for each disk."""
    sources = {n: d.find("source") for n, d in libvirt.disks(xml).items()}
    return {n: s.get("file", "").rpartition("/")[2] for n, s in sources.items() if s is not None}
