"""Locks that die with their process (flock), and tell who holds them.

Order: objects (sorted), then the tenant network, then cache entries. The holder's name is text beside the lock, never the lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hikube_local.errors import HikubeError
from hikube_local.files import make_folder


def _command() -> str:
    words = [os.path.basename(sys.argv[0] or "hikube-local"), *sys.argv[1:4]]
    return f"{' '.join(w[:60] for w in words)} (pid {os.getpid()})"


def holder(path: Path) -> str | None:
    """Who holds the lock at `path`, in words, or None when nobody does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            return os.pread(fd, 300, 0).decode("utf-8", "replace").strip() or "another command"
        raise
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
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        try:
            fcntl.flock(fd, mode | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise
            who = os.pread(fd, 300, 0).decode("utf-8", "replace").strip() or "another command"
            if waiting:
                waiting(who)
            _wait(fd, mode, who, patience)
        # Of several that share it the one that came last is named.
        with contextlib.suppress(OSError):  # a full disk: the others do not learn who holds it
            os.ftruncate(fd, 0)
            os.pwrite(fd, _command().encode(), 0)
        yield
    finally:
        os.close(fd)


def _wait(fd: int, mode: int, who: str, patience: float | None) -> None:
    deadline = None if patience is None else time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, mode if deadline is None else mode | fcntl.LOCK_NB)
            return
        except InterruptedError:
            time.sleep(0.01)
        except BlockingIOError:
            if deadline is not None and time.monotonic() > deadline:
                fix = "wait until it finishes, or stop it, then run this again"
                raise HikubeError("HK609", f"waited {patience:.0f} s for {who}", fix=fix) from None
            time.sleep(0.1)
