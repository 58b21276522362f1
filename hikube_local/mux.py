"""ssh's connections that stay a minute for the next ones: each is a socket in the runtime folder, which nobody else enters."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from hikube_local import sockets
from hikube_local.errors import HikubeError
from hikube_local.locks import locked
from hikube_local.osdep import UNIX
from hikube_local.paths import Layout, make_runtime
from hikube_local.run import find, left_behind, run

LASTS = 60  # seconds after the last one that used it
# A socket's path has at most 107 bytes, and ssh binds to one of 17 more characters first.
MOST = 107 - 17


def path(layout: Layout, uid: str, boot: float, *who: object) -> Path | None:
    """Of a machine's connection as somebody; None where the folder's name is too long for a socket.

    `boot`: when this boot of the guest began: what was connected to the one before is of no use to it.
    """
    if not UNIX:
        return None  # its OpenSSH shares no connections (Win32-OpenSSH#405)
    tag = hashlib.sha256(repr((uid, boot, *map(str, who))).encode()).hexdigest()[:12]
    found = make_runtime(layout) / f"mux-{uid[:8]}-{tag}"
    return found if len(os.fsencode(found)) <= MOST else None


def options(path: Path) -> list[str]:
    """ssh's words to use the connection that is there."""
    return ["-o", "ControlMaster=no", "-o", f"ControlPath={_escaped(path)}"]


def opened(path: Path, words: Sequence[str]) -> tuple[int, str]:
    """(exit code, what ssh said) of the connection being made; of several at once one makes it. `words`: ssh's, with the host last.

    It is in a session of its own: what ends the command that made it ends no other that uses it.
    """
    stays = ["ControlMaster=yes", f"ControlPath={_escaped(path)}", f"ControlPersist={LASTS}"]
    stays += ["ServerAliveInterval=15", "ServerAliveCountMax=4"]  # a guest that is gone without a word
    with locked(path.with_name(f"{path.name}.lock")):
        if is_open(path):
            return 0, ""
        path.unlink(missing_ok=True)
        return left_behind([words[0], "-f", "-N", *(w for o in stays for w in ("-o", o)), *words[1:]], ask=True)


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")


def is_open(path: Path) -> bool:
    """Whether somebody answers there."""
    with contextlib.suppress(OSError), sockets.connect(path):
        return True
    return False


def end(path: Path) -> None:
    """Whoever still uses it is cut off."""
    with contextlib.suppress(HikubeError, OSError):
        if is_open(path):
            run([find("ssh"), "-F", "/dev/null", "-o", f"ControlPath={_escaped(path)}", "-O", "exit", "machine"])
        path.unlink(missing_ok=True)


def close(layout: Layout, uid: str) -> None:
    """End a machine's connections: its guest ends, or goes back to what it was."""
    for path in layout.runtime.glob(f"mux-{uid[:8]}-*") if uid else ():
        end(path)


def carries() -> None:
    """Called by a program through which ssh connects: the connection may be shared by others than the terminal's command."""
    if UNIX and _by_ssh():
        with contextlib.suppress(OSError):
            os.setsid()


def tell(text: str) -> None:
    """ssh gives the program through which it connects no standard error where it shares a connection: said by ssh's own."""
    with contextlib.suppress(OSError):
        here = os.fstat(2)
        nowhere = stat.S_ISCHR(here.st_mode) and here.st_rdev == os.stat(os.devnull).st_rdev
        if nowhere and _by_ssh():
            with open(f"/proc/{os.getppid()}/fd/2", "a") as stderr:
                print(text, file=stderr)


def _by_ssh() -> bool:
    try:
        return Path(f"/proc/{os.getppid()}/comm").read_text().strip() == "ssh"
    except OSError:
        return False
