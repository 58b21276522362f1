"""Large files that other machines have sent to this box, by digest: what comes a second time is not sent again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from hikube_local import files
from hikube_local.errors import HikubeError
from hikube_local.paths import Layout

MOST, DAYS = 20 << 30, 30  # bytes in all, and how long one stays after its last use
BLOCK = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


def folder(layout: Layout) -> Path:
    return layout.cache / "sent"


def all(layout: Layout) -> list[Path]:
    """What there is, the one that was used last at the end."""
    found = folder(layout).glob("[0-9a-f]*") if folder(layout).is_dir() else ()
    return sorted((p for p in found if _DIGEST.fullmatch(p.name)), key=lambda p: p.stat().st_mtime)


def has(layout: Layout, digest: str, size: int) -> bool:
    """Whether it need not be sent; it is in use from now on."""
    path = _path(layout, digest)
    try:
        if path.stat().st_size != size:
            return False
        os.utime(path)
    except OSError:
        return False
    return True


def keep(layout: Layout, digest: str, size: int, read: Callable[[int], bytes]) -> None:
    """Take it in. HK810 where what comes is something else than was said: it changed while it was sent."""
    path = _path(layout, digest)
    files.make_folder(path.parent)
    with files.beside(path, 0o400) as temporary:
        if receive(temporary, size, read) != digest:
            raise HikubeError("HK810", "a file changed while it was sent", fix="run it again")


def receive(path: Path, size: int, read: Callable[[int], bytes]) -> str:
    """So many bytes into a file (0600); their SHA-256. HK821 where fewer come. `read`: at most so many bytes, none at the end."""
    found = hashlib.sha256()
    with open(path, "wb", opener=lambda p, f: os.open(p, f, 0o600)) as out:
        while size:
            block = read(min(size, BLOCK))
            if not block:
                raise HikubeError("HK821", "the connection ended in the middle of a file")
            found.update(block)
            out.write(block)
            size -= len(block)
    return found.hexdigest()


def place(layout: Layout, digest: str, target: Path) -> None:
    """Put it where a command looks for it; a copy, so that nothing that the command does reaches the kept one."""
    try:
        shutil.copyfile(_path(layout, digest), target)
    except FileNotFoundError:
        raise HikubeError("HK821", f"{target.name} was removed from this box meanwhile", fix="run it again") from None


def bound(layout: Layout, most: int = MOST) -> None:
    """The ones that were used longest ago go, and those that nobody has used for a month."""
    left, old = most, time.time() - DAYS * 86400
    for path in folder(layout).glob(f"{files.PARTIAL}*"):  # of one that was cut off
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - 86400:
                path.unlink()
    for path in reversed(all(layout)):
        with contextlib.suppress(OSError):
            st = path.stat()
            left -= st.st_size
            if left < 0 or st.st_mtime < old:
                path.unlink()


def _path(layout: Layout, digest: str) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise HikubeError("HK810", f"{digest[:20]!r} is no digest")
    return folder(layout) / digest
