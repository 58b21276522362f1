"""What Windows' Python has otherwise than Unix', for the commands that act elsewhere: asked here, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from hikube_local.errors import HikubeError

try:
    import fcntl
    import termios
    import tty

    UNIX = True
except ImportError:
    UNIX = False

BINARY = 0 if UNIX else os.O_BINARY  # type: ignore[attr-defined,unused-ignore]


def require_unix(what: str) -> None:
    """HK611 on Windows."""
    if not UNIX:
        fix = "do it in WSL2, which is Linux: docs/windows.md"
        raise HikubeError("HK611", f"{what} is not possible from Windows", fix=fix)


def euid() -> int:
    """The user's number; on Windows 1: nobody is root there, and who owns a file its own permissions say."""
    return os.geteuid() if UNIX else 1


def lock(fd: int, shared: bool = False, wait: bool = True) -> None:
    """Lock an open file until it is closed; BlockingIOError where another process has it. On Windows no lock is shared (that
    wants pywin32): who would share one waits."""
    if UNIX:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        return
    import portalocker

    flags = portalocker.LockFlags.EXCLUSIVE | (portalocker.LockFlags(0) if wait else portalocker.LockFlags.NON_BLOCKING)
    try:
        portalocker.lock(fd, flags)
    except portalocker.AlreadyLocked as e:  # also after ten seconds of waiting
        raise BlockingIOError(str(e)) from None


def in_place(program: str, words: Sequence[str]) -> NoReturn:
    """Run a program in place of this one; `words`: its own name first. Windows' way loses quotes, the terminal and the exit code."""
    if UNIX:
        os.execv(program, list(words))
    import subprocess

    sys.exit(subprocess.run([program, *words[1:]]).returncode)


def shell_words(words: Sequence[str]) -> str:
    """One line for the shell through which ssh runs a ProxyCommand."""
    import shlex
    import subprocess

    return shlex.join(words) if UNIX else subprocess.list2cmdline(words)


def bytes_as_they_are() -> None:
    """Standard input and output carry bytes: Windows would change their line ends."""
    if not UNIX:
        import msvcrt

        for fd in (0, 1):
            msvcrt.setmode(fd, os.O_BINARY)  # type: ignore[attr-defined]


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Each key as it is typed, in a terminal on standard input."""
    if not UNIX:
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


# What Windows' console says for a key that is no character, after 0 or 224, and what a terminal sends for it.
_KEYS = {"H": "A", "P": "B", "M": "C", "K": "D", "G": "H", "O": "F", "S": "3~", "I": "5~", "Q": "6~", "R": "2~"}


def keys() -> bytes:
    """What was typed, once something was, in a raw terminal; nothing at its end."""
    if UNIX:
        return os.read(0, 4096)
    import msvcrt

    typed: str = msvcrt.getwch()  # type: ignore[attr-defined]
    if typed in ("\0", "\xe0"):
        typed = "\x1b[" + _KEYS.get(msvcrt.getwch(), "")  # type: ignore[attr-defined]
    return typed.encode()
