"""Everything of ours ended and removed, also what is damaged or half made: no guest is waited for."""

from __future__ import annotations

from dataclasses import field

from hikube_local.api.objects import DISK, INSTANCE, Object
from hikube_local.backends.capabilities import OnThisHost
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError
from hikube_local.events import Emit
from hikube_local.plan.steps import RunOptions
from hikube_local.records import dataclass


@dataclass(frozen=True, slots=True)
class Doomed:
    """What a purge would end and remove, found without asking libvirt. `whole`: no machine of this state root stays."""

    objects: list[Object]
    whole: bool
    everything: bool  # of every namespace
    disks: bool
    images: bool
    names: list[str] = field(default_factory=list)  # for people

    @property
    def data(self) -> bool:
        """Whether disks with their content are among it."""
        return any(o.kind == DISK for o in self.objects)


def find(session: Session, namespace: str | None, disks: bool, images: bool) -> Doomed:
    """What there is of a namespace, or, with None, of the whole state root."""
    everything = namespace is None
    objects = [o for o in session.store.objects(None, namespace) if o.kind == INSTANCE or disks]
    names = [f"{o.kind.lower()} {o.namespace}/{o.name}" for o in objects]
    doomed = {o.key for o in objects}
    whole = everything or not any(o.kind == INSTANCE and o.key not in doomed for o in session.store.objects())
    if whole:
        for host in session.every(OnThisHost):
            names += [*host.processes(), *(f"folder {p}" for p in host.folders(disks and everything, images))]
    return Doomed(objects, whole, everything, disks, images, names)


def end(session: Session, doomed: Doomed, emit: Emit) -> list[HikubeError]:
    """Remove it; what could not be deleted in order goes by force, and is handed back."""
    session.store.mark_deleted(o.key for o in doomed.objects)
    options = RunOptions(grace=0, force=True)
    results = session.reconciler(emit, options).reconcile([o.key for o in doomed.objects])
    return [_by_force(session, o, e) for o in doomed.objects if (e := results[o.key].error)]


def sweep(session: Session, doomed: Doomed) -> None:
    """The network, the processes and the folders, when no machine is left that needs them."""
    for host in session.every(OnThisHost) if doomed.whole else ():
        host.sweep(doomed.disks and doomed.everything, doomed.images)


def _by_force(session: Session, obj: Object, error: HikubeError) -> HikubeError:
    """What could not be deleted in order: its files and its rows go all the same. Its processes are ended with the rest."""
    session.of(obj).discard(obj)
    return error
