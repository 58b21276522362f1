"""Images kept once by digest, never written; an index says which URL or recipe gave which digest.

The file is whole before its index entry is: an entry never proves a file, size and header are looked at when used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, field, replace
from pathlib import Path

from hikube_local import files
from hikube_local.events import Emit, Event, EventType
from hikube_local.locks import holder, locked
from hikube_local.records import dataclass
from hikube_local.text import mask_url

PATIENCE = 600.0  # seconds that a removal waits for those who use the images
_WORK = ("convert-*", "import-*", "*.qcow2", "build-*")  # in partial/: of one process, worth nothing to another


_OWN = "name:"


def own_key(name: str) -> str:
    """The key of an image that was imported under a name of one's own."""
    return f"{_OWN}{name}"


def own_name(key: str) -> str:
    """The name behind such a key, empty for another one."""
    return key.removeprefix(_OWN) if key.startswith(_OWN) else ""


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of the cache: sha256, format, sizes in bytes, where it came from."""

    digest: str
    format: str
    virtual_size: int
    size: int
    origin: str
    key: str
    etag: str = ""
    fetched: float = 0.0
    modified: str = ""
    used: float = 0.0  # the time of the entry's file
    verified: str = ""  # who vouched for it; empty: trusted on first use
    sources: dict[str, str] = field(default_factory=dict)  # digests of what came, before it was unpacked or converted


class Cache:
    """The images folder of one cache."""

    def __init__(self, folder: Path, mode: int = 0o700) -> None:
        self.folder = folder
        self.mode = mode

    def make(self) -> None:
        for sub in ("sha256", "index", "locks", "partial", "known"):
            files.make_folder(self.folder / sub, self.mode)
        for folder in (self.folder, self.folder / "sha256"):
            files.open_to(folder, self.mode)

    def path(self, digest: str) -> Path:
        return self.folder / "sha256" / digest

    def _index(self, key: str) -> Path:
        return self.folder / "index" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    @contextlib.contextmanager
    def lock(self, key: str, emit: Emit) -> Iterator[None]:
        """Only one process fetches or builds an image; the others wait and say for whom."""
        self._sweep()
        name = hashlib.sha256(key.encode()).hexdigest()[:16]

        def waiting(who: str) -> None:
            emit(Event(EventType.WAITING, f"waits for {who}, which is fetching {mask_url(key)[:100]}", code="HK609"))

        with self.in_use(), locked(self.folder / "locks" / name, waiting):
            # What a kill left of small files about this key; those of other keys may be at work.
            for sub in ("index", "known", "partial"):
                for path in (self.folder / sub).glob(f"{files.PARTIAL}*-{name}*"):
                    path.unlink(missing_ok=True)
            yield

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """While an image is brought and a disk is made on it nothing is removed from the cache."""
        self.make()
        with locked(self._removing, shared=True):
            yield

    @contextlib.contextmanager
    def alone(self, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        """Nobody brings an image or makes a disk: what is looked at now may be removed; HK609 when that takes too long."""
        self.make()
        with locked(self._removing, waiting, patience=PATIENCE):
            yield

    @property
    def _removing(self) -> Path:
        return self.folder / "locks" / "removing"

    def _sweep(self) -> None:
        """Work folders that a kill left, when nobody is at work."""
        self.make()
        left = [p for kind in _WORK for p in (self.folder / "partial").glob(kind)]
        if left and holder(self._removing) is None:
            with self.alone():
                for path in left:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def lookup(self, key: str) -> Entry | None:
        """The entry of a URL or recipe, if its file is there with its size."""
        return self._entry(self._index(key))

    def _entry(self, path: Path) -> Entry | None:
        row = files.read_json(path)
        try:
            entry = Entry(**row | {"used": path.stat().st_mtime})
            return entry if self.path(entry.digest).stat().st_size == entry.size else None
        except (TypeError, OSError):
            return None

    def entries(self) -> list[Entry]:
        found = (self._entry(path) for path in sorted((self.folder / "index").glob("*.json")))
        return [entry for entry in found if entry]

    def own_names(self) -> frozenset[str]:
        """The names under which images were imported."""
        return frozenset(name for entry in self.entries() if (name := own_name(entry.key)))

    def enter(self, entry: Entry) -> Entry:
        """Its file is there: from now on the key leads to it."""
        files.write_json(self._index(entry.key), asdict(entry), 0o644)
        return self.lookup(entry.key) or entry

    def sound(self, digest: str) -> bool:
        """Whether an image still has its content. Read again only when the file was touched since the last look: its inode
        or the time of its last change is another (ctime, which nobody but the kernel sets)."""
        path, note = self.path(digest), self.folder / "known" / f"{digest}.stamp"
        try:
            st = path.stat()
            if os.geteuid() == 0 and (st.st_uid, st.st_mode & 0o222) != (0, 0):
                os.chown(path, 0, 0)  # as root it is root's: QEMU's user reads it and no more
                os.chmod(path, 0o444)
                st = path.stat()
        except FileNotFoundError:
            return False
        stamp = [st.st_ino, st.st_ctime_ns, st.st_size]
        if files.read_json(note) == stamp:
            return True
        if digest_of(path) != digest:
            return False
        with contextlib.suppress(OSError):  # on a full disk it is read again the next time
            for cut_short in note.parent.glob(f"{files.PARTIAL}*-{note.name}"):
                cut_short.unlink()
            files.write_json(note, stamp)
        return True

    def name(self, entry: Entry, key: str) -> Entry:
        """A second key for an image that is there."""
        return self.enter(replace(entry, key=key))

    def touch(self, entry: Entry) -> None:
        """Note that it was used now."""
        with contextlib.suppress(OSError):
            os.utime(self._index(entry.key))

    def remember(self, key: str, digest: str) -> None:
        """The digest that a URL had when it was last trusted; it outlives the image."""
        files.write_json(self.folder / "known" / self._index(key).name, {"sha256": digest}, 0o644)

    def remembered(self, key: str) -> str:
        row = files.read_json(self.folder / "known" / self._index(key).name)
        return str(row.get("sha256", "")) if isinstance(row, dict) else ""

    def strays(self) -> list[Path]:
        """Files that no entry speaks of: images that lost theirs, and downloads that were cut short."""
        known = {e.digest for e in self.entries()}
        images = [p for p in (self.folder / "sha256").glob("*") if p.name not in known]
        return sorted([*images, *(self.folder / "partial").glob("*")])

    def forget(self, digest: str, keep: bool = False) -> None:
        """Remove an image and every entry of it: the entries first, so that none speaks of a file that is gone.

        With `keep` the file stays (disks stand on it), and is replaced when the image is fetched anew.
        """
        for path in (self.folder / "index").glob("*.json"):
            if (files.read_json(path) or {}).get("digest") == digest:
                path.unlink(missing_ok=True)
        files.fsync_folder(self.folder / "index")
        (self.folder / "known" / f"{digest}.stamp").unlink(missing_ok=True)
        if not keep:
            self.path(digest).unlink(missing_ok=True)


def digest_of(file: Path, algorithm: str = "sha256") -> str:
    """The digest of a file's content."""
    with open(file, "rb") as f:
        return hashlib.file_digest(f, algorithm).hexdigest()
