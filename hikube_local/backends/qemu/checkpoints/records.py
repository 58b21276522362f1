"""The records of checkpoints, what they stand on, and the machine that they are of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Any

from hikube_local import files
from hikube_local.api.objects import Object
from hikube_local.backends.qemu.context import CHECKPOINT, Context
from hikube_local.backends.qemu.machine import definition
from hikube_local.plan.steps import RunOptions
from hikube_local.records import dataclass


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
    accelerator: str = ""  # of one with memory: kvm or tcg
    agent: bool = False  # whether the guest's agent was connected when its memory was taken

    @property
    def disks(self) -> list[str]:
        return sorted(self.frozen)


def namespace_folder(context: Context, namespace: str) -> Path:
    """Beside the machines: a snapshot outlives its machine, as its disks do."""
    return context.layout.state / "checkpoints" / namespace


def place(context: Context, obj: Object) -> Path:
    """The folder of a machine's checkpoints."""
    return namespace_folder(context, obj.namespace) / obj.name


def walk(folder: Path) -> Iterator[tuple[Path, Any]]:
    """(path, content) of the checkpoints of one machine, or of all in the folder of their namespace."""
    # Folders may go while we walk: another disk's deletion takes checkpoints with it.
    for top, _, found in os.walk(folder):
        if CHECKPOINT in found and not os.path.basename(top).startswith("."):  # what a deletion that was cut short left
            yield Path(top, CHECKPOINT), files.read_json(Path(top, CHECKPOINT))


def of_record(row: Any) -> Checkpoint | None:
    """The checkpoint that a record's content tells of, or None where it is damaged."""
    with contextlib.suppress(TypeError):
        return Checkpoint(**row)
    return None


def all(context: Context, obj: Object) -> list[Checkpoint]:
    """The whole ones, oldest first."""
    found = [c for _, row in walk(place(context, obj)) if (c := of_record(row))]
    return sorted(found, key=lambda c: c.created)


def frozen_layers(context: Context, namespace: str) -> dict[str, list[str]] | None:
    """The layers that checkpoints of any machine stand on, by disk; None while a record cannot be read."""
    frozen: dict[str, list[str]] = {}
    for _, row in walk(namespace_folder(context, namespace)):
        if not isinstance(row, dict) or not isinstance(row.get("frozen"), dict):
            return None
        for n, name in row["frozen"].items():
            frozen.setdefault(n, []).append(name)
    return frozen


def define(context: Context, obj: Object, dom: Any | None) -> None:
    """Write the definition anew, unless the restart that it waits for does (another UUID), or the machine goes."""
    if obj.deletion:
        return
    if not dom or dom.UUIDString() == context.uuid(obj):
        definition.define(context, obj, RunOptions())
