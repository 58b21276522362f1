"""What `test` found, kept for whoever looks later: the newest runs of this state root, one folder each."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hikube_local import files
from hikube_local.events import Emit, Event, EventType
from hikube_local.locks import holder, locked
from hikube_local.paths import Layout
from hikube_local.text import timestamp

MOST = 20  # runs that are kept
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
RESULT, PAGE = "result.json", "report.html"


def folder(layout: Layout) -> Path:
    return layout.state / "results"


class Run:
    """One run of `test`. A full disk takes nothing from the run itself: what cannot be kept is not there later."""

    def __init__(self, place: Path, machines: Sequence[str], manifests: Sequence[str]) -> None:
        self._place = place
        self._row: dict[str, Any] = {
            "id": place.name,
            "begun": timestamp(time.time()),
            "manifests": list(manifests),
            "machines": {name: {"stage": "", "since": ""} for name in machines},
        }
        self._write()

    def noting(self, emit: Emit) -> Emit:
        """The same listener, and each stage is noted."""

        def both(event: Event) -> None:
            emit(event)
            name = f"{event.namespace}/{event.object.rpartition('/')[2]}"
            if event.type is EventType.STAGE and name in self._row["machines"]:
                self._row["machines"][name] = {"stage": event.stage, "since": timestamp(event.time)}
                self._write()

        return both

    def end(self, reports: list[dict[str, Any]], page: str) -> None:
        """How it ended, in the form of `test -o json`, and its page."""
        self._row |= {"ended": timestamp(time.time()), "reports": reports}
        with contextlib.suppress(OSError):
            files.write(self._place / PAGE, page.encode("utf-8", "replace"))
        self._write()

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            files.write_json(self._place / RESULT, self._row)


@contextlib.contextmanager
def kept(layout: Layout, machines: Sequence[str], manifests: Sequence[str]) -> Iterator[Run]:
    """A run that is under way while the block runs. Older ones than MOST go."""
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    base = folder(layout)
    with locked(files.make_folder(base, layout.mode) / f"{name}.lock"):
        for old in _names(base)[: -(MOST - 1)]:
            if holder(base / f"{old}.lock") is None:
                shutil.rmtree(base / old, ignore_errors=True)
                (base / f"{old}.lock").unlink(missing_ok=True)
        yield Run(files.make_folder(base / name, layout.mode), machines, manifests)


def _names(base: Path) -> list[str]:
    return sorted(p.name for p in base.iterdir() if _ID.fullmatch(p.name)) if base.is_dir() else []


def all(layout: Layout) -> list[dict[str, Any]]:
    """The runs, newest first; `state` is running, ended, or killed."""
    base, out = folder(layout), []
    for name in reversed(_names(base)):
        row = files.read_json(base / name / RESULT)
        if isinstance(row, dict):
            alive = holder(base / f"{name}.lock") is not None
            out.append({**row, "state": "ended" if "ended" in row else "running" if alive else "killed"})
    return out


def ended(layout: Layout) -> list[Path]:
    """The folders of runs that are over."""
    base = folder(layout)
    return [base / name for name in _names(base) if holder(base / f"{name}.lock") is None]


def page(layout: Layout, name: str) -> str | None:
    """The page of one run, or None."""
    if not _ID.fullmatch(name):
        return None
    try:
        return (folder(layout) / name / PAGE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
