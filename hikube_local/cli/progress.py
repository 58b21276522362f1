"""The progress of a command on stderr: live lines on a terminal (cli/live.py), plain lines or JSON elsewhere."""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING, Any

from hikube_local.cli.app import App
from hikube_local.events import Event, EventType
from hikube_local.language import tr
from hikube_local.text import one_line

if TYPE_CHECKING:
    from hikube_local.cli.live import Board

_MARK = {
    EventType.FAILED: "FAILED",
    EventType.WARNING: "warning",
    EventType.DIFFERENCE: "differs",
    EventType.HINT: "hint",
    EventType.WAITING: "waiting",
    EventType.UNCHANGED: "unchanged",
}
_COLOUR = {EventType.FAILED: "31", EventType.WARNING: "33", EventType.DIFFERENCE: "36"}
# What a live line shows; the rest is printed above the live lines and stays.
_LIVE = (
    *(EventType.PROGRESS, EventType.STAGE, EventType.STEP, EventType.WAITING),
    *(EventType.DONE, EventType.READY, EventType.UNCHANGED),
)

PLAIN_EVERY = 5.0  # seconds between two lines of progress about one object


class ProgressPrinter:
    """Listens to events and tells them. `json_lines`: each event as a JSON object on stdout (`up -o json`)."""

    def __init__(self, app: App, json_lines: bool = False) -> None:
        self.json_lines = json_lines
        self._lock = threading.RLock()
        self._colour = app.color(sys.stderr)
        self._no_differences = app.no_differences
        self.mode = app.progress_mode
        self._board: Board | None = None
        if self.mode == "tty" and not json_lines:
            from hikube_local.cli.live import Board

            self._board = Board(sys.stderr, self._colour, self._lock)
        self._last: dict[tuple[str, str], float] = {}
        self._once: set[tuple[str, str]] = set()
        self._totals: dict[tuple[str, str], int | None] = {}

    def __enter__(self) -> ProgressPrinter:
        if self._board:
            self._board.begin()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._board:
            self._board.end()

    def __call__(self, event: Event) -> None:
        if event.type is EventType.PULSE:
            return
        with self._lock:
            if self.json_lines or self.mode == "json":
                stream = sys.stdout if self.json_lines else sys.stderr
                print(json.dumps(event.as_json(), ensure_ascii=False), file=stream, flush=True)
            elif self._board and event.type in _LIVE and event.object:
                self._board.show(event)
            elif self._wanted(event):
                self._print(event)
                if self._board and event.type is EventType.FAILED:
                    self._board.show(event)

    def _wanted(self, event: Event) -> bool:
        """Whether it is told as a line."""
        if self.mode == "quiet":
            return event.type in (EventType.FAILED, EventType.WARNING)
        if event.type is EventType.DIFFERENCE:
            # Of many machines each differs alike: once says it.
            key = (event.code, event.message)
            if self._no_differences or (event.code and key in self._once):
                return False
            self._once.add(key)
        # Off a terminal progress is a line every few seconds, not each; how much it is in all is told at once.
        about = (event.namespace, event.object)
        known = self._totals.get(about)
        total = self._totals[about] = event.data.get("total") or known
        soon = event.time - self._last.get(about, 0.0) < PLAIN_EVERY
        if event.type is EventType.PROGRESS and total == known and soon:
            return False
        self._last[about] = event.time
        return True

    def _print(self, event: Event) -> None:
        mark = tr(_MARK.get(event.type, ""))
        if mark and self._colour and event.type in _COLOUR:
            mark = f"\x1b[{_COLOUR[event.type]}m{mark}\x1b[0m"
        head = f"{one_line(event.object)}: " if event.object else ""
        code = f" [{event.code}]" if event.code else ""
        message = one_line(tr(event.message))
        if event.type is EventType.READY and self._colour:
            message = f"\x1b[32m{message}\x1b[0m"
        lines = [f"{head}{mark + ': ' if mark else ''}{message}{code}"]
        data = event.data
        if event.type is EventType.FAILED:
            lines += [f"    | {one_line(str(line))[:300]}" for line in data.get("lines", [])[-12:]]
            lines += [
                f"  {tr(n)}: {one_line(tr(str(data[n])))}"
                for n in ("why", "fix")
                if data.get(n) and data[n] != event.message
            ]
        if self._board:
            self._board.above(lines)
        else:
            print("\n".join(lines), file=sys.stderr, flush=True)
