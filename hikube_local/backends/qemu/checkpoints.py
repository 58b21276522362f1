"""Checkpoints: disks, and memory, firmware variables and TPM with them while the machine runs; one mechanism for all.

A checkpoint is frozen disk layers and a memory file. A note of what is under way lies in the machine's folder before the
first step and goes after the last, so that a kill is healed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hikube_local import files
from hikube_local.api.objects import DISK, Object
from hikube_local.backends.protocol import Options
from hikube_local.backends.qemu import firmware, libvirt, memory, merge
from hikube_local.disks import layers
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.images.download import room
from hikube_local.images.inspect import virtual_size
from hikube_local.locks import locked
from hikube_local.plan.steps import RunState, Step, Verb
from hikube_local.render import domain
from hikube_local.render.machine import SEED, SEED_MARK, VARIABLES
from hikube_local.run import run

if TYPE_CHECKING:
    from hikube_local.backends.qemu.world import Qemu

PENDING = "pending.json"
RECORD = "checkpoint.json"
FIRST_BOOT = "configured"  # what `up` takes and `reset` goes back to
SEEDS, FIRMWARE = (SEED, SEED_MARK), (VARIABLES, firmware.MARK)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint: `frozen` names each disk's layer. Sizes in bytes."""

    name: str
    created: float
    memory: bool
    frozen: dict[str, str] = field(default_factory=dict)
    size: int = 0
    instance_id: str = ""
    definition: str = ""  # the digest of the machine that ran: memory fits no other one
    kept: bool = False  # made by a timer (--keep), which also deletes it


def _namespace(world: Qemu, namespace: str) -> Path:
    """Beside the machines: a snapshot outlives its machine, as its disks do."""
    return world.layout.state / "checkpoints" / namespace


def place(world: Qemu, obj: Object) -> Path:
    """The folder of a machine's checkpoints."""
    return _namespace(world, obj.namespace) / obj.name


def _records(folder: Path) -> Iterator[tuple[Path, Any]]:
    """(path, content) of the checkpoints of one machine, or of all in the folder of their namespace."""
    # Folders may go while we walk: another disk's deletion takes checkpoints with it.
    for top, _, found in os.walk(folder):
        if RECORD in found and not os.path.basename(top).startswith("."):  # what a deletion that was cut short left
            yield Path(top, RECORD), files.read_json(Path(top, RECORD))


def all(world: Qemu, obj: Object) -> list[Checkpoint]:
    """The whole ones, oldest first."""
    found = []
    for _, row in _records(place(world, obj)):
        with contextlib.suppress(TypeError):
            found.append(Checkpoint(**row))
    return sorted(found, key=lambda c: c.created)


def find(world: Qemu, obj: Object, name: str) -> Checkpoint:
    found = {c.name: c for c in all(world, obj)}
    if name not in found:
        have = ", ".join(found) or "none"
        raise HikubeError("HK804", f"{obj.name} has no checkpoint {name!r}", f"there are: {have}", "snapshot list NAME")
    return found[name]


@contextlib.contextmanager
def held(world: Qemu, obj: Object, emit: Emit) -> Iterator[Object]:
    """The locks of the machine and its disks, in their order; the machine as it is now."""

    def waiting(who: str) -> None:
        emit(Event(EventType.WAITING, f"waits for {who}", obj.ref, obj.namespace, code="HK609"))

    keys = sorted([obj.key, *((DISK, obj.namespace, d.name) for d in obj.instance.disks)])
    with contextlib.ExitStack() as stack:
        for key in keys:
            stack.enter_context(locked(world.layout.lock(*key), waiting))
        fresh = world.store.get(obj.key)
        if fresh is None or fresh.deletion:
            raise HikubeError("HK804", f"{obj.name} is gone meanwhile")
        yield fresh


def _disks(world: Qemu, obj: Object) -> dict[str, Path]:
    """Folders of the disks that can be written to."""
    out = {}
    for ref in obj.instance.disks:
        disk = world.store.get((DISK, obj.namespace, ref.name))
        if disk and not disk.disk.optical:
            out[ref.name] = world.layout.disk(obj.namespace, ref.name)
    return out


def create(world: Qemu, obj: Object, name: str, emit: Emit, kept: bool = False) -> Checkpoint:
    """Take a checkpoint; under the locks. The machine goes on, in new layers."""
    settle(world, obj, emit)
    target = place(world, obj) / name
    if target.exists():
        raise HikubeError(
            "HK806", f"{obj.name} has a checkpoint {name!r} already", fix="delete it first, or take another name"
        )
    dom = _running(world, obj)
    if dom:
        room(world.layout.state, dom.maxMemory() << 10)
    mark = secrets.token_hex(4)
    folders = _disks(world, obj)
    old = {n: layers.read(f).active for n, f in folders.items()}
    for n, folder in folders.items():
        if not virtual_size(folder / old[n]):
            raise HikubeError("HK708", f"the disk {n} is not there yet", fix=f"hikube-local describe vmdisk {n}")
    if dom and (strange := sorted(memory.writable(dom.XMLDesc(0)) - set(folders))):
        what = f"{obj.name} still runs with {', '.join(strange)}, which its manifest has no more"
        raise HikubeError("HK806", what, fix=f"hikube-local restart {obj.name}, then take it")
    new = {n: f"layer-{mark}.qcow2" for n in folders}
    files.write_json(world.folder(obj) / PENDING, {"verb": "create", "name": name, "old": old, "new": new})
    begin = time.monotonic()
    files.make_folder(target, world.layout.mode)
    for n, folder in folders.items():
        layers.make(folder, new[n], old[n], virtual_size(folder / old[n]))
    if dom:
        try:
            memory.write(world, obj, dom, target, new)
        except HikubeError:
            with contextlib.suppress(HikubeError):
                settle(world, obj, emit)  # it may have come about all the same
            raise
    for n, folder in folders.items():
        layers.switch(folder, new[n], old[n])
    if not dom:
        _cold(world, obj, target)
    for part in SEEDS:
        _copy(world.folder(obj) / part, target / part)
    size = sum(p.stat().st_size for p in target.rglob("*") if p.is_file())
    ran = domain.digest(dom.XMLDesc(0), cold=True) if dom else ""
    found = Checkpoint(name, time.time(), bool(dom), old, size, world.uuid(obj), ran, kept)
    files.write_json(target / RECORD, asdict(found))
    (world.folder(obj) / PENDING).unlink()
    _define(world, obj, dom, emit)
    what = f"checkpoint {name} ({'with memory, ' if dom else ''}{time.monotonic() - begin:.1f} s)"
    emit(Event(EventType.STEP, what, obj.ref, obj.namespace))
    return found


def _running(world: Qemu, obj: Object) -> Any | None:
    """The domain of a machine that runs, else None."""
    dom = world.domain(obj)
    return dom if dom is not None and dom.isActive() else None


def _cold(world: Qemu, obj: Object, target: Path) -> None:
    """Of a machine that is off: its firmware variables, what they were made for, and its TPM."""
    for part in FIRMWARE:
        _copy(world.folder(obj) / part, target / part)
    tpm = firmware.tpm_folder(world.layout) / world.uuid(obj)
    if tpm.is_dir():
        _copy_tree(tpm, target / "tpm")


def _copy(source: Path, target: Path) -> None:
    """A copy with its owner, whole or not there; a source that is not there is none."""
    if not source.exists():
        return
    about = source.stat()
    files.write(target, source.read_bytes(), about.st_mode & 0o777)
    with contextlib.suppress(PermissionError):
        shutil.chown(target, about.st_uid, about.st_gid)


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
    if point.memory and not memory.whole(target / memory.FILE):
        raise HikubeError(
            "HK708", f"the memory of checkpoint {point.name} is damaged", fix=f"snapshot delete {obj.name} {point.name}"
        )
    folders = _disks(world, obj)
    if gone := sorted(set(point.frozen) - set(folders)):
        raise HikubeError("HK708", f"checkpoint {point.name} needs disks that are gone: {', '.join(gone)}")
    for n, frozen in point.frozen.items():
        chain = layers.read(folders[n]).chain(frozen)
        if lost := [part for part in chain if not (folders[n] / part).exists()]:
            raise HikubeError("HK708", f"checkpoint {point.name} stands on {lost[0]} of disk {n}, which is gone")
    if point.memory:
        world.perform(Step(Verb.NETWORK, obj.key), obj, Options(), lambda e: None)
    if dom := _running(world, obj):
        lv = libvirt.module()
        try:
            dom.destroy()
        except lv.libvirtError as e:
            raise libvirt.translated(e, f"{obj.name} could not be switched off") from None
    # From here on the way back is gone to its end, also over a kill.
    files.write_json(own / PENDING, {"verb": "restore", "name": point.name})
    mark = secrets.token_hex(4)
    for n, frozen in point.frozen.items():
        folder = folders[n]
        layers.make(folder, f"layer-{mark}.qcow2", frozen, virtual_size(folder / frozen))
        layers.switch(folder, f"layer-{mark}.qcow2", frozen)
    for part in SEEDS:
        _copy(target / part, own / part)
    if not point.memory:
        for part in FIRMWARE:
            (own / part).unlink(missing_ok=True)
            _copy(target / part, own / part)
        firmware.forget_tpm(world.layout, world.uuid(obj))
        if (target / "tpm").is_dir():
            _copy_tree(target / "tpm", firmware.tpm_folder(world.layout) / world.uuid(obj))
    world.perform(Step(Verb.DEFINE, obj.key), obj, Options(), emit)
    try:
        if point.memory:
            memory.resume(world, obj, target)
    finally:
        # One that libvirt refuses is refused again: the machine stays off, on the checkpoint's disks.
        (own / PENDING).unlink()
    _sweep(world, obj)
    return time.monotonic() - begin


def _copy_tree(source: Path, target: Path) -> None:
    """A copy with owners and modes; nobody else may enter while it is made."""
    target.mkdir(mode=0o700)
    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=lambda s, t: _copy(Path(s), Path(t)))
    for path in [source, *(p for p in source.rglob("*") if p.is_dir())]:
        about = path.stat()
        with contextlib.suppress(PermissionError):
            shutil.chown(target / path.relative_to(source), about.st_uid, about.st_gid)


def delete(world: Qemu, obj: Object, name: str, emit: Emit) -> None:
    """Forget a checkpoint; layers that no checkpoint stands on any more go with it. Under the locks."""
    row = files.read_json(world.folder(obj) / PENDING)
    if isinstance(row, dict) and (row.get("verb"), row.get("name")) == ("restore", name):
        (world.folder(obj) / PENDING).unlink()  # a way back that cannot be gone is left so
    elif isinstance(row, dict):
        settle(world, obj, emit)
    find(world, obj, name)
    files.remove_object(place(world, obj) / name, world.layout.state)
    _sweep(world, obj)
    try:
        _merge(world, obj, emit)
    except HikubeError as e:
        what = f"the checkpoint is gone; its layers stay unmerged: {e.what}"
        emit(Event(EventType.WARNING, what, obj.ref, obj.namespace, code=e.code, data={"why": e.why}))


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
    for path, row in list(_records(_namespace(world, disk.namespace))):
        if isinstance(row, dict) and disk.name in row.get("frozen", {}):
            files.remove_folder(path.parent, world.layout.state)
            with contextlib.suppress(OSError):
                path.parent.parent.rmdir()


def _frozen(world: Qemu, namespace: str) -> dict[str, list[str]] | None:
    """The layers that checkpoints of any machine stand on, by disk; None while a record cannot be read."""
    frozen: dict[str, list[str]] = {}
    for _, row in _records(_namespace(world, namespace)):
        if not isinstance(row, dict) or not isinstance(row.get("frozen"), dict):
            return None
        for n, name in row["frozen"].items():
            frozen.setdefault(n, []).append(name)
    return frozen


def _sweep(world: Qemu, obj: Object) -> None:
    """Layers that nothing stands on go."""
    frozen = _frozen(world, obj.namespace)
    if frozen is not None:
        for n, folder in _disks(world, obj).items():
            layers.sweep(folder, frozen.get(n, []))


def _merge(world: Qemu, obj: Object, emit: Emit) -> None:
    """Layers that only another layer stands on go into it."""
    dom, begin, count = _running(world, obj), time.monotonic(), 0
    while (frozen := _frozen(world, obj.namespace)) is not None:
        flip = next(merge.wanted(_disks(world, obj), frozen, dom), None)
        if flip is None:
            break
        note = {"verb": "merge", "flip": flip, "down": False}
        files.write_json(world.folder(obj) / PENDING, note)
        try:
            merge.down(world, obj, dom, flip)
        except HikubeError:
            if dom is None:  # else libvirt may still be at it, and `settle` looks how it ended
                (world.folder(obj) / PENDING).unlink()
            raise
        files.write_json(world.folder(obj) / PENDING, note | {"down": True})
        _give_up(world, obj, dom, flip, emit)
        count += 1
    if count:
        what = f"{count} layer{'s' if count > 1 else ''} merged ({time.monotonic() - begin:.1f} s)"
        emit(Event(EventType.STEP, what, obj.ref, obj.namespace))


def _give_up(world: Qemu, obj: Object, dom: Any | None, flip: merge.Flip, emit: Emit) -> None:
    """The end of a merge: names, definition, the file, the note."""
    gone = merge.rename(world, obj, dom, flip, _records(_namespace(world, obj.namespace)))
    _define(world, obj, dom, emit)
    gone.unlink(missing_ok=True)
    (world.folder(obj) / PENDING).unlink()


def _settle_merge(world: Qemu, obj: Object, row: dict[str, Any], emit: Emit) -> None:
    """Finished where all of the content is below for certain, else left as it was: each layer still has its own."""
    name, lower, upper = row["flip"]
    dom, folder = _running(world, obj), _disks(world, obj).get(name)
    if folder is None:
        finish = False  # the disk is another machine's now, which may have written to it
    elif dom:
        if (disk := libvirt.disks(dom.XMLDesc(0)).get(name)) is not None:
            merge.await_end(dom, disk.find("target").get("dev"))  # type: ignore[union-attr]
        now = merge.chain(dom.XMLDesc(0), name)
        finish = lower in now and upper not in now
    else:
        finish = bool(row["down"])
        if finish and (folder / upper).exists():
            merge.down(world, obj, None, (name, lower, upper))  # somebody may have started it by other means
    if finish:
        _give_up(world, obj, dom, (name, lower, upper), emit)
    else:
        (world.folder(obj) / PENDING).unlink()


def _define(world: Qemu, obj: Object, dom: Any | None, emit: Emit) -> None:
    """Write the definition anew, unless the restart that it waits for does (another UUID)."""
    if not dom or dom.UUIDString() == world.uuid(obj):
        world.perform(Step(Verb.DEFINE, obj.key), obj, Options(), emit)


def pending(world: Qemu, obj: Object) -> bool:
    """Whether something is under way, or was cut short."""
    return (world.folder(obj) / PENDING).exists()


def settle(world: Qemu, obj: Object, emit: Emit, going: bool = False) -> None:
    """Bring to an end what a kill cut short: a checkpoint is finished or undone, a way back is gone to its end.

    A machine that is `going` goes back nowhere.
    """
    row = files.read_json(world.folder(obj) / PENDING)
    if not isinstance(row, dict):
        return
    if row.get("verb") == "merge":
        _settle_merge(world, obj, row, emit)
        return
    if row.get("verb") == "restore":
        found = [c for c in all(world, obj) if c.name == row.get("name")]
        if not found or going:
            (world.folder(obj) / PENDING).unlink(missing_ok=True)
        else:
            emit(
                Event(EventType.STEP, f"goes back to checkpoint {found[0].name}, as was begun", obj.ref, obj.namespace)
            )
            _restore(world, obj, found[0], emit)
        return
    emit(Event(EventType.STEP, f"checkpoint {row.get('name')} was cut short", obj.ref, obj.namespace))
    dom = _running(world, obj)
    if dom:
        memory.await_job(dom)
    named = memory.named(dom.XMLDesc(0)) if dom else {}
    for n, name in row.get("new", {}).items():
        folder = world.layout.disk(obj.namespace, n)
        if not virtual_size(folder / name):
            continue
        # libvirt says whether the machine went on in the new layer; of one that is off an empty layer is the same content.
        if not dom or named.get(n) == name:
            layers.switch(folder, name, row["old"][n])
    _forget_unused(world, obj, row)
    if dom and libvirt.state(dom)[0] is RunState.PAUSED:
        with contextlib.suppress(Exception):
            dom.resume()


def _forget_unused(world: Qemu, obj: Object, row: dict[str, Any]) -> None:
    for n, name in row.get("new", {}).items():
        folder = world.layout.disk(obj.namespace, n)
        if layers.read(folder).active != name and not _open(folder / name):
            (folder / name).unlink(missing_ok=True)
    target = place(world, obj) / str(row.get("name"))
    if not (target / RECORD).exists() and target.parent == place(world, obj):
        shutil.rmtree(target, ignore_errors=True)
    (world.folder(obj) / PENDING).unlink(missing_ok=True)


def _open(path: Path) -> bool:
    """Whether QEMU has the file open: its own lock refuses the look."""
    return path.exists() and run(["qemu-img", "info", "-f", "qcow2", path], check=False).returncode != 0


def strayed(world: Qemu, obj: Object, xml: str) -> bool:
    """Whether a definition names other layers than the disks have now."""
    for n, folder in _disks(world, obj).items():
        have = layers.read(folder)
        own, named = have.chain(have.active), merge.chain(xml, n)
        if named and named[: len(own)] != own:
            return True
    return False
