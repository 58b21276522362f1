"""The records of checkpoints, what they stand on, and the machine that they are of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hikube_local import files
from hikube_local.api.objects import DISK, Key, Object
from hikube_local.errors import HikubeError
from hikube_local.events import Emit
from hikube_local.plan.steps import RunOptions, Step, Verb

if TYPE_CHECKING:
    from hikube_local.backends.qemu.world import Qemu

PENDING = "pending.json"  # in the machine's folder: what is under way with its checkpoints
RECORD = "checkpoint.json"
FIRST_BOOT = "configured"  # what `up` takes and `reset` goes back to


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


def namespace_folder(world: Qemu, namespace: str) -> Path:
    """Beside the machines: a snapshot outlives its machine, as its disks do."""
    return world.layout.state / "checkpoints" / namespace


def place(world: Qemu, obj: Object) -> Path:
    """The folder of a machine's checkpoints."""
    return namespace_folder(world, obj.namespace) / obj.name


def records(folder: Path) -> Iterator[tuple[Path, Any]]:
    """(path, content) of the checkpoints of one machine, or of all in the folder of their namespace."""
    # Folders may go while we walk: another disk's deletion takes checkpoints with it.
    for top, _, found in os.walk(folder):
        if RECORD in found and not os.path.basename(top).startswith("."):  # what a deletion that was cut short left
            yield Path(top, RECORD), files.read_json(Path(top, RECORD))


def of_record(row: Any) -> Checkpoint | None:
    """The checkpoint that a record's content tells of, or None where it is damaged."""
    with contextlib.suppress(TypeError):
        return Checkpoint(**row)
    return None


def all(world: Qemu, obj: Object) -> list[Checkpoint]:
    """The whole ones, oldest first."""
    found = [c for _, row in records(place(world, obj)) if (c := of_record(row))]
    return sorted(found, key=lambda c: c.created)


def find(world: Qemu, obj: Object, name: str) -> Checkpoint:
    found = {c.name: c for c in all(world, obj)}
    if name not in found:
        have = ", ".join(found) or "none"
        raise HikubeError("HK804", f"{obj.name} has no checkpoint {name!r}", f"there are: {have}", "snapshot list NAME")
    return found[name]


def frozen_layers(world: Qemu, namespace: str) -> dict[str, list[str]] | None:
    """The layers that checkpoints of any machine stand on, by disk; None while a record cannot be read."""
    frozen: dict[str, list[str]] = {}
    for _, row in records(namespace_folder(world, namespace)):
        if not isinstance(row, dict) or not isinstance(row.get("frozen"), dict):
            return None
        for n, name in row["frozen"].items():
            frozen.setdefault(n, []).append(name)
    return frozen


def disks(world: Qemu, obj: Object) -> dict[str, Path]:
    """Folders of the disks that can be written to and are to stay."""
    out = {}
    for ref in obj.instance.disks:
        disk = world.store.get(Key(DISK, obj.namespace, ref.name))
        if disk and not disk.deletion and not disk.disk.optical:
            out[ref.name] = world.layout.disk(obj.namespace, ref.name)
    return out


def running(world: Qemu, obj: Object) -> Any | None:
    """The domain of a machine that runs, else None."""
    dom = world.domain(obj)
    return dom if dom is not None and dom.isActive() else None


def define(world: Qemu, obj: Object, dom: Any | None, emit: Emit) -> None:
    """Write the definition anew, unless the restart that it waits for does (another UUID), or the machine goes."""
    if obj.deletion:
        return
    if not dom or dom.UUIDString() == world.uuid(obj):
        world.perform(Step(Verb.DEFINE, obj.key), obj, RunOptions(), emit)
