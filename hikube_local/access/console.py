"""Typing into a machine's serial console: the socket on one side, the terminal on the other, Ctrl-] to leave."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import termios
import tty
from pathlib import Path

from hikube_local.errors import HikubeError

ESCAPE = b"\x1d"
# Leave the alternate screen, show the cursor, end bracketed paste and mouse reports, reset colours.
_RESET = b"\x1b[?1049l\x1b[?25h\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1006l\x1b[0m\r\n"


def attach(path: Path, name: str) -> None:
    """Carry bytes until Ctrl-], the end of input without a terminal, or the end of the machine."""
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(str(path))
        except OSError as e:
            raise HikubeError(
                "HK805", f"the console of {name} cannot be opened: {e.strerror}", fix=f"hikube-local start {name}"
            ) from None
        terminal = sys.stdin.isatty()
        before = termios.tcgetattr(0) if terminal else None
        leave = "leave with Ctrl-]" if terminal else "Ctrl-C ends it"
        print(f"Connected to {name}; {leave}", file=sys.stderr)
        if terminal:
            tty.setraw(0)
        try:
            _carry(s, terminal)
        finally:
            if before is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, before)
                os.write(1, _RESET)


def _carry(s: socket.socket, terminal: bool) -> None:
    sources: list[int | socket.socket] = [0, s]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if s in ready:
            block = s.recv(65536)
            if not block:
                return
            with contextlib.suppress(BlockingIOError):
                os.write(1, block)
        if 0 in ready:
            typed = os.read(0, 4096)
            if terminal and ESCAPE in typed:
                s.sendall(typed.split(ESCAPE)[0])
                return
            if not typed:
                if terminal:
                    return
                sources.remove(0)  # piped input ended: go on showing what the machine says
                continue
            s.sendall(typed)
