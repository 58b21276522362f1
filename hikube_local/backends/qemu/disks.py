"""Disks of real machines: files that are imported, grown and deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hikube_local import files
from hikube_local.api.objects import INSTANCE, Object
from hikube_local.backends.protocol import Options
from hikube_local.backends.qemu import libvirt, limits
from hikube_local.disks import qcow2
from hikube_local.events import Emit
from hikube_local.images import inspect, sources
from hikube_local.plan.steps import DiskObserved, Verb
from hikube_local.render import machine
from hikube_local.store import db

if TYPE_CHECKING:
    from hikube_local.backends.qemu.world import Qemu


class Disks:
    """The VMDisk half of the QEMU world."""

    def __init__(self, world: Qemu) -> None:
        self.world = world

    def observe(self, obj: Object) -> DiskObserved:
        folder = self.world.folder(obj)
        disk = folder / qcow2.DISK
        generation = (db.recorded(folder) or {}).get("generation", 0)
        if not disk.exists():
            return DiskObserved(generation=generation)
        about = qcow2.facts(folder) or qcow2.Facts()
        size = qcow2.virtual_size(disk)
        problem = ""
        if not size:
            problem = f"{disk} is damaged: its header is no qcow2"
        elif about.base and not self.world.cache.path(about.base).exists():
            problem = f"the image it stands on ({about.base[:12]}) is gone from the cache"
        return DiskObserved(True, size, qcow2.actual_size(disk), "qcow2", about.base, generation, problem)

    def steps(self) -> dict[Verb, Callable[[Object, Options, Emit], None]]:
        return {
            Verb.RECORD: lambda o, options, emit: db.record(self.world.make_folder(o), o),
            Verb.IMPORT: self._import,
            Verb.GROW: self._grow,
            Verb.DELETE: self._delete_disk,
        }

    def _import(self, obj: Object, options: Options, emit: Emit) -> None:
        limits.refuse(obj)
        folder = self.world.make_folder(obj)
        files.sweep_trash(folder.parent)
        db.record(folder, obj)
        size = machine.storage_bytes(obj)
        entry = sources.obtain(obj, self.world.cache, self.world.own_images, emit, options.offline)
        if entry is None:
            qcow2.create(folder, size, None, qcow2.Facts())
            return
        base = self.world.cache.path(entry.digest)
        inspect.fits(inspect.inspect(base), size)
        qcow2.create(folder, size, base, qcow2.Facts(entry.digest, entry.format))

    def _grow(self, obj: Object, options: Options, emit: Emit) -> None:
        size = machine.storage_bytes(obj)
        user = next(
            (
                o
                for o in self.world.store.objects(INSTANCE, obj.namespace)
                if obj.name in [d.name for d in o.instance.disks]
            ),
            None,
        )
        dom = self.world.domain(user) if user else None
        if dom is not None and dom.isActive():
            # libvirt's blockResize shrinks without a word; the planner only ever asks to grow.
            lv = libvirt.module()
            try:
                dom.blockResize(
                    self.world.carrier.seen(self.world.folder(obj) / qcow2.DISK), size, lv.VIR_DOMAIN_BLOCK_RESIZE_BYTES
                )
            except lv.libvirtError as e:
                raise libvirt.translated(e, f"{obj.ref} could not be grown") from None
        else:
            qcow2.grow(self.world.folder(obj), size)

    def _delete_disk(self, obj: Object, options: Options, emit: Emit) -> None:
        files.remove_folder(self.world.folder(obj), self.world.layout.state)
        self.world.store.forget(obj.key)
