"""Sockets with a name in a folder, which its owner alone enters.

Windows' Python has none: there the file names a port of the loopback and what is to be said first.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from pathlib import Path

from hikube_local.osdep import UNIX

_SECRET = 32  # bytes that whoever connects shows first, where a port of the loopback stands for a socket in a folder


def listen(path: Path) -> socket.socket:
    """Whoever may enter the folder may connect."""
    path.unlink(missing_ok=True)
    if UNIX:
        made = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen(4)
        return made
    made = socket.create_server(("127.0.0.1", 0))
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(f"{made.getsockname()[1]} {secrets.token_hex(_SECRET // 2)}")
    return made


def is_let_in(here: socket.socket, path: Path) -> bool:
    """Whether who has just connected may: it knows the word, and says it within five seconds. Asked beside other connections."""
    if UNIX:
        return True
    with contextlib.suppress(OSError):
        here.settimeout(5)
        word = path.read_text().split()[1].encode()
        if secrets.compare_digest(_exactly(here, _SECRET), word):
            here.settimeout(None)
            return True
    return False


def connect(path: Path, timeout: float | None = None) -> socket.socket:
    """OSError where nobody listens there."""
    if UNIX:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.settimeout(timeout)
            made.connect(str(path))
        except OSError:
            made.close()
            raise
        return made
    port, word = path.read_text().split()
    made = socket.create_connection(("127.0.0.1", int(port)), timeout)
    made.sendall(word.encode())
    return made


def _exactly(here: socket.socket, n: int) -> bytes:
    got = b""
    while len(got) < n and (block := here.recv(n - len(got))):
        got += block
    return got
