"""Warm starts, of `up --warm` and of `test`: a machine that was configured once goes on from there when nothing that matters has
changed.

What is kept is the checkpoint of its first boot with the layers that it stands on. What matters makes the key: image, seed,
the machine's description and addresses, QEMU's version, the CPU and the accelerator. A note lies in the machine's folder until
its memory is given to libvirt: a kill before that is healed to a machine that has never run, one after it as that of any way back.
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

from hikube_local import __version__, files
from hikube_local.api.names import WARM
from hikube_local.api.objects import DISK, Key, Object
from hikube_local.backends.capabilities import FIRST_BOOT
from hikube_local.backends.qemu import boot_marks, firmware, libvirt
from hikube_local.backends.qemu.checkpoints import operations, records
from hikube_local.backends.qemu.context import CHECKPOINT, Context
from hikube_local.backends.qemu.machine import definition, refresh, spec
from hikube_local.disks import layers, qcow2
from hikube_local.errors import HikubeError, unexpected
from hikube_local.events import Emit, Event, EventType
from hikube_local.host.facts import asleep
from hikube_local.locks import locked
from hikube_local.plan.steps import RunOptions
from hikube_local.readiness.stages import Result, Verdict
from hikube_local.render import domain, layout, seed
from hikube_local.render.machine import SEED, SEED_MARK, profile_of
from hikube_local.run import run
from hikube_local.store import bodies
from hikube_local.text import age
from hikube_local.userdata.anew import anew

MOST, LARGEST = 10, 20 << 30  # states that are kept, and their bytes together
OLDEST = 30 * 86400.0  # seconds since the last use
NEWS = 600.0  # seconds after a warm start in which it is told as news
NOTE = "warm.json"  # in the machine's folder: which disks were put aside for a warm start that is under way
BEGUN = "first-boot.json"  # there while a first boot is under way that may be kept: its key
ASIDE, NEXT = "aside.qcow2", "next.qcow2"  # a disk's own first layer meanwhile, and what takes its place
PASSING = ("HK604", "HK608", "HK609", "HK610", "HK999")  # codes of errors that say nothing of the state itself
_LOGS = ("console.log", "firmware.log", boot_marks.FILE)
_MACHINE = (*_LOGS, SEED, SEED_MARK)


def start(context: Context, obj: Object, options: RunOptions, emit: Emit) -> bool:
    """Bring a machine up from the state after an earlier first boot; False where it has to boot. Under its locks."""
    folder, where = context.folder(obj), options.warm or context.layout.warm
    (folder / BEGUN).unlink(missing_ok=True)
    if not wanted(obj, options.warm) or context.store.intent(obj.key).started_before or not obj.instance.has_seed:
        return False
    if why := anew(obj.instance.cloudInit) or _bridged(context, obj) or _used(context, obj):
        emit(Event(EventType.HINT, f"no warm start: {why}", obj.ref, obj.namespace))
        return False
    name = key(context, obj)
    if (where / name / "checkpoint" / CHECKPOINT).exists():
        try:
            point, seconds = _resume(context, obj, where, name, emit)
        except Exception as error:  # whatever it is, the machine can boot
            e = unexpected(error)
            what = f"the warm state cannot be used, so the machine boots: {e.what}" + (f": {e.why}" if e.why else "")
            emit(Event(EventType.WARNING, what, obj.ref, obj.namespace, code=e.code))
            _back(context, obj, list(context.writable_disks(obj)))
            if e.code not in PASSING:
                shutil.rmtree(where / name, ignore_errors=True)
        else:
            gap = time.time() - point.created
            what = f"resumed in {seconds:.1f} s from the state after its first boot, {age(gap)} ago; what was generated then is the same"
            emit(Event(EventType.STEP, what, obj.ref, obj.namespace))
            try:
                refresh.woken(context, obj, gap, point.agent, emit)
            except HikubeError as e:  # it runs: what could not be done for it is told
                emit(Event(EventType.WARNING, e.what, obj.ref, obj.namespace, code=e.code, data={"why": e.why}))
            return True
    files.write_json(folder / BEGUN, name)
    return False


def wanted(obj: Object, asked: Path | None) -> bool:
    """Whether it may start so: its annotation says, else whether the command asked for it."""
    said = obj.annotations.get(WARM, "").lower()
    return said == "true" or (asked is not None and said != "false")


def _bridged(context: Context, obj: Object) -> str:
    """A lease of somebody else's network may be another one's by now."""
    lan = context.bridge(obj) or next((n.lan for n in context.tenants.further(obj) if n.lan), "")
    return f"it is on the bridge {lan} of this host" if lan else ""


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
        place = (device.name, device.bus, device.optical, device.hot, device.boot_order)
        disks.append((*place, about, stored.disk.storage if stored else ""))
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
        (__version__, layout.VERSION, 2),  # of us, of the devices' places, and of what lies in a state's folder
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _resume(context: Context, obj: Object, where: Path, name: str, emit: Emit) -> tuple[records.Checkpoint, float]:
    """The checkpoint that it came from, and the seconds that it took."""
    begin = time.monotonic()

    def waiting(who: str) -> None:
        emit(Event(EventType.WAITING, f"waits for {who}", obj.ref, obj.namespace, code="HK609"))

    with locked(where / "lock", waiting):
        point = _taken(context, obj, where / name)
        os.utime(where / name)
        bound(where)
    own, target = context.folder(obj), records.place(context, obj) / FIRST_BOOT
    # From there on a kill is healed forward, as that of any way back.
    operations.restore(context, obj, FIRST_BOOT, emit, (own / NOTE).unlink)
    seconds = time.monotonic() - begin
    # What it runs as now is what its memory fits, as of a checkpoint that was taken here.
    ran = domain.digest(context.running(obj).XMLDesc(0), cold=True)
    files.write_json(target / CHECKPOINT, asdict(replace(point, definition=ran)))
    _note(context, obj, seconds)
    _forget_aside(context, obj)
    return point, seconds


def _taken(context: Context, obj: Object, source: Path) -> records.Checkpoint:
    """Lay a state into the machine's folders; its disks' own layers are put aside, each at one stroke."""
    point = records.of_record(files.read_json(source / "checkpoint" / CHECKPOINT))
    if point is None or set(point.frozen) != set(context.writable_disks(obj)):
        raise HikubeError("HK708", f"the warm state {source.name[:12]} is damaged")
    own = context.make_folder(obj)
    bodies.record(own, obj)
    files.write_json(own / NOTE, sorted(point.frozen))
    for disk in point.frozen:
        folder = context.layout.disk(obj.namespace, disk)
        (folder / NEXT).unlink(missing_ok=True)
        _link(folder / layers.FIRST, folder / ASIDE)
        _link(source / f"disk-{disk}.qcow2", folder / NEXT)
        os.replace(folder / NEXT, folder / layers.FIRST)
    for part in _MACHINE:
        if (source / part).exists():
            shutil.copy2(source / part, own / part)
    _began_now(own)
    target = records.place(context, obj) / FIRST_BOOT
    files.make_folder(target.parent, context.layout.mode)
    shutil.copytree(source / "checkpoint", target, copy_function=_link)
    # Sockets and taps of this root differ, and are brought along.
    files.write_json(target / CHECKPOINT, asdict(replace(point, definition="")))
    return point


def _began_now(own: Path) -> None:
    """The marks of where a start begins hold inodes, which are others here; the last start is this one."""
    rows = boot_marks.all(own)
    if not rows:
        raise HikubeError("HK708", "the warm state does not say where its boot began")
    for row in rows:
        for log in ("console", "firmware"):
            if log in row:
                with contextlib.suppress(FileNotFoundError):
                    row[log] = [(own / f"{log}.log").stat().st_ino, row[log][1]]
    rows[-1]["time"] = time.time()
    files.write_json(own / boot_marks.FILE, rows)


def _note(context: Context, obj: Object, seconds: float) -> None:
    """What a boot would have left."""
    choice, identity, own = context.accelerator(obj), context.uuid(obj), context.folder(obj)
    began = boot_marks.all(own)[-1]["time"]
    firmware.note(own, profile_of(obj.instance))
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
        resumed={"start": began, "seconds": round(seconds, 2)},
    )


def told(context: Context, obj: Object, verdict: Verdict, start: float) -> Verdict:
    """The verdict on the boot that began at `start`: one that was a warm start says so, once, while that is news."""
    if verdict.result is not Result.READY or not (resumed := context.store.guest(obj.key).resumed):
        return verdict
    context.store.keep(obj.key, resumed=None)
    if resumed["start"] != start or time.time() - start > NEWS:
        return verdict
    seconds = resumed["seconds"]
    words = f"ready: resumed in {seconds:.1f} s from the state after cloud-init"
    return replace(verdict, message=words, cloud_init=True, seconds=seconds, fresh=True, warm=True)


def settle(context: Context, obj: Object) -> None:
    """A warm start that was cut short before its memory was given to libvirt: the machine has never run, and its disks are
    as they were made. Under its locks."""
    disks = files.read_json(context.folder(obj) / NOTE)
    if isinstance(disks, list):
        _back(context, obj, [str(disk) for disk in disks])
    else:
        _forget_aside(context, obj)


def _back(context: Context, obj: Object, disks: list[str]) -> None:
    """Everything as it was before; each step may have been done already."""
    own = context.folder(obj)
    if (dom := context.active(obj)) is not None:
        libvirt.switch_off(dom)
    context.pending(obj).unlink(missing_ok=True)
    shutil.rmtree(records.place(context, obj) / FIRST_BOOT, ignore_errors=True)
    for disk in disks:
        folder = context.layout.disk(obj.namespace, disk)
        (folder / NEXT).unlink(missing_ok=True)
        if (folder / ASIDE).exists():
            (folder / layers.FILE).unlink(missing_ok=True)  # first: without it the first layer is the active one
            os.replace(folder / ASIDE, folder / layers.FIRST)
            for path in folder.glob("layer-*.qcow2"):
                path.unlink(missing_ok=True)
    for name in _LOGS:
        (own / name).unlink(missing_ok=True)
    gone = ("started_before", "cloud_init", "up", "done_as", "configured", "resumed", "ran_with", "ran_by")
    context.store.keep(obj.key, **dict.fromkeys(gone))
    if context.domain(obj) is not None:
        definition.define(context, obj, RunOptions())
    (own / NOTE).unlink(missing_ok=True)


def _forget_aside(context: Context, obj: Object) -> None:
    for folder in context.writable_disks(obj).values():
        for name in (ASIDE, NEXT):
            (folder / name).unlink(missing_ok=True)


def keep(context: Context, obj: Object, where: Path, emit: Emit) -> None:
    """Keep the state of a machine whose first boot has just ended, where it was begun so; it goes on."""
    own = context.folder(obj)
    if not isinstance(name := files.read_json(own / BEGUN), str) or (where / name).exists():
        return
    (own / BEGUN).unlink()
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
                bound(where)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    if (where / name).exists():
        emit(Event(EventType.STEP, "its state after the first boot is kept for warm starts", obj.ref, obj.namespace))


def bound(where: Path) -> None:
    """What is too old or too much goes. Under the folder's lock."""
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
    """The same file under another name, for frozen layers and memory files are never written to; on another file system a
    copy."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        qcow2.copy(Path(source), Path(target))
