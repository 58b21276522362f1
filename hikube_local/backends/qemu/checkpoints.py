"""Checkpoints: disks, and memory, firmware variables and TPM with them while the machine runs; one mechanism for all.

A checkpoint is frozen disk layers and a memory file (../shared/research/checkpoints.md, section 8). A note of what is
under way lies in the machine's folder before the first step and goes after the last, so that a kill is healed.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hikube_local import files
from hikube_local.api.objects import DISK, Object
from hikube_local.backends.protocol import Options
from hikube_local.backends.qemu import firmware, libvirt
from hikube_local.disks import layers
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.images.download import room
from hikube_local.images.inspect import virtual_size
from hikube_local.locks import locked
from hikube_local.plan.steps import RunState, Step, Verb
from hikube_local.render import domain
from hikube_local.render.machine import VARIABLES
from hikube_local.store.db import scope

if TYPE_CHECKING:
    from hikube_local.backends.qemu.world import Qemu

PENDING = "pending.json"
MEMORY, RECORD = "memory", "checkpoint.json"
WHOLE = b"LibvirtQemudSave"
FIRST_BOOT = "configured"  # what `up` takes and `reset` goes back to
LIVE_FROM = 512 << 20  # bytes of memory from which it is written while the guest runs on


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint: `frozen` names each disk's layer. Sizes in bytes."""

    name: str
    created: float
    memory: bool
    frozen: dict[str, str] = field(default_factory=dict)
    size: int = 0
    instance_id: str = ""
    definition: str = ""  # the machine's digest: memory fits no other one


def place(world: Qemu, obj: Object) -> Path:
    """Beside the machines: a snapshot outlives its machine, as its disks do."""
    return world.layout.state / "checkpoints" / obj.namespace / obj.name


def all(world: Qemu, obj: Object) -> list[Checkpoint]:
    """The whole ones, oldest first."""
    found = []
    for path in place(world, obj).glob(f"*/{RECORD}"):
        with contextlib.suppress(TypeError):
            found.append(Checkpoint(**files.read_json(path)))
    return sorted(found, key=lambda c: c.created)


def find(world: Qemu, obj: Object, name: str) -> Checkpoint:
    found = {c.name: c for c in all(world, obj)}
    if name not in found:
        have = ", ".join(found) or "none"
        raise HikubeError("HK804", f"{obj.name} has no checkpoint {name!r}", f"there are: {have}", "snapshot list NAME")
    return found[name]


@contextlib.contextmanager
def held(world: Qemu, obj: Object) -> Iterator[None]:
    """The locks of the machine and its disks, in their order."""
    keys = sorted([obj.key, *((DISK, obj.namespace, d.name) for d in obj.instance.disks)])
    with contextlib.ExitStack() as stack:
        for key in keys:
            stack.enter_context(locked(world.layout.lock(*key)))
        yield


def _disks(world: Qemu, obj: Object) -> dict[str, Path]:
    """Folders of the disks that can be written to."""
    out = {}
    for ref in obj.instance.disks:
        disk = world.store.get((DISK, obj.namespace, ref.name))
        if disk and not disk.disk.optical:
            out[ref.name] = world.layout.disk(obj.namespace, ref.name)
    return out


def create(world: Qemu, obj: Object, name: str, emit: Emit) -> Checkpoint:
    """Take a checkpoint; under the locks. The machine goes on, in new layers."""
    settle(world, obj, emit)
    target = place(world, obj) / name
    if target.exists():
        raise HikubeError(
            "HK806", f"{obj.name} has a checkpoint {name!r} already", fix="delete it first, or take another name"
        )
    dom = world.domain(obj)
    on = dom is not None and dom.isActive()
    if dom is not None and on:
        room(world.layout.state, dom.maxMemory() << 10)
    mark = secrets.token_hex(4)
    folders = _disks(world, obj)
    old = {n: layers.read(f).active for n, f in folders.items()}
    new = {n: f"layer-{mark}.qcow2" for n in folders}
    files.write_json(world.folder(obj) / PENDING, {"verb": "create", "name": name, "old": old, "new": new})
    begin = time.monotonic()
    files.make_folder(target, world.layout.mode)
    for n, folder in folders.items():
        layers.make(folder, new[n], old[n], virtual_size(folder / old[n]))
    if on:
        _memory(world, obj, dom, target, new)
    else:
        _cold(world, obj, target)
    _copy(world.folder(obj) / "seed.iso", target / "seed.iso")
    _copy(world.folder(obj) / "seed.json", target / "seed.json")
    for n, folder in folders.items():
        layers.switch(folder, new[n], old[n])
    size = sum(p.stat().st_size for p in target.rglob("*") if p.is_file())
    found = Checkpoint(name, time.time(), on, old, size, world.uuid(obj), _definition(world, obj))
    files.write_json(target / RECORD, asdict(found))
    (world.folder(obj) / PENDING).unlink()
    world.perform(Step(Verb.DEFINE, obj.key), obj, Options(), emit)
    what = f"checkpoint {name} ({'with memory, ' if on else ''}{time.monotonic() - begin:.1f} s)"
    emit(Event(EventType.STEP, what, obj.ref, obj.namespace))
    return found


def _memory(world: Qemu, obj: Object, dom: Any, target: Path, new: dict[str, str]) -> None:
    lv = libvirt.module()
    root = ET.Element("domainsnapshot")
    ET.SubElement(root, "memory", snapshot="external", file=world.carrier.seen(target / MEMORY))
    disks = ET.SubElement(root, "disks")
    for element in ET.fromstring(dom.XMLDesc(0)).findall("devices/disk"):
        name = _name(element)
        dev = element.find("target").get("dev")  # type: ignore[union-attr]
        if name not in new:
            ET.SubElement(disks, "disk", name=dev, snapshot="no")
            continue
        disk = ET.SubElement(disks, "disk", name=dev, snapshot="external", type="file")
        ET.SubElement(disk, "driver", type="qcow2")
        path = world.layout.disk(obj.namespace, name) / new[name]
        _give(world, path)
        ET.SubElement(disk, "source", file=world.carrier.seen(path))
    flags = lv.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA | lv.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    flags |= lv.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    if dom.maxMemory() << 10 >= LIVE_FROM and libvirt.state(dom)[0] is RunState.RUNNING:
        flags |= lv.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE
    try:
        dom.snapshotCreateXML(ET.tostring(root, encoding="unicode"), flags)
    except lv.libvirtError as e:
        _undo(world, obj)
        raise libvirt.translated(e, f"the checkpoint of {obj.name} could not be taken") from None


def _give(world: Qemu, path: Path) -> None:
    """A layer made by root that QEMU, another user, opens while it runs."""
    if world.layout.root:
        import os

        os.chown(path, *world.carrier.qemu_ids)


def _cold(world: Qemu, obj: Object, target: Path) -> None:
    """Of a machine that is off: its firmware variables and its TPM."""
    _copy(world.folder(obj) / VARIABLES, target / VARIABLES)
    tpm = firmware.tpm_folder(world.layout) / world.uuid(obj)
    if tpm.is_dir():
        shutil.copytree(tpm, target / "tpm")


def _copy(source: Path, target: Path) -> None:
    """A copy with its owner, whole or not there; a source that is not there is none."""
    if not source.exists():
        return
    about = source.stat()
    with files.beside(target, about.st_mode & 0o777) as temporary:
        shutil.copyfile(source, temporary)
        with contextlib.suppress(PermissionError):
            shutil.chown(temporary, about.st_uid, about.st_gid)


def _name(element: ET.Element) -> str:
    alias = element.find("alias")
    return (alias.get("name", "") if alias is not None else "").removeprefix("ua-")


def _undo(world: Qemu, obj: Object) -> None:
    """A checkpoint that did not come about: nothing of it stays."""
    row = files.read_json(world.folder(obj) / PENDING) or {}
    for n, name in row.get("new", {}).items():
        (world.layout.disk(obj.namespace, n) / name).unlink(missing_ok=True)
    target = place(world, obj) / str(row.get("name"))
    if target.parent == place(world, obj) and not (target / RECORD).exists():
        shutil.rmtree(target, ignore_errors=True)
    (world.folder(obj) / PENDING).unlink(missing_ok=True)


def _definition(world: Qemu, obj: Object) -> str:
    return domain.digest(domain.domain(world.machine(obj, Options(), lambda e: None, keep=True)), cold=True)


def restore(world: Qemu, obj: Object, name: str, emit: Emit) -> float:
    """Back to a checkpoint, as often as wanted; under the locks. Seconds that it took."""
    settle(world, obj, emit)
    point = find(world, obj, name)
    if point.memory and point.definition not in ("", _definition(world, obj)):
        what = f"{obj.name} is another machine than at checkpoint {name}: its memory fits no more"
        raise HikubeError("HK806", what, fix="bring the manifest back to what it was, and up --restart")
    return _restore(world, obj, point, emit)


def _restore(world: Qemu, obj: Object, point: Checkpoint, emit: Emit) -> float:
    begin = time.monotonic()
    target, own = place(world, obj) / point.name, world.folder(obj)
    if point.memory and not _whole(target / MEMORY):
        raise HikubeError(
            "HK708", f"the memory of checkpoint {point.name} is damaged", fix=f"snapshot delete {obj.name} {point.name}"
        )
    folders = _disks(world, obj)
    if gone := sorted(set(point.frozen) - set(folders)):
        raise HikubeError("HK708", f"checkpoint {point.name} needs disks that are gone: {', '.join(gone)}")
    files.write_json(own / PENDING, {"verb": "restore", "name": point.name})
    dom = world.domain(obj)
    if dom is not None and dom.isActive():
        dom.destroy()
    mark = secrets.token_hex(4)
    for n, frozen in point.frozen.items():
        folder = folders[n]
        layers.make(folder, f"layer-{mark}.qcow2", frozen, virtual_size(folder / frozen))
        layers.switch(folder, f"layer-{mark}.qcow2", frozen)
    for part in ("seed.iso", "seed.json", *(() if point.memory else (VARIABLES,))):
        _copy(target / part, own / part)
    if not point.memory and (target / "tpm").is_dir():
        tpm = firmware.tpm_folder(world.layout) / world.uuid(obj)
        shutil.rmtree(tpm, ignore_errors=True)
        _copy_tree(target / "tpm", tpm)
    world.perform(Step(Verb.DEFINE, obj.key), obj, Options(), emit)
    try:
        if point.memory:
            _resume(world, obj, target)
    finally:
        # One that libvirt refuses is refused again: the machine stays off, on the checkpoint's disks.
        (own / PENDING).unlink()
    _sweep(world, obj)
    return time.monotonic() - begin


def _copy_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target)
    for path in [source, *source.rglob("*")]:
        about = path.stat()
        with contextlib.suppress(PermissionError):
            shutil.chown(target / path.relative_to(source), about.st_uid, about.st_gid)


def _whole(path: Path) -> bool:
    try:
        with open(path, "rb") as f:
            return f.read(len(WHOLE)) == WHOLE
    except OSError:
        return False


def _resume(world: Qemu, obj: Object, target: Path) -> None:
    """Start from memory. The persistent definition names the new layers already: restoring does not touch it."""
    lv = libvirt.module()
    connection = world.connection()
    assert connection is not None
    world.perform(Step(Verb.NETWORK, obj.key), obj, Options(), lambda e: None)
    world.carrier.make_sockets(world.tenants.tap(obj))
    image = world.carrier.seen(target / MEMORY)
    try:
        xml = _with_layers(world, obj, connection.saveImageGetXMLDesc(image, lv.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE))
        connection.restoreFlags(image, xml, lv.VIR_DOMAIN_SAVE_RUNNING)
        # It runs again, whatever was asked for since; QEMU's own network has forgotten its forwards.
        world.store.note(scope(obj.key), power=None)
        world.perform(Step(Verb.FORWARDS, obj.key), obj, Options(), lambda e: None)
    except lv.libvirtError as e:
        raise libvirt.translated(e, f"{obj.name} could not be started from its checkpoint") from None


def _with_layers(world: Qemu, obj: Object, xml: str) -> str:
    """The XML of a memory file with the disks as they are now."""
    ET.register_namespace("hikube", domain.NAMESPACE)
    root = ET.fromstring(xml)
    machine = world.machine(obj, Options(), lambda e: None, keep=True)
    _rehome(root, ET.fromstring(domain.domain(machine)))
    devices = {d.name: d for d in machine.disks}
    for element in root.findall("devices/disk"):
        device = devices.get(_name(element))
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


def delete(world: Qemu, obj: Object, name: str, emit: Emit) -> None:
    """Forget a checkpoint; layers that nothing stands on any more go with it. Under the locks."""
    settle(world, obj, emit)
    find(world, obj, name)
    files.remove_folder(place(world, obj) / name, world.layout.state)
    _sweep(world, obj)


def after_machine(world: Qemu, obj: Object, emit: Emit) -> None:
    """With a machine the checkpoint of its first boot goes; snapshots stay, as its disks do."""
    shutil.rmtree(place(world, obj) / FIRST_BOOT, ignore_errors=True)
    _sweep(world, obj)
    if stay := [c.name for c in all(world, obj)]:
        what = f"its snapshots stay ({', '.join(stay)}): they go with its disks (--disks)"
        emit(Event(EventType.HINT, what, obj.ref, obj.namespace))
    else:
        shutil.rmtree(place(world, obj), ignore_errors=True)


def after_disk(world: Qemu, disk: Object) -> None:
    """With a disk the checkpoints go that stand on it."""
    for path in (world.layout.state / "checkpoints" / disk.namespace).glob(f"*/*/{RECORD}"):
        row = files.read_json(path)
        if isinstance(row, dict) and disk.name in row.get("frozen", {}):
            files.remove_folder(path.parent, world.layout.state)
            with contextlib.suppress(OSError):
                path.parent.parent.rmdir()


def _sweep(world: Qemu, obj: Object) -> None:
    for n, folder in _disks(world, obj).items():
        layers.sweep(folder, [c.frozen[n] for c in all(world, obj) if n in c.frozen])


def settle(world: Qemu, obj: Object, emit: Emit) -> None:
    """Bring to an end what a kill cut short: a checkpoint is finished or undone, a way back is gone to its end."""
    row = files.read_json(world.folder(obj) / PENDING)
    if not isinstance(row, dict):
        return
    if row.get("verb") == "restore":
        found = [c for c in all(world, obj) if c.name == row.get("name")]
        (world.folder(obj) / PENDING).unlink(missing_ok=True)
        if found:
            emit(
                Event(EventType.STEP, f"goes back to checkpoint {found[0].name}, as was begun", obj.ref, obj.namespace)
            )
            _restore(world, obj, found[0], emit)
        return
    emit(Event(EventType.STEP, f"checkpoint {row.get('name')} was cut short", obj.ref, obj.namespace))
    dom = world.domain(obj)
    named = _named(dom) if dom is not None else {}
    for n, name in row.get("new", {}).items():
        folder = world.layout.disk(obj.namespace, n)
        if not virtual_size(folder / name):
            continue
        # libvirt says whether the machine went on in the new layer; of one that is off an empty layer is the same content.
        if named.get(n) == name or (dom is None or not dom.isActive()):
            layers.switch(folder, name, row["old"][n])
    _forget_unused(world, obj, row)
    if dom is not None and libvirt.state(dom)[0] is RunState.PAUSED:
        with contextlib.suppress(Exception):
            dom.resume()


def _forget_unused(world: Qemu, obj: Object, row: dict[str, Any]) -> None:
    for n, name in row.get("new", {}).items():
        folder = world.layout.disk(obj.namespace, n)
        if layers.read(folder).active != name:
            (folder / name).unlink(missing_ok=True)
    target = place(world, obj) / str(row.get("name"))
    if not (target / RECORD).exists() and target.parent == place(world, obj):
        shutil.rmtree(target, ignore_errors=True)
    (world.folder(obj) / PENDING).unlink(missing_ok=True)


def _named(dom: Any, flags: int = 0) -> dict[str, str]:
    """Which file libvirt names for each disk."""
    found = {}
    for element in ET.fromstring(dom.XMLDesc(flags)).findall("devices/disk"):
        source = element.find("source")
        if source is not None:
            found[_name(element)] = source.get("file", "").rpartition("/")[2]
    return found


def strayed(world: Qemu, obj: Object, dom: Any, flags: int) -> bool:
    """Whether a definition names other layers than the disks have now."""
    found = _named(dom, flags)
    return any(found.get(n, name) != name for n, name in active_layers(world, obj).items())


def active_layers(world: Qemu, obj: Object) -> dict[str, str]:
    return {n: layers.read(f).active for n, f in _disks(world, obj).items()}
