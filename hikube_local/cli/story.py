"""The story of a command on stderr: a live line for each object on a terminal, plain lines or JSON elsewhere."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from hikube_local.cli.app import App
from hikube_local.events import Event, EventType
from hikube_local.text import sanitize

_MARK = {
    EventType.READY: "ready",
    EventType.FAILED: "FAILED",
    EventType.WARNING: "warning",
    EventType.DIFFERENCE: "differs",
    EventType.HINT: "hint",
    EventType.WAITING: "waiting",
    EventType.UNCHANGED: "unchanged",
}
_COLOUR = {EventType.READY: "32", EventType.FAILED: "31", EventType.WARNING: "33", EventType.DIFFERENCE: "36"}


PLAIN_EVERY = 5.0  # seconds between two lines of progress about one object


class Story:
    """Listens to events and tells them. `json_lines`: each event as a JSON object on stdout (`up -o json`)."""

    def __init__(self, app: App, json_lines: bool = False) -> None:
        self.app = app
        self.json_lines = json_lines
        self._lock = threading.Lock()
        self._colour = app.color(sys.stderr)
        mode = app.progress
        if mode == "auto":
            mode = "tty" if sys.stderr.isatty() else "plain"
        self.mode = mode
        self._live: dict[str, str] = {}
        self._last: dict[str, float] = {}
        self._drawn = 0

    def __enter__(self) -> Story:
        return self

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self._erase()

    def __call__(self, event: Event) -> None:
        if event.type is EventType.PULSE:
            return
        with self._lock:
            if self.json_lines:
                print(json.dumps(event.as_json(), ensure_ascii=False), flush=True)
                return
            if self.mode == "json":
                print(json.dumps(event.as_json(), ensure_ascii=False), file=sys.stderr, flush=True)
            elif self.mode == "quiet":
                if event.type is EventType.FAILED:
                    self._print(event)
            elif self.mode == "tty" and event.type in (EventType.PROGRESS, EventType.STAGE, EventType.STEP):
                self._erase()
                self._live[event.object] = sanitize(event.message)
                self._draw()
            elif not self._too_soon(event):
                self._erase()
                self._live.pop(event.object, None) if event.type in (EventType.READY, EventType.FAILED) else None
                self._print(event)
                self._draw()

    def _too_soon(self, event: Event) -> bool:
        """Off a terminal progress is a line every few seconds, not each."""
        if event.type is EventType.PROGRESS and event.time - self._last.get(event.object, 0.0) < PLAIN_EVERY:
            return True
        self._last[event.object] = event.time
        return False

    def _print(self, event: Event) -> None:
        mark = _MARK.get(event.type, "")
        if mark and self._colour and event.type in _COLOUR:
            mark = f"\x1b[{_COLOUR[event.type]}m{mark}\x1b[0m"
        head = f"{event.object}: " if event.object else ""
        code = f" [{event.code}]" if event.code else ""
        print(f"{head}{mark + ': ' if mark else ''}{sanitize(event.message)}{code}", file=sys.stderr)
        data = event.data
        if event.type is EventType.FAILED:
            for line in data.get("lines", [])[-12:]:
                print(f"    | {sanitize(str(line))[:300]}", file=sys.stderr)
            for name in ("why", "fix"):
                if data.get(name) and data[name] != event.message:
                    print(f"  {name}: {sanitize(str(data[name]))}", file=sys.stderr)
        sys.stderr.flush()

    def _draw(self) -> None:
        if self.mode != "tty":
            return
        import shutil

        width = shutil.get_terminal_size().columns - 1
        for name, message in self._live.items():
            line = f"  {name}: {message}".replace("\n", " ")[:width]
            sys.stderr.write(line + "\n")
        self._drawn = len(self._live)
        sys.stderr.flush()

    def _erase(self) -> None:
        if self.mode == "tty" and self._drawn:
            sys.stderr.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0
