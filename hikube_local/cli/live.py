"""Live lines on a terminal: one for each object with a mark, what it does and for how long; drawn anew as time passes.

What is drawn last stays: the end of a command shows how each object ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import field
from typing import TextIO

from hikube_local.events import Event, EventType
from hikube_local.language import tr
from hikube_local.records import dataclass
from hikube_local.text import clip, columns, one_line

EVERY = 0.1  # seconds between two drawings
BAR = 16  # characters of a download's bar
_SPIN = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ENDS = {
    EventType.DONE: "done",
    EventType.READY: "done",
    EventType.UNCHANGED: "done",
    EventType.FAILED: "failed",
}
# The seconds of a stage's own text: the line has its own clock.
_SECONDS = re.compile(r"\s\(\d+ s\)$")
_MARKS = {"done": ("✔", "+", "32"), "failed": ("✘", "x", "31")}


@dataclass(slots=True)
class _Row:
    """One object: what is said of it, since when it is at work, when it ended and how."""

    text: str
    begin: float = field(default_factory=time.monotonic)
    end: float | None = None
    state: str = "working"
    ready: bool = False


class Board:
    """The rows of one command. `lock` is held by whoever calls; the clock's own thread takes it."""

    def __init__(self, stream: TextIO, colour: bool, lock: threading.RLock) -> None:
        self._stream, self._colour, self._lock = stream, colour, lock
        self._rows: dict[tuple[str, str], _Row] = {}
        self._drawn: list[int] = []  # the widths of the lines on the screen
        self._tick = 0
        self._stop = threading.Event()
        self._clock: threading.Thread | None = None
        try:
            "✔⠋█".encode(stream.encoding or "ascii")
            self._plain = False
        except (UnicodeError, LookupError):
            self._plain = True

    def begin(self) -> None:
        self._clock = threading.Thread(target=self._run, daemon=True)
        self._clock.start()

    def end(self) -> None:
        """Stop the clock and leave the last state of every object on the screen."""
        self._stop.set()
        if self._clock:
            self._clock.join()
        with self._lock:
            # An image that was fetched or built for a disk has no end of its own: the disk's row tells it.
            self._rows = {k: r for k, r in self._rows.items() if k[0] or r.state != "working"} or self._rows
            self._draw(last=True)

    def show(self, event: Event) -> None:
        text = one_line(tr(_SECONDS.sub("", event.message)))
        row = self._row(event, text)
        if row.ready and event.type is EventType.STEP:
            return  # a checkpoint after it is no change of what became of the machine
        row.ready = event.type is EventType.READY
        row.text, row.state = text, _ENDS.get(event.type, "working")
        row.end = time.monotonic() if row.state != "working" else None
        done, total = event.data.get("bytes"), event.data.get("total")
        if isinstance(done, int) and isinstance(total, int) and total > 0:
            row.text = f"{self._bar(done / total)} {text}"
        self._draw()

    def _row(self, event: Event, text: str) -> _Row:
        """The row of its object. What is fetched for an object is told without a namespace: that is its row, too."""
        key = (event.namespace, event.object)
        same = next((k for k in self._rows if k[1] == event.object and not (k[0] and event.namespace)), key)
        if same != key and event.namespace:
            self._rows[key] = self._rows.pop(same)
            same = key
        return self._rows.setdefault(same, _Row(text))

    def above(self, lines: Iterable[str]) -> None:
        """Print lines that stay, above the live ones."""
        self._stream.write(self._erased() + "".join(f"{line}\n" for line in lines))
        self._draw()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            with (
                contextlib.suppress(OSError, ValueError),
                self._lock,
            ):  # a terminal that went is the command's to notice
                self._tick += 1
                self._draw()

    def _bar(self, share: float) -> str:
        full = min(BAR, int(share * BAR))
        a, b = ("#", ".") if self._plain else ("█", "░")
        return a * full + b * (BAR - full)

    def _draw(self, last: bool = False) -> None:
        width, height = self._size()
        lines = self._lines(max(20, width), None if last else max(1, height - 2))
        text = self._erased() + "".join(f"{shown}\n" for shown, _ in lines)
        self._drawn = [] if last else [n for _, n in lines]
        self._stream.write(text)
        self._stream.flush()

    def _size(self) -> tuple[int, int]:
        """(columns, lines) of the terminal as it is now."""
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return 80, 24
        return size.columns or 80, size.lines or 24

    def _erased(self) -> str:
        """What takes the drawn lines off the screen, also when the window became narrower and they were wrapped."""
        if not self._drawn:
            return ""
        width, _ = self._size()
        rows = sum(max(1, -(-n // width)) for n in self._drawn)
        self._drawn = []
        return f"\x1b[{rows}A\r\x1b[J"

    def _lines(self, width: int, most: int | None) -> list[tuple[str, int]]:
        """(the line with its colours, its width in columns), at most `most` of them."""
        if not self._rows:
            return []
        rows = list(self._rows.items())
        done = sum(r.state == "done" for _, r in rows)
        head = f"[+] {done}/{len(rows)}"
        hidden = 0
        if most is not None and len(rows) + 1 > most:
            # Those at work are looked at; the others in what room is left.
            first = sorted(range(len(rows)), key=lambda i: (rows[i][1].state == "done", i))[: max(1, most - 2)]
            hidden = len(rows) - len(first)
            rows = [rows[i] for i in sorted(first)]
        names = {key: key[1] for key, _ in rows}
        if len({key[0] for key, _ in rows}) > 1:
            names = {key: f"{key[0]}/{key[1]}" for key, _ in rows}
        longest = min(max(columns(n) for n in names.values()), max(8, width // 2))
        out = [(head, columns(head))]
        out += [self._line(names[key], longest, row, width) for key, row in rows]
        if hidden:
            more = clip(tr(f"    … and {hidden} more"), width - 1)
            out.append((more, columns(more)))
        return out

    def _line(self, name: str, longest: int, row: _Row, width: int) -> tuple[str, int]:
        spent = f"{(row.end or time.monotonic()) - row.begin:.0f}s"
        name = clip(name, longest)
        room = width - 1 - 3 - longest - 2 - 1 - len(spent)
        text = clip(row.text, max(0, room))
        if row.state == "working":
            mark, colour = ("*" if self._plain else _SPIN[self._tick % len(_SPIN)]), "36"
        else:
            good, plain, colour = _MARKS[row.state]
            mark = plain if self._plain else good
        pad = " " * (longest - columns(name) + 2)
        gap = " " * max(1, width - 1 - 3 - longest - 2 - columns(text) - len(spent))
        line = f" {mark} {name}{pad}{text}{gap}{spent}"
        shown = f" \x1b[{colour}m{mark}\x1b[0m {name}{pad}{text}{gap}\x1b[2m{spent}\x1b[0m" if self._colour else line
        return shown, columns(line)
