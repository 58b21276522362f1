"""Programs that stay: started once, found again by the lock they hold, ended when their last machine is gone.

The lock is their standard input: an open file that carries a flock, so the lock dies with the process whatever happens.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hikube_local import osdep
from hikube_local.errors import HikubeError
from hikube_local.log import started
from hikube_local.run import find


def pid_of(lock: Path) -> int | None:
    """The process that holds the lock as its standard input, or None when nobody does."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        osdep.lock(fd, wait=False)
        return None
    except OSError as e:
        if e.errno not in (errno.EAGAIN, errno.EWOULDBLOCK):
            raise
        text = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
        if text.isdigit() and _holds(int(text), lock):
            return int(text)
    finally:
        os.close(fd)
    # Killed between the start and the note: look for it.
    return next(iter(holders(lock)), None)


def holders(lock: Path) -> list[int]:
    """Every process that has the lock as its standard input: the program, and what it was started through."""
    return [int(e) for e in os.listdir("/proc") if e.isdigit() and _holds(int(e), lock)]


def _holds(pid: int, lock: Path) -> bool:
    try:
        a, b = os.stat(f"/proc/{pid}/fd/0"), os.stat(lock)
    except OSError:
        return False
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def name(lock: Path, pid: int) -> None:
    """Note which of the lock's holders is the program."""
    with open(lock, "r+b") as f:
        f.truncate()
        f.write(str(pid).encode())


def runs(pid: int, program: str) -> bool:
    """Whether the process is this program (it may have been started through another one)."""
    try:
        return os.readlink(f"/proc/{pid}/exe").endswith(f"/{program}")
    except OSError:
        return False


def ensure(
    lock: Path,
    argv: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str],
    ready: float = 30.0,
    check: Callable[[int], object] = lambda pid: True,
) -> tuple[int, bool]:
    """The pid of the program, started if nobody holds its lock; whether it was started now. `check(pid)` says it is up."""
    deadline = time.monotonic() + ready
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            if pid := pid_of(lock):
                while not check(pid) and pid_of(lock) and time.monotonic() < deadline:
                    time.sleep(0.02)  # started by somebody else a moment ago
                return pid, False
            try:
                osdep.lock(fd, wait=False)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)  # somebody only looks who holds it
        os.ftruncate(fd, 0)
        words = [find(str(argv[0])), *map(str, argv[1:])]
        with open(log, "ab") as out:
            begin = out.tell()
            process = subprocess.Popen(
                words, stdin=fd, stdout=out, stderr=out, start_new_session=True, env=dict(env), cwd="/"
            )
        started(words)
        os.pwrite(fd, str(process.pid).encode(), 0)
    finally:
        os.close(fd)
    deadline = time.monotonic() + ready
    pause = 0.002
    while not check(process.pid):
        if process.poll() is not None or time.monotonic() > deadline:
            from hikube_local.text import sanitize

            with contextlib.suppress(OSError):
                process.kill()
            said = sanitize(log.read_bytes()[begin:][-800:]).strip() if log.exists() else ""
            raise HikubeError("HK803", f"{lock.stem} did not come up", why=said, fix=f"see {log}; hikube-local doctor")
        time.sleep(pause)
        pause = min(0.02, pause * 2)
    return process.pid, True


def end(lock: Path, patience: float = 5.0) -> None:
    """End the program that holds the lock: TERM, then KILL; waits until the lock is free."""
    deadline = time.monotonic() + patience
    sent, pause = signal.SIGTERM, 0.002
    while pid := pid_of(lock):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sent)
        time.sleep(pause)
        pause = min(0.05, pause * 2)
        if time.monotonic() > deadline:
            sent = signal.SIGKILL
        if time.monotonic() > deadline + 5:
            raise HikubeError("HK803", f"process {pid} does not end", fix=f"kill -9 {pid}")
