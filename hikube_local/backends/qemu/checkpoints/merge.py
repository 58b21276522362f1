"""Layers that no checkpoint stands on any more go into the one below.

While the content goes down the upper layer stays on top, so each read gives the same at every moment; a kill leaves it so.
Only when all of it is below, which the machine's note says first, the upper one's name is given up. While the machine runs
libvirt moves what lies under the active layer; the active one waits until it is off, since a guest that writes on during a
kill would leave two layers that both look like the newest. Done when a checkpoint is deleted, and when a machine goes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hikube_local import files
from hikube_local.api.objects import Object
from hikube_local.backends.qemu import libvirt
from hikube_local.backends.qemu.checkpoints import records
from hikube_local.backends.qemu.context import Context
from hikube_local.disks import layers
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.images.download import room
from hikube_local.images.inspect import virtual_size
from hikube_local.run import find, run
from hikube_local.text import size

PATIENCE = 3600.0  # seconds that one layer may take
LARGE = 256 << 20  # bytes from which on it is said before it is done
Flip = tuple[str, str, str]  # disk, lower layer, upper layer


def wanted(folders: dict[str, Path], frozen: dict[str, list[str]], dom: Any | None) -> Iterator[Flip]:
    """What can be merged, a disk at a time; `frozen`: the layers that checkpoints stand on, by disk."""
    xml = dom.XMLDesc(0) if dom else ""
    for name, folder in folders.items():
        have = layers.read(folder)
        live = libvirt.chain(xml, name) if dom else []
        for lower, upper in have.lone(frozen.get(name, [])):
            # Of another branch than the one that runs libvirt knows nothing.
            may = not dom or (upper != have.active and {lower, upper} <= set(live))
            # A file with another name besides belongs to a warm state too, and is never written to.
            if may and (folder / lower).stat().st_nlink == 1 and virtual_size(folder / upper):
                yield name, lower, upper
                break  # the names are others now


def down(context: Context, obj: Object, dom: Any | None, flip: Flip) -> None:
    """Bring the upper layer's content into the lower one; until it is there nothing is given up."""
    name, lower, upper = flip
    folder = context.layout.disk(obj.namespace, name)
    if dom is None:
        # It goes with us, or nobody else could open the disk meanwhile.
        words: list[str | Path] = ["setpriv", "--pdeathsig", "KILL", find("qemu-img"), "commit", "-q", "-d"]
        run([*words, "-f", "qcow2", "-b", folder / lower, folder / upper], timeout=PATIENCE)
        fd = os.open(folder / lower, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return
    lv = libvirt.module()
    element = libvirt.disks(dom.XMLDesc(0))[name]
    dev = libvirt.device(element)
    base, top = (context.sandbox.seen(folder / part) for part in (lower, upper))
    try:
        dom.blockCommit(dev, base, top, 0, lv.VIR_DOMAIN_BLOCK_COMMIT_RELATIVE)
    except lv.libvirtError as e:
        raise libvirt.translated(e, f"a layer of {name} could not be merged") from None
    await_end(dom, dev)
    if upper in libvirt.chain(dom.XMLDesc(0), name):
        raise HikubeError("HK806", f"a layer of {name} could not be merged", "libvirt's job ended without it")


def await_end(dom: Any, dev: str) -> None:
    """libvirt goes on with a job when we are gone."""
    lv = libvirt.module()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if not dom.blockJobInfo(dev, 0):
                return
        except lv.libvirtError:
            return
        time.sleep(0.05)


def rename(context: Context, obj: Object, dom: Any | None, flip: Flip, records: Iterator[tuple[Path, Any]]) -> Path:
    """All of the upper layer is below: who stood on it stands on the lower one; may be done again after a kill.

    Hands back the upper layer's file, which goes when the machine's definition names it no more.
    """
    name, lower, upper = flip
    folder = context.layout.disk(obj.namespace, name)
    for path, row in records:
        if isinstance(row, dict) and row.get("frozen", {}).get(name) == upper:
            files.write_json(path, row | {"frozen": row["frozen"] | {name: lower}})
    live = libvirt.chain(dom.XMLDesc(0), name) if dom else []
    for child in [k for k, v in layers.read(folder).below.items() if v == upper]:
        if child not in live:  # libvirt has done so with the one that is open
            run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", lower, folder / child])
    layers.merged(folder, lower, upper)
    return folder / upper


def lone(context: Context, obj: Object, emit: Emit, shared: frozenset[str] = frozenset()) -> None:
    """Layers that only another layer stands on go into it; not those of `shared` disks."""
    dom, begin, count = context.active(obj), time.monotonic(), 0
    while (frozen := records.frozen_layers(context, obj.namespace)) is not None:
        folders = {n: folder for n, folder in context.writable_disks(obj).items() if n not in shared}
        flip = next(wanted(folders, frozen, dom), None)
        if flip is None:
            break
        more = (folders[flip[0]] / flip[2]).stat().st_blocks * 512
        room(context.layout.state, more)  # both have it until the upper one is gone
        if more > LARGE:
            emit(Event(EventType.STEP, f"merging a layer of {flip[0]} ({size(more)})", obj.ref, obj.namespace))
        note = {"verb": "merge", "flip": flip, "down": False}
        files.write_json(context.pending(obj), note)
        try:
            down(context, obj, dom, flip)
        except HikubeError:
            if dom is None:  # else libvirt may still be at it, and `settle` looks how it ended
                context.pending(obj).unlink()
            raise
        files.write_json(context.pending(obj), note | {"down": True})
        _give_up(context, obj, dom, flip, emit)
        count += 1
    if count:
        what = f"{count} layer{'s' if count > 1 else ''} merged ({time.monotonic() - begin:.1f} s)"
        emit(Event(EventType.STEP, what, obj.ref, obj.namespace))


def _give_up(context: Context, obj: Object, dom: Any | None, flip: Flip, emit: Emit) -> None:
    """The end of a merge: names, definition, the file, the note."""
    gone = rename(context, obj, dom, flip, records.walk(records.namespace_folder(context, obj.namespace)))
    records.define(context, obj, dom)
    gone.unlink(missing_ok=True)
    context.pending(obj).unlink()


def settle(context: Context, obj: Object, row: dict[str, Any], emit: Emit) -> None:
    """Finished where all of the content is below for certain, else left as it was: each layer still has its own."""
    name, lower, upper = row["flip"]
    dom, folder = context.active(obj), context.writable_disks(obj).get(name)
    if folder is None:
        finish = False  # the disk is another machine's now, which may have written to it
    elif dom:
        if (disk := libvirt.disks(dom.XMLDesc(0)).get(name)) is not None:
            await_end(dom, libvirt.device(disk))
        now = libvirt.chain(dom.XMLDesc(0), name)
        finish = lower in now and upper not in now
    else:
        finish = bool(row["down"])
        # Until the names are others it may have been written to. After that it is nobody's, and what it says is old.
        if finish and layers.read(folder).below.get(upper) == lower:
            down(context, obj, None, (name, lower, upper))
    if finish:
        _give_up(context, obj, dom, (name, lower, upper), emit)
    else:
        context.pending(obj).unlink()
