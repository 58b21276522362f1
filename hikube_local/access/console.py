"""Typing into a machine's serial console: the socket on one side, the terminal on the other, Ctrl-] to leave."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
from pathlib import Path

from hikube_local import osdep, sockets
from hikube_local.errors import HikubeError

ESCAPE = b"\x1d"
# Leave the alternate screen, show the cursor, end bracketed paste and mouse reports, reset colours.
_RESET = b"\x1b[?1049l\x1b[?25h\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1006l\x1b[0m\r\n"


def attach(path: Path, name: str) -> None:
    """Carry bytes until Ctrl-], the end of input without a terminal, or the end of the machine."""
    try:
        s = sockets.connect(path)
    except OSError as e:
        raise HikubeError(
            "HK805", f"the console of {name} cannot be opened: {e.strerror}", fix=f"hikube-local start {name}"
        ) from None
    with s:
        terminal = sys.stdin.isatty()
        leave = "leave with Ctrl-]" if terminal else "Ctrl-C ends it"
        print(f"Connected to {name}; {leave}", file=sys.stderr)
        if not terminal:
            _carry(s, terminal)
            return
        try:
            with osdep.raw_terminal():
                _carry(s, terminal)
        finally:
            os.write(1, _RESET)


def _carry(s: socket.socket, terminal: bool) -> None:
    if not osdep.UNIX:  # standard input is nothing to wait for there
        threading.Thread(target=_type_all, args=(s, terminal), daemon=True).start()
        with contextlib.suppress(OSError):
            while block := s.recv(65536):
                os.write(1, block)
        return
    sources: list[int | socket.socket] = [0, s]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if s in ready:
            block = s.recv(65536)
            if not block:
                return
            with contextlib.suppress(BlockingIOError):
                os.write(1, block)
        if 0 in ready and not _type(s, terminal):
            if terminal:
                return
            sources.remove(0)  # piped input ended: go on showing what the machine says


def _type(s: socket.socket, terminal: bool) -> bool:
    """Send what was typed; False at its end, and at Ctrl-]."""
    typed = osdep.keys() if terminal else os.read(0, 4096)
    before, left, _ = typed.partition(ESCAPE) if terminal else (typed, b"", b"")
    s.sendall(before)
    return bool(typed) and not left


def _type_all(s: socket.socket, terminal: bool) -> None:
    with contextlib.suppress(OSError):
        while _type(s, terminal):
            pass
        if terminal:
            s.shutdown(socket.SHUT_RDWR)
