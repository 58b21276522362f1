"""Locks that die with their process (flock), and tell who holds them.

Order: objects (sorted), then the tenant network, then cache entries. The holder's name is text beside the lock, never the lock.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hikube_local import osdep
from hikube_local.errors import HikubeError
from hikube_local.files import make_folder


def _command() -> str:
    words = [os.path.basename(sys.argv[0] or "hikube-local"), *sys.argv[1:4]]
    return f"{' '.join(w[:60] for w in words)} (pid {os.getpid()})"


def holder(path: Path) -> str | None:
    """Who holds the lock at `path`, in words, or None when nobody does."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        osdep.lock(fd, wait=False)
    except BlockingIOError:
        return _named(fd)
    else:
        return None
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked(
    path: Path, waiting: Callable[[str], None] | None = None, shared: bool = False, patience: float | None = None
) -> Iterator[None]:
    """Hold the lock at `path`; `waiting` is told once for whom we wait, HK609 after `patience` seconds."""
    make_folder(path.parent)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            osdep.lock(fd, shared, wait=False)
        except BlockingIOError:
            who = _named(fd)
            if waiting:
                waiting(who)
            _wait(fd, shared, who, patience)
        # Of several that share it the one that came last is named.
        with contextlib.suppress(OSError):  # a full disk: the others do not learn who holds it
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(
                fd, f"{_command()}\n".encode()
            )  # over what is there: to cut it off first costs a file system ten times as much
        yield
    finally:
        os.close(fd)


def _named(fd: int) -> str:
    """Who holds it, by what they wrote; on Windows nobody else reads that."""
    with contextlib.suppress(PermissionError):
        os.lseek(fd, 0, os.SEEK_SET)
        return os.read(fd, 300).decode("utf-8", "replace").partition("\n")[0].strip() or "another command"
    return "another command"


def _wait(fd: int, shared: bool, who: str, patience: float | None) -> None:
    deadline = None if patience is None else time.monotonic() + patience
    while True:
        try:
            osdep.lock(fd, shared, wait=deadline is None)
            return
        except InterruptedError:
            time.sleep(0.01)
        except BlockingIOError:
            if deadline is not None and time.monotonic() > deadline:
                fix = "wait until it finishes, or stop it, then run this again"
                raise HikubeError("HK609", f"waited {patience:.0f} s for {who}", fix=fix) from None
            time.sleep(0.1)
