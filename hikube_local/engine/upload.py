"""The content of a disk that waits for it, from a file of this host; whoever waited for the disk goes on."""

from __future__ import annotations

from pathlib import Path

from hikube_local.api.objects import API_VERSION, DISK, INSTANCE, Key, Object
from hikube_local.api.sources import FromUpload
from hikube_local.backends.capabilities import Uploads
from hikube_local.engine.apply import with_backend
from hikube_local.engine.reconcile import Done
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError, UsageError
from hikube_local.events import Emit
from hikube_local.plan.steps import RunOptions
from hikube_local.records import dataclass
from hikube_local.source.finding import Severity


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The machines that waited for the disk, and what became of them and of its copies."""

    users: list[Object]
    results: dict[Key, Done]


def new_disk(session: Session, namespace: str, name: str, storage: str, backend: str | None = None) -> Object:
    """A disk that waits for an upload; what a manifest may not say is refused here too. `backend`: None for the usual."""
    text = {
        "apiVersion": API_VERSION,
        "kind": DISK,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"source": {"upload": {}}, "storage": storage},
    }
    from hikube_local.manifests.validate import validate_one

    judged = validate_one(text, "image-upload", namespace, session.known())
    if errors := judged.findings.of(Severity.ERROR):
        raise UsageError(errors[0].code, "; ".join(e.message for e in errors), fix=errors[0].help)
    return session.store.put(with_backend(session, [judged.objects[0].object], backend))[0]


def fill(session: Session, disk: Object, file: Path, emit: Emit) -> None:
    """Bring the content; it is never overwritten."""
    if not isinstance(disk.disk.content, FromUpload):
        fix = "only a new disk with source: {upload: {}} takes an upload"
        raise HikubeError("HK806", f"{disk.ref} is not waiting for an upload", fix=fix)
    session.require(disk, Uploads).upload(disk, file.absolute(), emit)


def go_on(session: Session, disk: Object, emit: Emit) -> Uploaded:
    """Make the disk's copies, and start the machines that waited for it or for one of them."""
    waiting = _copies(session.store.objects(DISK, disk.namespace), disk.name)
    names = {disk.name, *(o.name for o in waiting)}
    machines = session.store.objects(INSTANCE, disk.namespace)
    users = [o for o in machines if names & {d.name for d in o.instance.disks} and not o.deletion]
    keys = [o.key for o in (*waiting, *users)]
    return Uploaded(users, session.reconciler(emit, RunOptions()).reconcile(keys) if keys else {})


def _copies(disks: list[Object], name: str) -> list[Object]:
    """The disks that are copies of this one, and copies of those."""
    found: dict[str, Object] = {}
    while more := [
        d for d in disks if d.origin and d.origin.name in {name, *found} and d.name not in found and not d.deletion
    ]:
        found |= {d.name: d for d in more}
    return list(found.values())
