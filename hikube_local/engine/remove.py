"""Objects taken away: deletion times, then the reconciler; data of a disk go only when it is named itself."""

from __future__ import annotations

from collections.abc import Iterable

from hikube_local.api.objects import DISK, INSTANCE, Key, Object
from hikube_local.engine.reconcile import Done
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError
from hikube_local.events import Emit
from hikube_local.plan.steps import RunOptions


def with_disks(session: Session, machines: Iterable[Object]) -> list[Object]:
    """The stored disks that these machines name."""
    named = {key for o in machines for key in o.disk_keys}
    return [o for o in session.store.objects(DISK) if o.key in named]


def users(session: Session, keys: Iterable[Key]) -> dict[Key, list[str]]:
    """The disks among these that machines use which are not among them, with the machines' names."""
    doomed = set(keys)
    found: dict[Key, list[str]] = {}
    for obj in session.store.objects(INSTANCE):
        for key in set(obj.disk_keys) & doomed:
            if obj.key not in doomed:
                found.setdefault(key, []).append(obj.name)
    return found


def require_free(session: Session, keys: Iterable[Key]) -> None:
    """HK809 where a disk among these is attached to a machine that is not."""
    for (_, _, name), machines in sorted(users(session, keys).items()):
        what = f"the disk {name} is attached to {', '.join(machines)}"
        raise HikubeError("HK809", what, fix=f"delete vminstance/{machines[0]} first")


def remove(session: Session, keys: Iterable[Key], options: RunOptions, emit: Emit) -> dict[Key, Done]:
    """Delete these objects; a machine's disks stay, unless they are among them. Killed half-way, the next command goes on."""
    doomed = sorted(set(keys))
    session.store.mark_deleted(doomed)
    return session.reconciler(emit, options).reconcile(doomed)
