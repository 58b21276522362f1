"""Images kept once by digest, never written; an index says which URL or recipe gave which digest.

The file is whole before its index entry is: an entry never proves a file, size and header are looked at when used.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from hikube_local import files
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.images import checksums, convert
from hikube_local.images.checksums import Wanted
from hikube_local.images.download import SYNC_EVERY, room
from hikube_local.images.foreign import refused
from hikube_local.images.inspect import inspect
from hikube_local.images.unpack import Unpacker, write_sparse
from hikube_local.locks import holder, locked
from hikube_local.run import Limits, run
from hikube_local.text import mask_url, size

PATIENCE = 600.0  # seconds that a removal waits for those who use the images
LARGEST = 4 << 40  # bytes of a file that is imported: a sparse one may say anything
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

    def adopt(
        self,
        file: Path,
        key: str,
        origin: str,
        digest: str = "",
        etag: str = "",
        modified: str = "",
        sources: dict[str, str] | None = None,
        verified: str = "",
    ) -> Entry:
        """Take a whole file into the cache: inspected, fsynced, renamed to its digest; then its index entry.

        qcow2 and raw stay as they are, other formats become qcow2 here.
        """
        self.make()
        about = inspect(file)
        if about.format not in ("qcow2", "raw"):
            file = convert.to_qcow2(file, about.format, about.virtual_size, self.folder / "partial")
            about, digest = inspect(file), ""
        check_image(file, about.format)
        digest = digest or digest_of(file)
        target = self.path(digest)
        fd = os.open(file, os.O_RDONLY)
        try:
            os.fchmod(fd, 0o444)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(file, target)
        files.fsync_folder(target.parent)
        now = time.time()
        entry = Entry(
            digest=digest,
            format=about.format,
            virtual_size=about.virtual_size,
            size=target.stat().st_size,
            origin=origin,
            key=key,
            etag=etag,
            fetched=now,
            modified=modified,
            used=now,
            verified=verified,
            sources=sources or {},
        )
        files.write_json(self._index(key), asdict(entry), 0o644)
        return self.lookup(key) or entry

    def take(
        self,
        path: Path,
        key: str,
        origin: str,
        given: Wanted | None,
        limit: int = 0,
        say: Callable[..., None] = lambda text, **data: None,
    ) -> Entry:
        """A copy of a file of this host, verified and unpacked like a download; under the key's lock.

        `say(text, bytes=…, total=…)` is told now and then how far it is.
        """
        self.make()
        with _regular(path) as source:
            total, told = os.fstat(source.fileno()).st_size, time.monotonic()
            if total > LARGEST:
                raise refused(f"it has {total} bytes, at most {LARGEST} are read")
            hashers = {n: hashlib.new(n) for n in {"sha256", *([given.algorithm] if given else [])}}
            target = self.folder / "partial" / f"import-{secrets.token_hex(6)}"
            unpacker = Unpacker(target.with_name(target.name + ".unpacked"), limit)
            try:
                with open(target, "xb") as out:
                    for count in itertools.count():
                        if not (block := source.read(1 << 20)):
                            break
                        if count % (SYNC_EVERY >> 20) == 0:
                            room(self.folder, SYNC_EVERY)
                        for h in hashers.values():
                            h.update(block)
                        unpacker.feed(block)
                        write_sparse(out, block)
                        if (now := time.monotonic()) - told >= 1.0:
                            told, here = now, source.tell()
                            say(f"reading {100 * here // max(1, total)}% {size(here)}", bytes=here, total=total)
                    out.truncate(out.tell())
                digests = {n: h.hexdigest() for n, h in hashers.items()}
                if given and digests[given.algorithm] != given.digest:
                    raise checksums.mismatch(str(path), given, digests[given.algorithm])
                unpacked = unpacker.finish()
                digest = "" if unpacked else digests["sha256"]
                who = given.origin if given else ""
                return self.adopt(unpacked or target, key, origin, digest, sources=digests, verified=who)
            finally:
                unpacker.drop()
                target.unlink(missing_ok=True)

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
        row = replace(entry, key=key)
        files.write_json(self._index(key), asdict(row), 0o644)
        return row

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


@contextlib.contextmanager
def _regular(path: Path) -> Iterator[BinaryIO]:
    """A regular file, opened without following a link or waiting for a pipe; HK702 when it changes while it is read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise HikubeError("HK701", f"{path} cannot be read: {e.strerror}") from None
    before = os.fstat(fd)
    if not stat.S_ISREG(before.st_mode):
        os.close(fd)
        raise refused("it is a folder" if stat.S_ISDIR(before.st_mode) else "it is not a regular file")
    with os.fdopen(fd, "rb") as f:
        yield f
        after = os.fstat(fd)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise refused("it changed while it was read", "stop the program that writes it, then try again")


def digest_of(file: Path, algorithm: str = "sha256") -> str:
    """The digest of a file's content."""
    with open(file, "rb") as f:
        return hashlib.file_digest(f, algorithm).hexdigest()


def check_image(path: Path, format: str) -> None:
    """qemu-img's own check of a qcow2 image (a cut one reads as zeros otherwise); leaks alone are accepted."""
    if format != "qcow2":
        return
    done = run(
        ["qemu-img", "check", "-q", "-f", "qcow2", path], limits=Limits(cpu=60), check=False, timeout=120, cwd=Path("/")
    )
    if done.returncode not in (0, 3):
        from hikube_local.text import sanitize

        why = sanitize(done.stderr or done.stdout).strip()[-300:] or f"qemu-img ended with {done.returncode}"
        raise HikubeError(
            "HK702",
            "the image is refused",
            f"qemu-img check finds it damaged: {why}",
            "a broken download? fetch it again",
        )
