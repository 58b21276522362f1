"""Disks of real machines: files that are imported, grown and deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import assert_never

from hikube_local import files
from hikube_local.api.objects import DISK, INSTANCE, Key, Object
from hikube_local.api.sources import Blank, CopyOf, FromImage, FromUpload, FromUrl
from hikube_local.backends.qemu import NAME, libvirt
from hikube_local.backends.qemu.context import Context
from hikube_local.disks import layers, qcow2
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.images import inspect, intake, sources
from hikube_local.images.cache import Entry
from hikube_local.locks import locked
from hikube_local.plan.planner import upload_words
from hikube_local.plan.steps import DiskObserved, RunOptions
from hikube_local.render import machine
from hikube_local.store import bodies

WAIT_FOR_STOP = 60.0  # seconds that a clone waits for its source's machine


class Disks:
    """The VMDisk half of the backend."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def observe(self, obj: Object) -> DiskObserved:
        folder = self.context.folder(obj)
        disk = layers.active(folder)
        generation = (bodies.recorded(folder) or {}).get("generation", 0)
        if disk.is_symlink():
            problem = f"{disk} is a symbolic link, not a disk file"
            return DiskObserved(True, generation=generation, problem=problem)
        if not disk.exists():
            return DiskObserved(generation=generation)
        about = qcow2.facts(folder)
        size = inspect.virtual_size(disk)
        problem = ""
        if not size:
            problem = f"{disk} is damaged: it has no valid qcow2 header"
        elif about.base:
            problem = self._base_problem(about)
        return DiskObserved(True, size, qcow2.actual_size(disk), "qcow2", about.base, generation, problem)

    def _base_problem(self, about: qcow2.Facts) -> str:
        """An image that was removed or changed behind our back: a disk on it would be another disk."""
        path = self.context.cache.path(about.base)
        try:
            st = path.stat()
        except OSError:
            return f"its image ({about.base[:12]}) is missing from the cache; fetch it again: hikube-local images pull"
        if about.base_size and st.st_size != about.base_size:
            return f"its image ({about.base[:12]}) was changed: {st.st_size} bytes instead of {about.base_size}"
        return ""

    def fill(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        folder = self.context.make_folder(obj)
        files.sweep_trash(folder.parent)
        bodies.record(folder, obj)
        self._content(obj, folder, options, emit)
        files.fsync_folder(folder)

    def _content(self, obj: Object, folder: Path, options: RunOptions, emit: Emit) -> None:
        size = machine.storage_bytes(obj)
        match obj.disk.content:
            case CopyOf(name):
                self._clone(obj, name, size, emit)
            case FromUrl() | FromImage():
                cache, images = self.context.cache, self.context.settings.images
                with cache.in_use():
                    entry = sources.obtain(obj, cache, images, emit, size, options.offline, options.pull)
                    assert entry is not None
                    self._on(entry, folder, size)
            case Blank():
                qcow2.create(folder, size, None, qcow2.Facts())
            case FromUpload():
                raise HikubeError("HK708", f"{obj.ref} waits for its content", fix=upload_words(obj))
            case other:
                assert_never(other)

    def _on(self, entry: Entry, folder: Path, size: int) -> None:
        """A disk that stands on an image."""
        _sound(self.context, entry.digest, "the image")
        base = self.context.cache.path(entry.digest)
        inspect.fits(inspect.inspect(base), size)
        qcow2.create(folder, size, base, qcow2.Facts(entry.digest, entry.format, entry.size))

    def upload(self, obj: Object, file: Path, emit: Emit) -> None:
        """The content of a disk that waits for it: a file of this host, looked at like one from outside."""
        context = self.context
        size = machine.storage_bytes(obj)
        with locked(context.layout.lock(*obj.key)):
            # What came over a network may have taken long: the disk that it is for must still be the one that waits.
            now = context.store.get(obj.key)
            if now is None or now.deletion or now.uid != obj.uid or now.disk.source != obj.disk.source:
                raise HikubeError(
                    "HK806", f"{obj.ref} was deleted, changed or replaced during the upload", fix="upload it again"
                )
            if self.observe(obj).exists:
                raise HikubeError(
                    "HK806", f"{obj.ref} has its content already", fix="it is never overwritten: delete it first"
                )
            key = f"upload:{obj.namespace}/{obj.name}/{obj.uid}"
            with context.cache.lock(key, emit):
                entry = intake.take(context.cache, file, key, f"upload of {file.name}", None, size)
                folder = context.make_folder(obj)
                bodies.record(folder, obj)
                self._on(entry, folder, size)
                files.fsync_folder(folder)
        emit(Event(EventType.STEP, f"its content came from {file.name}", obj.ref, obj.namespace))

    def _clone(self, obj: Object, name: str, size: int, emit: Emit) -> None:
        """A copy of another disk of the namespace, taken while no machine runs on it."""
        source = self.context.store.get(Key(DISK, obj.namespace, name))
        if source is None or not self.observe(source).exists:
            raise HikubeError("HK708", f"its source disk {name} is missing", fix=f"add a VMDisk named {name}")
        folder = self.context.folder(source)
        if (seen := self.observe(source)).problem:
            raise HikubeError("HK708", f"its source disk {name} cannot be read: {seen.problem}")
        if seen.size > size:
            least = -(-seen.size // (1 << 30))
            what = f"target resources requests storage size is smaller than the source: {size} < {seen.size}"
            raise HikubeError("HK703", what, fix=f"write storage: {least}Gi or more")
        self._await_stopped(obj, source, emit)
        if user := self._unsettled(source):
            # Its newest layer may not be the active one yet; whoever holds that machine brings it to an end.
            what = f"the disk {name} is part of an interrupted checkpoint of {user.ref}"
            raise HikubeError("HK708", what, fix=f"hikube-local stop {user.name} completes it; then run up again")
        about = qcow2.facts(folder)  # the source stands on the same image: nobody removes it
        qcow2.clone(folder, self.context.folder(obj), self.context.cache.path(about.base) if about.base else None, size)

    def _await_stopped(self, obj: Object, source: Object, emit: Emit) -> None:
        """A copy of a disk that is being written to would be a torn one."""
        deadline = time.monotonic() + WAIT_FOR_STOP
        told = False
        while user := self.running_user(source):
            if not told:
                told = True
                what = f"waits until {user.ref} is stopped: a copy of a disk in use would be torn"
                emit(Event(EventType.WAITING, what, obj.ref, obj.namespace))
            if time.monotonic() > deadline:
                raise HikubeError(
                    "HK708",
                    f"the disk {source.name} is in use by {user.ref}",
                    fix=f"hikube-local stop {user.name}, then up again",
                )
            emit(Event(EventType.PROGRESS, f"waits for {user.ref}", obj.ref, obj.namespace))
            time.sleep(0.5)

    def _users(self, disk: Object) -> Iterator[Object]:
        for o in self.context.store.objects(INSTANCE, disk.namespace):
            if disk.name in [d.name for d in o.instance.disks] and o.backend == NAME:
                yield o

    def running_user(self, disk: Object) -> Object | None:
        """The machine that runs on this disk now."""
        return next((o for o in self._users(disk) if self.context.active(o) is not None), None)

    def _unsettled(self, disk: Object) -> Object | None:
        """A machine on this disk in the middle of a checkpoint, a way back or a merge."""
        return next((o for o in self._users(disk) if self.context.pending(o).exists()), None)

    def grow(self, obj: Object) -> None:
        size = machine.storage_bytes(obj)
        dom = next((dom for o in self._users(obj) if (dom := self.context.active(o)) is not None), None)
        if dom is not None:
            # libvirt's blockResize shrinks without a word; the planner only ever asks to grow.
            lv = libvirt.module()
            try:
                dom.blockResize(
                    self.context.sandbox.seen(layers.active(self.context.folder(obj))),
                    size,
                    lv.VIR_DOMAIN_BLOCK_RESIZE_BYTES,
                )
            except lv.libvirtError as e:
                raise libvirt.translated(e, f"{obj.ref} could not be grown") from None
        else:
            qcow2.grow(self.context.folder(obj), size)


def sound_bases(context: Context, obj: Object) -> None:
    """Before a machine starts: the images that its disks stand on."""
    for ref in obj.instance.disks:
        about = qcow2.facts(context.layout.disk(obj.namespace, ref.name))
        if about.base:
            _sound(context, about.base, f"the image of disk {ref.name}")


def _sound(context: Context, digest: str, what: str) -> None:
    """HK708 where an image is not what it was when it was taken in: every disk on it would be another disk."""
    if not context.cache.sound(digest):
        fix = "to check: hikube-local images verify; to download it again: hikube-local images pull"
        raise HikubeError("HK708", f"{what} ({digest[:12]}) has changed on this host's disk", fix=fix)
