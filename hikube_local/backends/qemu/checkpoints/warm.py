"""Warm starts, of `up --warm` and of `test`: a machine that was configured once goes on from there when nothing that matters has
changed.

What is kept is the checkpoint of its first boot with the layers that it stands on. What matters makes the key: image, seed,
the machine's description and addresses, QEMU's version, the CPU and the accelerator. A note lies in the machine's folder while
it is brought up so, and a kill is healed to a machine that has never run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from hikube_local import files
from hikube_local.api.names import WARM
from hikube_local.api.objects import DISK, Key, Object
from hikube_local.backends.capabilities import FIRST_BOOT
from hikube_local.backends.qemu import boot_marks, libvirt
from hikube_local.backends.qemu.checkpoints import operations, records
from hikube_local.backends.qemu.context import CHECKPOINT, Context
from hikube_local.backends.qemu.machine import definition, refresh, spec
from hikube_local.disks import layers, qcow2
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.host.facts import asleep
from hikube_local.locks import locked
from hikube_local.plan.steps import RunOptions
from hikube_local.render import layout, seed
from hikube_local.render.machine import SEED, SEED_MARK
from hikube_local.run import run
from hikube_local.store import bodies
from hikube_local.text import age as words
from hikube_local.userdata.anew import anew

MOST, LARGEST, OLDEST = (
    10,
    20 << 30,
    30 * 86400.0,
)  # states that are kept, their bytes together, seconds since the last use
NOTE = "warm.json"  # in the machine's folder: which disks were put aside for a warm start that is under way
FIRST = "first-boot.json"  # there while a first boot is under way that may be kept: its key
ASIDE = "aside.qcow2"  # a disk's own first layer meanwhile
_LOGS = ("console.log", "firmware.log", boot_marks.FILE)
_MACHINE = (*_LOGS, SEED, SEED_MARK)


def start(context: Context, obj: Object, options: RunOptions, emit: Emit) -> bool:
    """Bring a machine up from the state after an earlier first boot; False where it has to boot. Under its locks."""
    folder, where = context.folder(obj), options.warm
    (folder / FIRST).unlink(missing_ok=True)
    if (said := obj.annotations.get(WARM, "").lower()) == "false" or (where is None and not said):
        return False
    if context.store.intent(obj.key).started_before or not obj.instance.has_seed:
        return False
    if why := anew(obj.instance.cloudInit) or _used(context, obj):
        emit(Event(EventType.HINT, f"no warm start: {why}", obj.ref, obj.namespace))
        return False
    where = where or context.layout.warm
    name = key(context, obj)
    if (where / name / "checkpoint" / CHECKPOINT).exists():
        try:
            with locked(where / "lock"):
                seconds, old = _resume(context, obj, where / name, emit)
        except (HikubeError, OSError) as e:
            why = f"{e.what}: {e.why}" if isinstance(e, HikubeError) and e.why else str(e)
            what = f"the warm state cannot be used, so the machine boots: {why}"
            emit(Event(EventType.WARNING, what, obj.ref, obj.namespace))
            settle(context, obj)
            shutil.rmtree(where / name, ignore_errors=True)
        else:
            what = f"resumed in {seconds:.1f} s from the state after its first boot, {words(old)} ago; what was generated then is the same"
            emit(Event(EventType.STEP, what, obj.ref, obj.namespace))
            return True
    files.write_json(folder / FIRST, name)
    return False


def _used(context: Context, obj: Object) -> str:
    """Why its disks are not as they were made, or nothing."""
    for name, folder in context.writable_disks(obj).items():
        if not qcow2.untouched(folder):
            return f"the disk {name} has content of its own"
    return ""


def key(context: Context, obj: Object) -> str:
    """What must be the same, as a digest; its disks and addresses must be there."""
    machine = spec.machine(context, obj, RunOptions())
    content = seed.seed(obj, machine.uuid)
    disks = []
    for device in machine.disks:
        about = qcow2.facts(context.layout.disk(obj.namespace, device.name))
        stored = context.store.get(Key(DISK, obj.namespace, device.name))
        disks.append((device.name, device.bus, device.optical, about, stored.disk.storage if stored else ""))
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    plain = replace(machine, tap="", further=(), places=None, disks=(), owner=None)  # type: ignore[arg-type]
    parts = (
        plain,
        disks,
        content and content.digest,
        cpu,
        run(["qemu-system-x86_64", "--version"], timeout=20).stdout,
        type(context.sandbox).__name__,
        (context.tenants.ip(obj), *((n.mac, n.ip) for n in context.tenants.further(obj))),
        layout.VERSION,
        FIRST_BOOT,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _resume(context: Context, obj: Object, source: Path, emit: Emit) -> tuple[float, float]:
    """The seconds that it took, and how old the state is."""
    begin = time.monotonic()
    own = context.make_folder(obj)
    point = records.of_record(files.read_json(source / "checkpoint" / CHECKPOINT))
    if point is None or set(point.frozen) != set(context.writable_disks(obj)):
        raise HikubeError("HK708", f"the warm state {source.name[:12]} is damaged")
    bodies.record(own, obj)
    files.write_json(own / NOTE, sorted(point.frozen))
    for disk in point.frozen:
        folder = context.layout.disk(obj.namespace, disk)
        os.replace(folder / layers.FIRST, folder / ASIDE)
        _link(source / f"disk-{disk}.qcow2", folder / layers.FIRST)
    for part in _MACHINE:
        if (source / part).exists():
            shutil.copy2(source / part, own / part)
    _began_now(own)
    target = records.place(context, obj) / FIRST_BOOT
    files.make_folder(target.parent, context.layout.mode)
    shutil.copytree(source / "checkpoint", target, copy_function=_link)
    # Sockets and taps of this root differ, and are brought along.
    files.write_json(target / CHECKPOINT, asdict(replace(point, definition="")))
    operations.restore(context, obj, FIRST_BOOT, emit)
    seconds = time.monotonic() - begin
    _note(context, obj, seconds)
    (own / NOTE).unlink()
    _forget_aside(context, obj)
    refresh.woken(context, obj, time.time() - point.created, point.agent, emit)
    os.utime(source)
    return seconds, time.time() - point.created


def _began_now(own: Path) -> None:
    """The marks of where a start begins hold inodes, which are others here; the last start is this one."""
    rows = boot_marks.all(own)
    for row in rows:
        for log in ("console", "firmware"):
            if log in row:
                with contextlib.suppress(FileNotFoundError):
                    row[log] = [(own / f"{log}.log").stat().st_ino, row[log][1]]
    if rows:
        rows[-1]["time"] = time.time()
    files.write_json(own / boot_marks.FILE, rows)


def _note(context: Context, obj: Object, seconds: float) -> None:
    """What a boot would have left in the store."""
    choice, identity = context.accelerator(obj), context.uuid(obj)
    began = boot_marks.all(context.folder(obj))[-1]["time"]
    context.store.keep(
        obj.key,
        ran_with=choice.word,
        ran_by=choice.by or None,
        started_before=True,
        cloud_init={"start": began, "ok": True},
        up=began,
        done_as=identity,
        configured=identity,
        asleep=asleep(),
        again=None,
        answered=None,
        resumed=round(seconds, 2),
    )


def settle(context: Context, obj: Object) -> None:
    """A warm start that was cut short: the machine has never run, and its disks are as they were made. Under its locks."""
    own = context.folder(obj)
    disks = files.read_json(own / NOTE)
    if not isinstance(disks, list):
        _forget_aside(context, obj)
        return
    if (dom := context.active(obj)) is not None:
        libvirt.switch_off(dom)
    shutil.rmtree(records.place(context, obj) / FIRST_BOOT, ignore_errors=True)
    for disk in disks:
        folder = context.layout.disk(obj.namespace, str(disk))
        if not (folder / ASIDE).exists():
            continue
        for path in (*folder.glob("*.qcow2"), folder / layers.FILE):
            if path.name != ASIDE:
                path.unlink(missing_ok=True)
        os.replace(folder / ASIDE, folder / layers.FIRST)
    for name in _LOGS:
        (own / name).unlink(missing_ok=True)
    context.pending(obj).unlink(missing_ok=True)
    gone = ("started_before", "cloud_init", "up", "done_as", "configured", "resumed", "ran_with", "ran_by")
    context.store.keep(obj.key, **dict.fromkeys(gone))
    if context.domain(obj) is not None:
        definition.define(context, obj, RunOptions())
    (own / NOTE).unlink(missing_ok=True)


def _forget_aside(context: Context, obj: Object) -> None:
    for folder in context.writable_disks(obj).values():
        (folder / ASIDE).unlink(missing_ok=True)


def keep(context: Context, obj: Object, where: Path, emit: Emit) -> None:
    """Keep the state of a machine whose first boot has just ended, where it was begun so; it goes on."""
    own = context.folder(obj)
    if not isinstance(name := files.read_json(own / FIRST), str) or (where / name).exists():
        return
    (own / FIRST).unlink()
    with operations.held(context, obj, emit) as obj:
        found = [c for c in records.all(context, obj) if c.name == FIRST_BOOT]
        point = found[0] if found else operations.create(context, obj, FIRST_BOOT, emit)
        if not point.memory or any(frozen != layers.FIRST for frozen in point.frozen.values()):
            return
        work = files.make_folder(where, context.layout.mode) / f".new-{secrets.token_hex(4)}"
        work.mkdir(mode=context.layout.mode)
        try:
            shutil.copytree(records.place(context, obj) / FIRST_BOOT, work / "checkpoint", copy_function=_link)
            for disk in point.frozen:
                _link(context.layout.disk(obj.namespace, disk) / layers.FIRST, work / f"disk-{disk}.qcow2")
            for part in _MACHINE:
                if (own / part).exists():
                    shutil.copy2(own / part, work / part)
            with locked(where / "lock"):
                if not (where / name).exists():
                    os.rename(work, where / name)
                _bound(where)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    emit(Event(EventType.STEP, "its state after the first boot is kept for warm starts", obj.ref, obj.namespace))


def _bound(where: Path) -> None:
    for left in where.glob(".new-*"):
        if time.time() - left.lstat().st_mtime > 3600:  # of a command that was killed
            shutil.rmtree(left, ignore_errors=True)
    rows = [
        (p.name, p.stat().st_mtime, sum(f.stat().st_blocks * 512 for f in p.rglob("*") if f.is_file()))
        for p in where.glob("[0-9a-f]*")
        if p.is_dir()
    ]
    for name in too_many(rows, time.time()):
        shutil.rmtree(where / name, ignore_errors=True)


def too_many(rows: Iterable[tuple[str, float, int]], now: float) -> list[str]:
    """Of states by name, last use and size in bytes, those that go: the oldest beyond number and room, and the very old."""
    gone, count, room = [], 0, 0
    for name, used, taken in sorted(rows, key=lambda r: r[1], reverse=True):
        if count >= MOST or room + taken > LARGEST or now - used > OLDEST:
            gone.append(name)
        else:
            count, room = count + 1, room + taken
    return gone


def _link(source: str | Path, target: str | Path) -> None:
    """The same file under another name: frozen layers and memory files are never written to."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        os.chmod(target, 0o600)
