"""ssh's connections that stay a minute for the next ones: each is a socket in the runtime folder, which nobody else enters."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
from pathlib import Path

from hikube_local.errors import HikubeError
from hikube_local.paths import Layout, make_runtime
from hikube_local.run import find, run

LASTS = 60  # seconds after the last one that used it
# A socket's path has at most 107 bytes, and ssh binds to one of 17 more characters first.
_MOST = 107 - 17


def path(layout: Layout, uid: str, boot: float, *who: object) -> Path | None:
    """Of a machine's connection as somebody; None where the folder's name is too long for a socket.

    `boot`: when this boot of the guest began: what was connected to the one before is of no use to it.
    """
    tag = hashlib.sha256(repr((uid, boot, *map(str, who))).encode()).hexdigest()[:12]
    found = make_runtime(layout) / f"mux-{uid[:8]}-{tag}"
    return found if len(os.fsencode(found)) <= _MOST else None


def options(path: Path) -> list[str]:
    """ssh's words for a connection that is shared there."""
    words = ["ControlMaster=auto", f"ControlPath={str(path).replace('%', '%%')}", f"ControlPersist={LASTS}"]
    words += ["ServerAliveInterval=15", "ServerAliveCountMax=4"]  # a guest that is gone without a word
    return [w for word in words for w in ("-o", word)]


def is_open(path: Path) -> bool:
    """Whether somebody answers there."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as s:
        s.connect(str(path))
        return True
    return False


def close(layout: Layout, uid: str) -> None:
    """End a machine's connections: its guest ends, or goes back to what it was."""
    for path in layout.runtime.glob(f"mux-{uid[:8]}-*") if uid else ():
        with contextlib.suppress(HikubeError, OSError):
            if is_open(path):
                run([find("ssh"), "-F", "/dev/null", "-o", f"ControlPath={path}", "-O", "exit", "machine"])
            path.unlink(missing_ok=True)


def speak_through_parent() -> None:
    """ssh gives the program that it connects through no standard error where it shares a connection: ours speaks by ssh's own."""
    with contextlib.suppress(OSError):
        here = os.fstat(2)
        if stat.S_ISCHR(here.st_mode) and here.st_rdev == os.stat(os.devnull).st_rdev:
            os.dup2(os.open(f"/proc/{os.getppid()}/fd/2", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), 2)
