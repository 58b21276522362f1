"""Warm starts of `test`: a machine that was configured once resumes from its memory when nothing that matters has changed.

What matters makes the key: image, seed, the machine's description, QEMU's version, the CPU and the accelerator.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

from hikube_local import files
from hikube_local.api.objects import DISK, Key, Object
from hikube_local.backends.qemu import boot_marks, libvirt
from hikube_local.backends.qemu.checkpoints import operations, records
from hikube_local.backends.qemu.context import CHECKPOINT, Context
from hikube_local.backends.qemu.machine import refresh, spec
from hikube_local.disks import layers, qcow2
from hikube_local.events import Emit
from hikube_local.locks import locked
from hikube_local.plan.steps import RunOptions
from hikube_local.render import layout, seed
from hikube_local.render.machine import SEED, SEED_MARK
from hikube_local.run import run
from hikube_local.store import bodies

NAME = "warm"
KEPT = 5  # states that are kept, the newest
_MACHINE = ("console.log", "firmware.log", boot_marks.FILE, SEED, SEED_MARK)


def key(context: Context, obj: Object) -> str:
    """What must be the same, as a digest; the disks must be there."""
    machine = spec.machine(context, obj, RunOptions())
    content = seed.seed(obj, machine.uuid)
    disks = []
    for device in machine.disks:
        about = qcow2.facts(context.layout.disk(obj.namespace, device.name))
        stored = context.store.get(Key(DISK, obj.namespace, device.name))
        disks.append((device.name, device.bus, device.optical, about, stored.disk.storage if stored else ""))
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    version = run(["qemu-system-x86_64", "--version"], timeout=20).stdout
    plain = replace(machine, tap="", further=(), places=None, disks=(), owner=None)  # type: ignore[arg-type]
    parts = (
        plain,
        disks,
        content and content.digest,
        cpu,
        version,
        type(context.sandbox).__name__,
        len(machine.further),
        layout.VERSION,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def keep(context: Context, obj: Object, where: Path, name: str, emit: Emit) -> None:
    """Take the state of a machine that has just been configured; it goes on."""
    target = where / name
    if target.exists() or any(
        layers.read(context.layout.disk(obj.namespace, d.name)).below for d in obj.instance.disks
    ):
        return
    with operations.held(context, obj, emit):
        point = operations.create(context, obj, NAME, emit)
    files.make_folder(where, context.layout.mode)
    work = where / f".new-{secrets.token_hex(4)}"
    work.mkdir(mode=context.layout.mode)
    own = context.folder(obj)
    shutil.copytree(records.place(context, obj) / NAME, work / "checkpoint", copy_function=_link)
    for disk, frozen in point.frozen.items():
        _link(context.layout.disk(obj.namespace, disk) / frozen, work / f"disk-{disk}.qcow2")
    for part in _MACHINE:
        if (own / part).exists():
            shutil.copy2(own / part, work / part)
    with locked(where / "lock"):
        if target.exists():
            shutil.rmtree(work)
            return
        os.rename(work, target)
        _few(where)


def _few(where: Path) -> None:
    known = sorted(where.glob("[0-9a-f]*"), key=lambda p: p.stat().st_mtime)
    for old in known[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def drop(context: Context, obj: Object, where: Path, name: str) -> None:
    """A state that did not come up: it goes, and what was made of it, so that the machine can boot."""
    shutil.rmtree(where / name, ignore_errors=True)
    if (dom := context.active(obj)) is not None:
        libvirt.switch_off(dom)
    shutil.rmtree(context.folder(obj), ignore_errors=True)
    for ref in obj.instance.disks:
        own = context.layout.disk(obj.namespace, ref.name)
        for path in (*own.glob("*.qcow2"), own / layers.FILE, own / qcow2.FACTS):
            path.unlink(missing_ok=True)


def _link(source: str | Path, target: str | Path) -> None:
    """The same file under another name: frozen layers and memory files are never written to."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        os.chmod(target, 0o600)


def resume(context: Context, obj: Object, where: Path, name: str, emit: Emit) -> float | None:
    """Bring the machine up from a kept state; None where there is none, else the seconds that it took."""
    source = where / name
    if not (source / "checkpoint" / CHECKPOINT).exists():
        return None
    with locked(where / "lock"):
        return _resume(context, obj, source, emit)


def _resume(context: Context, obj: Object, source: Path, emit: Emit) -> float | None:
    begin = time.monotonic()
    own = context.make_folder(obj)
    bodies.record(own, obj)
    point = records.of_record(files.read_json(source / "checkpoint" / CHECKPOINT))
    if point is None or any(
        f != layers.FIRST or not (source / f"disk-{d}.qcow2").exists() for d, f in point.frozen.items()
    ):
        return None
    for disk in point.frozen:
        target = context.layout.disk(obj.namespace, disk) / layers.FIRST
        target.unlink(missing_ok=True)
        _link(source / f"disk-{disk}.qcow2", target)
    for part in _MACHINE:
        if (source / part).exists():
            shutil.copy2(source / part, own / part)
    # Another file under the log's name: the marks of where a start begins hold inodes.
    rows = boot_marks.all(own)
    for row in rows:
        for log in ("console", "firmware"):
            if log in row:
                with contextlib.suppress(FileNotFoundError):
                    row[log] = [(own / f"{log}.log").stat().st_ino, row[log][1]]
    files.write_json(own / boot_marks.FILE, rows)
    target = records.place(context, obj) / NAME
    files.make_folder(target.parent, context.layout.mode)
    shutil.copytree(source / "checkpoint", target, copy_function=_link)
    # Sockets and taps of this root differ, and are brought along.
    files.write_json(target / CHECKPOINT, asdict(replace(point, definition="")))
    with operations.held(context, obj, emit):
        operations.restore(context, obj, NAME, emit)
    refresh.woken(context, obj, time.time() - point.created, point.agent, emit)
    os.utime(source)
    return time.monotonic() - begin
