"""Images kept once by digest, never written; an index says which URL or recipe gave which digest.

The file is whole before its index entry is: an entry never proves a file, size and header are looked at when used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from hikube_local import files
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.images.inspect import inspect
from hikube_local.locks import locked
from hikube_local.run import Limits, run
from hikube_local.text import mask_url


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


class Cache:
    """The images folder of one cache."""

    def __init__(self, folder: Path, mode: int = 0o700) -> None:
        self.folder = folder
        self.mode = mode

    def make(self) -> None:
        for sub in ("sha256", "index", "locks", "partial"):
            files.make_folder(self.folder / sub, self.mode)

    def path(self, digest: str) -> Path:
        return self.folder / "sha256" / digest

    def _index(self, key: str) -> Path:
        return self.folder / "index" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    @contextlib.contextmanager
    def lock(self, key: str, emit: Emit) -> Iterator[None]:
        """Only one process fetches or builds an image; the others wait and say for whom."""
        self.make()
        name = hashlib.sha256(key.encode()).hexdigest()[:16]

        def waiting(who: str) -> None:
            emit(Event(EventType.WAITING, f"waits for {who}, which is fetching {mask_url(key)[:100]}", code="HK609"))

        with locked(self.folder / "locks" / name, waiting):
            yield

    def lookup(self, key: str) -> Entry | None:
        """The entry of a URL or recipe, if its file is there with its size."""
        row = files.read_json(self._index(key))
        try:
            entry = Entry(**row)
            return entry if self.path(entry.digest).stat().st_size == entry.size else None
        except (TypeError, OSError):
            return None

    def entries(self) -> list[Entry]:
        found = []
        for path in sorted((self.folder / "index").glob("*.json")):
            row = files.read_json(path)
            with contextlib.suppress(TypeError, OSError):
                entry = Entry(**row)
                if self.path(entry.digest).stat().st_size == entry.size:
                    found.append(entry)
        return found

    def adopt(
        self, file: Path, key: str, origin: str, wanted: str | None = None, digest: str = "", etag: str = ""
    ) -> Entry:
        """Take a whole file into the cache: inspected, fsynced, renamed to its digest; then its index entry."""
        self.make()
        about = inspect(file)
        check_image(file, about.format)
        digest = digest or _digest(file)
        target = self.path(digest)
        fd = os.open(file, os.O_RDONLY)
        try:
            os.fchmod(fd, 0o444)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(file, target)
        files.fsync_folder(target.parent)
        entry = Entry(digest, about.format, about.virtual_size, target.stat().st_size, origin, key, etag, time.time())
        files.write_json(self._index(key), asdict(entry), 0o644)
        return entry


def _digest(file: Path) -> str:
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


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
