"""Checkpoints: disks, and memory, firmware variables and TPM with them while the machine runs; one mechanism for all.

A checkpoint is frozen disk layers and a memory file. A note of what is under way lies in the machine's folder before the
first step and goes after the last, so that a kill is healed.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hikube_local import files, mux
from hikube_local.api.objects import INSTANCE, Object
from hikube_local.backends.capabilities import FIRST_BOOT, Snapshot, by_name
from hikube_local.backends.qemu import firmware, libvirt
from hikube_local.backends.qemu.agent import Agent
from hikube_local.backends.qemu.checkpoints import memory, merge, records
from hikube_local.backends.qemu.context import CHECKPOINT, Context
from hikube_local.backends.qemu.machine import definition, refresh, spec
from hikube_local.disks import layers
from hikube_local.errors import HikubeError, unexpected
from hikube_local.events import Emit, Event, EventType
from hikube_local.images.download import room
from hikube_local.images.inspect import virtual_size
from hikube_local.locks import locked
from hikube_local.plan.steps import RunOptions, RunState
from hikube_local.render import domain
from hikube_local.render.machine import SEED, SEED_MARK, VARIABLES
from hikube_local.run import run
from hikube_local.store.db import logins

SEEDS, FIRMWARE = (SEED, SEED_MARK), (VARIABLES, firmware.MARK)


@contextlib.contextmanager
def held(context: Context, obj: Object, emit: Emit) -> Iterator[Object]:
    """The locks of the machine and its disks, in their order; the machine as it is now."""

    def waiting(who: str) -> None:
        emit(Event(EventType.WAITING, f"waits for {who}", obj.ref, obj.namespace, code="HK609"))

    keys = sorted([obj.key, *obj.disk_keys])
    with contextlib.ExitStack() as stack:
        for key in keys:
            stack.enter_context(locked(context.layout.lock(*key), waiting))
        fresh = context.store.get(obj.key)
        if fresh is None or fresh.deletion:
            raise HikubeError("HK804", f"{obj.name} was deleted in the meantime")
        yield fresh


def take(context: Context, obj: Object, name: str, emit: Emit, keep: int | None = None) -> None:
    """Take one; with `keep` only so many of those that were taken with it stay."""
    with held(context, obj, emit) as obj:
        create(context, obj, name, emit, kept=keep is not None)
        old = [c.name for c in records.all(context, obj) if c.kept] if keep else []
        for gone in old[: -keep if keep else None]:
            delete(context, obj, gone, emit)


def go_back(context: Context, obj: Object, point: Snapshot, emit: Emit) -> float:
    """Restore it and tell the guest what it slept through; the seconds that the way back took."""
    with held(context, obj, emit) as obj:
        seconds, kept = restore(context, obj, point.name, emit)
        if kept.memory:
            context.store.keep(obj.key, power=None)  # it runs again, whatever was asked for since
    if kept.memory:
        refresh.woken(context, obj, time.time() - kept.created, kept.agent, emit)
    return seconds


def keep_first_boot(context: Context, obj: Object, emit: Emit) -> None:
    """The checkpoint that `reset` goes back to, once for an identity of the machine."""
    identity = context.uuid(obj)
    if context.store.lease(obj.key).configured == identity:
        return
    with held(context, obj, emit) as obj:
        if context.store.lease(obj.key).configured == identity:
            return  # somebody else took it while we waited
        if any(c.name == FIRST_BOOT for c in records.all(context, obj)):
            # Of another identity (a new cloudInitSeed), or its note was lost to a kill.
            delete(context, obj, FIRST_BOOT, emit)
        create(context, obj, FIRST_BOOT, emit)
        context.store.keep(obj.key, configured=identity)


def create(context: Context, obj: Object, name: str, emit: Emit, kept: bool = False) -> records.Checkpoint:
    """Take a checkpoint; under the locks. The machine goes on, in new layers."""
    settle(context, obj, emit)
    target = records.place(context, obj) / name
    if target.exists():
        raise HikubeError(
            "HK806", f"{obj.name} has a checkpoint {name!r} already", fix="delete it first, or take another name"
        )
    dom = context.active(obj)
    if dom:
        room(context.layout.state, dom.maxMemory() << 10)
    mark = secrets.token_hex(4)
    folders = context.writable_disks(obj)
    old = {n: layers.read(f).active for n, f in folders.items()}
    for n, folder in folders.items():
        if not virtual_size(folder / old[n]):
            raise HikubeError("HK708", f"the disk {n} is not there yet", fix=f"hikube-local describe vmdisk {n}")
    if dom and (strange := sorted(memory.writable(dom.XMLDesc(0)) - set(folders))):
        what = f"{obj.name} still runs with {', '.join(strange)}, which its manifest no longer has"
        raise HikubeError("HK806", what, fix=f"hikube-local restart {obj.name}, then take it")
    new = {n: f"layer-{mark}.qcow2" for n in folders}
    files.write_json(context.pending(obj), {"verb": "create", "name": name, "old": old, "new": new})
    begin = time.monotonic()
    files.make_folder(target, context.layout.mode)
    for n, folder in folders.items():
        layers.make(folder, new[n], old[n], virtual_size(folder / old[n]))
    if dom:
        try:
            memory.write(context, obj, dom, target, new)
        except HikubeError:
            with contextlib.suppress(HikubeError):
                settle(context, obj, emit)  # it may have come about all the same
            raise
    for n, folder in folders.items():
        layers.switch(folder, new[n], old[n])
    if not dom:
        _cold(context, obj, target)
    for part in SEEDS:
        _copy(context.folder(obj) / part, target / part)
    size = sum(p.stat().st_size for p in target.rglob("*") if p.is_file())
    ran = domain.digest(dom.XMLDesc(0), cold=True) if dom else ""
    accelerator = context.store.lease(obj.key).ran_with if dom else ""
    agent = dom is not None and Agent(dom).connected()
    found = records.Checkpoint(
        name, time.time(), bool(dom), old, size, context.uuid(obj), ran, kept, accelerator, agent
    )
    files.write_json(target / CHECKPOINT, asdict(found))
    context.pending(obj).unlink()
    records.define(context, obj, dom)
    what = f"checkpoint {name} ({'with memory, ' if dom else ''}{time.monotonic() - begin:.1f} s)"
    emit(Event(EventType.STEP, what, obj.ref, obj.namespace))
    return found


def _cold(context: Context, obj: Object, target: Path) -> None:
    """Of a machine that is off: its firmware variables, what they were made for, and its TPM."""
    for part in FIRMWARE:
        _copy(context.folder(obj) / part, target / part)
    tpm = firmware.tpm_folder(context.layout) / context.uuid(obj)
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


def _definition(context: Context, obj: Object) -> str:
    return domain.digests(spec.machine(context, obj, RunOptions())).cold


def restore(
    context: Context, obj: Object, name: str, emit: Emit, begun: Callable[[], object] = lambda: None
) -> tuple[float, records.Checkpoint]:
    """Back to a checkpoint, as often as wanted; under the locks. The seconds that it took, and the checkpoint.

    `begun` is called when the way back is noted, from when on it is gone to its end, also over a kill.
    """
    settle(context, obj, emit)
    point = by_name(records.all(context, obj), obj, name)
    if point.memory and point.definition not in ("", _definition(context, obj)):
        what = f"{obj.name} has changed since checkpoint {name}: the saved memory no longer fits"
        raise HikubeError("HK806", what, fix="restore the earlier manifest, then up --restart")
    return _restore(context, obj, point, emit, begun), point


def _restore(
    context: Context, obj: Object, point: records.Checkpoint, emit: Emit, begun: Callable[[], object] = lambda: None
) -> float:
    begin = time.monotonic()
    target, own = records.place(context, obj) / point.name, context.folder(obj)
    if point.memory and not memory.whole(target / memory.FILE):
        raise HikubeError(
            "HK708", f"the memory of checkpoint {point.name} is damaged", fix=f"snapshot delete {obj.name} {point.name}"
        )
    folders = context.writable_disks(obj)
    if gone := sorted(set(point.frozen) - set(folders)):
        raise HikubeError("HK708", f"checkpoint {point.name} needs disks that are gone: {', '.join(gone)}")
    for n, frozen in point.frozen.items():
        chain = layers.read(folders[n]).chain(frozen)
        if lost := [part for part in chain if not (folders[n] / part).exists()]:
            raise HikubeError("HK708", f"checkpoint {point.name} needs {lost[0]} of disk {n}, which is missing")
    if point.memory:
        definition.network(context, obj)
    if dom := context.active(obj):
        lv = libvirt.module()
        try:
            libvirt.switch_off(dom)
        except lv.libvirtError as e:
            raise libvirt.translated(e, f"{obj.name} could not be switched off") from None
    # From here on the way back is gone to its end, also over a kill.
    files.write_json(context.pending(obj), {"verb": "restore", "name": point.name})
    begun()
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
        firmware.forget_tpm(context.layout, context.uuid(obj))
        if (target / "tpm").is_dir():
            _copy_tree(target / "tpm", firmware.tpm_folder(context.layout) / context.uuid(obj))
    # Whom the guest lets in, and its host keys, are those of then: what was learned since is asked anew (access/ssh.py).
    context.store.note(logins(obj.key), users=None, disk=None)
    mux.close(context.layout, obj.uid)
    definition.define(context, obj, RunOptions())
    try:
        if point.memory:
            memory.resume(context, obj, target)
    finally:
        # One that libvirt refuses is refused again: the machine stays off, on the checkpoint's disks.
        context.pending(obj).unlink()
    _sweep(context, obj)
    return time.monotonic() - begin


def _copy_tree(source: Path, target: Path) -> None:
    """A copy with owners and modes; nobody else may enter while it is made."""
    target.mkdir(mode=0o700)
    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=lambda s, t: _copy(Path(s), Path(t)))
    for path in [source, *(p for p in source.rglob("*") if p.is_dir())]:
        about = path.stat()
        with contextlib.suppress(PermissionError):
            shutil.chown(target / path.relative_to(source), about.st_uid, about.st_gid)


def delete(context: Context, obj: Object, name: str, emit: Emit) -> None:
    """Forget a checkpoint; layers that no checkpoint stands on any more go with it. Under the locks."""
    row = files.read_json(context.pending(obj))
    if isinstance(row, dict) and (row.get("verb"), row.get("name")) == ("restore", name):
        context.pending(obj).unlink()  # a way back that cannot be gone is left so
    elif isinstance(row, dict):
        settle(context, obj, emit)
    by_name(records.all(context, obj), obj, name)
    files.remove_object(records.place(context, obj) / name, context.layout.state)
    _sweep(context, obj)
    try:
        merge.lone(context, obj, emit)
    except HikubeError as e:
        _unmerged(obj, "the checkpoint is deleted, but its layers", e, emit)


def before_machine(context: Context, obj: Object, emit: Emit) -> None:
    """With a machine that goes the checkpoint of its first boot goes, and the layer that its disks have for it alone.

    Its disks may be many machines' one after the other: each leaves as many layers as it found.
    """
    try:
        shared = _shared(context, obj)
        context.store.keep(obj.key, configured=None)  # one that comes back after all takes it anew
        files.remove_object(records.place(context, obj) / FIRST_BOOT, context.layout.state)
        _sweep(context, obj, shared)
        merge.lone(context, obj, emit, shared)
    except Exception as error:  # nothing of it may keep a machine from going
        _unmerged(obj, "the layers of its disks", unexpected(error), emit)


def _unmerged(obj: Object, which: str, e: HikubeError, emit: Emit) -> None:
    what = f"{which} were not merged: {e.what}"
    emit(Event(EventType.WARNING, what, obj.ref, obj.namespace, code=e.code, data={"why": e.why}))


def _shared(context: Context, obj: Object) -> frozenset[str]:
    """Disks that another machine of the store names too: its own end brings their layers to order."""
    others = [o for o in context.store.objects(INSTANCE, obj.namespace) if o.key != obj.key]
    return frozenset(d.name for o in others for d in o.instance.disks)


def after_machine(context: Context, obj: Object, emit: Emit) -> None:
    """Snapshots stay, as its disks do."""
    shutil.rmtree(records.place(context, obj) / FIRST_BOOT, ignore_errors=True)  # what `before_machine` could not
    if stay := [c.name for c in records.all(context, obj)]:
        what = f"its snapshots are kept ({', '.join(stay)}): they are deleted with its disks (--disks)"
        emit(Event(EventType.HINT, what, obj.ref, obj.namespace))
    else:
        shutil.rmtree(records.place(context, obj), ignore_errors=True)


def after_disk(context: Context, disk: Object) -> None:
    """With a disk the checkpoints go that stand on it."""
    for path, row in list(records.walk(records.namespace_folder(context, disk.namespace))):
        if isinstance(row, dict) and disk.name in row.get("frozen", {}):
            files.remove_folder(path.parent, context.layout.state)
            with contextlib.suppress(OSError):
                path.parent.parent.rmdir()


def _sweep(context: Context, obj: Object, shared: frozenset[str] = frozenset()) -> None:
    """Layers that nothing stands on go; not those of `shared` disks."""
    frozen = records.frozen_layers(context, obj.namespace)
    if frozen is not None:
        for n, folder in context.writable_disks(obj).items():
            if n not in shared:
                layers.sweep(folder, frozen.get(n, []))


def settle(context: Context, obj: Object, emit: Emit, going: bool = False) -> None:
    """Bring to an end what a kill cut short: a checkpoint is finished or undone, a way back is gone to its end.

    A machine that is `going` goes back nowhere.
    """
    row = files.read_json(context.pending(obj))
    if not isinstance(row, dict):
        return
    if row.get("verb") == "merge":
        try:
            merge.settle(context, obj, row, emit)
        except HikubeError as e:
            if not going:
                raise
            # Its layers are whole as they are; the next machine on the disk merges them.
            _unmerged(obj, "the layers of its disks", e, emit)
            context.pending(obj).unlink(missing_ok=True)
        return
    if row.get("verb") == "restore":
        found = [c for c in records.all(context, obj) if c.name == row.get("name")]
        if not found or going:
            context.pending(obj).unlink(missing_ok=True)
        else:
            what = f"completing the interrupted restore of checkpoint {found[0].name}"
            emit(Event(EventType.STEP, what, obj.ref, obj.namespace))
            _restore(context, obj, found[0], emit)
            if found[0].memory:
                context.store.keep(obj.key, power=None)
        return
    emit(Event(EventType.STEP, f"checkpoint {row.get('name')} was interrupted", obj.ref, obj.namespace))
    dom = context.active(obj)
    if dom:
        memory.await_job(dom)
    named = memory.named(dom.XMLDesc(0)) if dom else {}
    for n, name in row.get("new", {}).items():
        folder = context.layout.disk(obj.namespace, n)
        if not virtual_size(folder / name):
            continue
        # libvirt says whether the machine went on in the new layer; of one that is off an empty layer is the same content.
        if not dom or named.get(n) == name:
            layers.switch(folder, name, row["old"][n])
    _forget_unused(context, obj, row)
    if dom and libvirt.state(dom)[0] is RunState.PAUSED:
        with contextlib.suppress(Exception):
            dom.resume()


def _forget_unused(context: Context, obj: Object, row: dict[str, Any]) -> None:
    for n, name in row.get("new", {}).items():
        folder = context.layout.disk(obj.namespace, n)
        if layers.read(folder).active != name and not _open(folder / name):
            (folder / name).unlink(missing_ok=True)
    target = records.place(context, obj) / str(row.get("name"))
    if not (target / CHECKPOINT).exists() and target.parent == records.place(context, obj):
        shutil.rmtree(target, ignore_errors=True)
    context.pending(obj).unlink(missing_ok=True)


def _open(path: Path) -> bool:
    """Whether QEMU has the file open: its own lock refuses the look."""
    return path.exists() and run(["qemu-img", "info", "-f", "qcow2", path], check=False).returncode != 0
