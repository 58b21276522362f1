"""Snapshots of a machine: its disks, and memory, firmware variables and TPM with them while it runs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hikube_local.api.names import DNS_1123
from hikube_local.api.objects import Object
from hikube_local.backends.capabilities import FIRST_BOOT, Snapshot, Snapshots, by_name
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError, UsageError
from hikube_local.events import Emit
from hikube_local.records import dataclass


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
        raise UsageError("HK301", f"{name!r} is not a valid snapshot name", fix=fix)
    session.require(obj, Snapshots).take_snapshot(obj, name, emit, keep)
    return name


def all(session: Session, obj: Object) -> Sequence[Snapshot]:
    """Those of one machine, oldest first."""
    return session.require(obj, Snapshots).snapshots(obj)


def find(session: Session, obj: Object, name: str) -> Snapshot:
    """One by its name, or HK804 with those that there are."""
    return by_name(all(session, obj), obj, name)


def first_boot(session: Session, obj: Object) -> Snapshot:
    """The one that `reset` goes back to, or HK804."""
    for point in all(session, obj):
        if point.name == FIRST_BOOT:
            return point
    why = "`up` takes one when cloud-init is done for the first time, unless --no-checkpoint is given"
    what = f"{obj.name} has no checkpoint of its first boot"
    raise HikubeError("HK804", what, why, "snapshot create NAME takes one now")


def restore(session: Session, obj: Object, point: Snapshot, emit: Emit) -> Restored:
    """Go back to one, as often as wanted; what the machine did since is lost."""
    seconds = session.require(obj, Snapshots).restore_snapshot(obj, point, emit)
    return Restored(seconds, point.memory)


def delete(session: Session, obj: Object, name: str, emit: Emit) -> None:
    """Forget one; the machine itself is left as it is."""
    session.require(obj, Snapshots).delete_snapshot(obj, name, emit)
