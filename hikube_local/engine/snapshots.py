"""Snapshots of a machine: its disks, and memory, firmware variables and TPM with them while it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hikube_local.api.names import DNS_1123
from hikube_local.api.objects import Object
from hikube_local.backends.qemu import checkpoints, looks, points
from hikube_local.backends.qemu.points import FIRST_BOOT, Checkpoint
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError, UsageError
from hikube_local.events import Emit


@dataclass(frozen=True, slots=True)
class Restored:
    """A machine that is back: how long it took in seconds, and whether it runs."""

    seconds: float
    running: bool


def create(session: Session, obj: Object, name: str, emit: Emit, keep: int | None = None) -> str:
    """Take one, and hand back its name (made of the time where none is given); the machine goes on.

    `keep`: only so many of those that were taken with it stay, the newest ones.
    """
    name = name or ("auto-" if keep else "snap-") + time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    if not DNS_1123.fullmatch(name):
        fix = "write lower-case letters, digits and dashes"
        raise UsageError("HK301", f"{name!r} is no name for a snapshot", fix=fix)
    world = session.real(obj)
    with checkpoints.held(world, obj, emit) as obj:
        checkpoints.create(world, obj, name, emit, kept=keep is not None)
        old = [c.name for c in points.all(world, obj) if c.kept] if keep else []
        for gone in old[: -keep if keep else None]:
            checkpoints.delete(world, obj, gone, emit)
    return name


def all(session: Session, obj: Object) -> list[Checkpoint]:
    """Those of one machine, oldest first."""
    return points.all(session.real(obj), obj)


def find(session: Session, obj: Object, name: str) -> Checkpoint:
    """One by its name, or HK804 with those that there are."""
    return points.find(session.real(obj), obj, name)


def first_boot(session: Session, obj: Object) -> Checkpoint:
    """The one that `reset` goes back to, or HK804."""
    for point in all(session, obj):
        if point.name == FIRST_BOOT:
            return point
    why = "`up` takes one when cloud-init is done for the first time, unless --no-checkpoint is given"
    what = f"{obj.name} has no checkpoint of its first boot"
    raise HikubeError("HK804", what, why, "snapshot create NAME takes one now")


def restore(session: Session, obj: Object, point: Checkpoint, emit: Emit) -> Restored:
    """Go back to one, as often as wanted; what the machine did since is lost."""
    world = session.real(obj)
    with checkpoints.held(world, obj, emit) as obj:
        seconds = checkpoints.restore(world, obj, point.name, emit)
    if point.memory:
        looks.woken(world, obj, time.time() - point.created, emit)
    return Restored(seconds, point.memory)


def delete(session: Session, obj: Object, name: str, emit: Emit) -> None:
    """Forget one; the machine itself is left as it is."""
    world = session.real(obj)
    with checkpoints.held(world, obj, emit) as obj:
        checkpoints.delete(world, obj, name, emit)
