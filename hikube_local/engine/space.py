"""What a state root and its cache take of the file systems, and what of it could go without anybody's data."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from hikube_local.api.objects import INSTANCE
from hikube_local.disks import qcow2
from hikube_local.engine import sent
from hikube_local.engine.session import Session
from hikube_local.images.cache import own_name
from hikube_local.paths import Layout
from hikube_local.records import dataclass


@dataclass(frozen=True, slots=True)
class Use:
    """Of one kind of thing: how many there are, how many are in use, bytes on disk, and bytes that `prune` would free."""

    kind: str
    total: int
    active: int
    size: int
    reclaimable: int


@dataclass(frozen=True, slots=True)
class Spare:
    """What can go: images by digest (bytes, origin), and files that belong to nothing (bytes)."""

    images: dict[str, tuple[int, str]]
    files: dict[Path, int]

    @property
    def size(self) -> int:
        return sum(count for count, _ in self.images.values()) + sum(self.files.values())


def users(layout: Layout) -> dict[str, list[str]]:
    """Digest to the disks that stand on it: from the disks' own folders, so that no lost row loses an image."""
    found: dict[str, list[str]] = {}
    for path in sorted((layout.state / "disks").glob("*/*")):
        if (about := qcow2.facts(path)).base:
            found.setdefault(about.base, []).append(f"{path.parent.name}/{path.name}")
    return found


def unused(session: Session, everything: bool = False) -> Spare:
    """Images that no disk stands on, and files that no entry speaks of; imported ones, which cannot be had again, only
    with `everything`."""
    cache, by = session.cache, users(session.layout)
    entries = cache.entries()
    golden = {e.digest for e in entries if own_name(e.key)} if not everything else set()
    images = {e.digest: (e.size, e.origin) for e in entries if e.digest not in by and e.digest not in golden}
    return Spare(images, {p: on_disk(p) for p in cache.strays() if p.name not in by})


def drop_unused(session: Session, seen: Spare, everything: bool, waits: Callable[[str], None]) -> int:
    """Remove what was seen to be unused and still is, and hand back how many things are in use by now."""
    with session.cache.alone(waits):
        # Looked at anew: while a question stood a disk may have been made on one, a download begun.
        now = unused(session, everything)
        for digest in seen.images.keys() & now.images.keys():
            session.cache.forget(digest)
        remove(seen.files.keys() & now.files.keys())
    return len(seen.images.keys() - now.images.keys()) + len(seen.files.keys() - now.files.keys())


def remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def warm(layout: Layout) -> list[Path]:
    """The states that `test` and `up --warm` go on from; another first boot makes them anew."""
    return sorted(p for p in layout.warm.glob("[0-9a-f]*") if p.is_dir())


def survey(session: Session) -> list[Use]:
    """Images, disks, snapshots, warm states, and what machines keep beside their disks."""
    layout, by = session.layout, users(session.layout)
    digests = {e.digest for e in session.cache.entries()}
    disks, points = folders(layout, "disks", "*/*"), folders(layout, "checkpoints", "*/*/*")
    attached = {(k.namespace, k.name) for o in session.store.objects(INSTANCE) for k in o.disk_keys}
    states = warm(layout)
    machines = folders(layout, "machines", "*/*")
    return [
        Use("Images", len(digests), len(digests & by.keys()), on_disk(layout.images), unused(session).size),
        Use("Disks", len(disks), sum((p.parent.name, p.name) in attached for p in disks), total(disks), 0),
        Use("Snapshots", len(points), len(points), total(points), 0),
        Use("Machines (logs, seeds)", len(machines), len(machines), total(machines), 0),
        Use("Warm states", len(states), 0, total(states), total(states, lone=True)),
        Use("Files sent to this box", len(received := sent.all(layout)), 0, total(received), total(received)),
    ]


def folders(layout: Layout, what: str, pattern: str) -> list[Path]:
    return sorted(p for p in (layout.state / what).glob(pattern) if p.is_dir())


def total(paths: Iterable[Path], lone: bool = False) -> int:
    """Bytes on disk; a file under several names counts once, with `lone` only if it has none elsewhere: what goes with these."""
    seen: dict[tuple[int, int], int] = {}
    names: dict[tuple[int, int], int] = {}
    for top in paths:
        for path in (top, *top.rglob("*")):
            try:
                st = path.lstat()
            except FileNotFoundError:  # it went while we looked
                continue
            file = st.st_dev, st.st_ino
            names[file] = names.get(file, 0) + 1
            if not lone or stat.S_ISDIR(st.st_mode) or names[file] == st.st_nlink:
                seen[file] = 512 * st.st_blocks
    return sum(seen.values())


def on_disk(path: Path) -> int:
    return total([path])
