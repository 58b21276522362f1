"""A terminal for tests: the program under a pty, and its screen as a person sees it (pyte draws it)."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyte

from tests.growth import patience


@dataclass
class Shown:
    """What was on the screen at the end, with what had scrolled away before, and the exit code."""

    code: int
    lines: list[str]
    raw: bytes
    frames: list[list[str]] = field(default_factory=list)  # the screen, each time that something came
    styled: list[list[tuple[str, str]]] = field(default_factory=list)  # each line as runs of (text, colour)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    columns: int = 80,
    rows: int = 24,
    timeout: float = 120,
    act: Callable[[int, bytes], None] | None = None,
) -> Shown:
    """Run a program on a terminal of this size; `act(descriptor, so far)` may type or resize whenever something came."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execvpe(argv[0], list(argv), {**env, "TERM": "xterm-256color", "LANG": env.get("LANG", "C.UTF-8")})
    resize(fd, columns, rows)
    screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=1.0)
    stream = pyte.ByteStream(screen)
    raw, frames, deadline = b"", [], time.monotonic() + patience(timeout)
    try:
        while True:
            assert time.monotonic() < deadline, f"{argv[:4]} did not end in {timeout} s:\n" + "\n".join(screen.display)
            if not select.select([fd], [], [], 1.0)[0]:
                continue
            try:
                block = os.read(fd, 1 << 16)
            except OSError:
                break
            if not block:
                break
            raw += block
            stream.feed(block)
            if not select.select([fd], [], [], 0.02)[0]:  # a drawing may come in several pieces
                frames.append([line.rstrip() for line in screen.display])
            if act:
                act(fd, raw)
    finally:
        os.close(fd)
        _, status = os.waitpid(pid, 0)
    whole = [*screen.history.top, *(screen.buffer[y] for y in range(rows))]
    styled = [_runs([row[x] for x in range(columns)]) for row in whole]
    while styled and not styled[-1]:
        styled.pop()
    lines = ["".join(text for text, _ in runs) for runs in styled]
    return Shown(os.waitstatus_to_exitcode(status), lines, raw, frames, styled)


def _runs(cells: list[Any]) -> list[tuple[str, str]]:
    """A line as runs of one colour, without the blanks at its end."""
    while cells and cells[-1].data in ("", " "):
        cells.pop()
    found = groupby(cells, key=lambda c: "bold" if c.bold and c.fg == "default" else c.fg)
    return [("".join(c.data for c in group), colour) for colour, group in found]


def resize(fd: int, columns: int, rows: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
