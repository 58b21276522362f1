"""What machines use, now and in the last day: rates out of counters, and a history of bounded size.

The history is kept while `serve` runs: a point every 5 s for an hour, one a minute for a day. It lies in a file of its own, and
may be lost.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from hikube_local.api.objects import Key, Object
from hikube_local.backends.capabilities import Figures, Measures
from hikube_local.engine.session import Session
from hikube_local.paths import Layout
from hikube_local.records import dataclass

STEP, HOUR = 5, 3600  # seconds between two points, and how long they are kept
MINUTE, DAY = 60, 86400
COLUMNS = ("cpuMillis", "memory", "readPerSecond", "writtenPerSecond", "receivedPerSecond", "sentPerSecond")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a machine over some seconds: milliprocessors, bytes of memory of the host's, bytes a second."""

    cpuMillis: int
    memory: int
    readPerSecond: int
    writtenPerSecond: int
    receivedPerSecond: int
    sentPerSecond: int

    @property
    def row(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in COLUMNS)


def total(figures: Figures, part: str, count: str) -> int:
    """The sum over all devices of one part: `block`, `rd.bytes`."""
    return sum(int(figures.get(f"{part}.{n}.{count}", 0)) for n in range(int(figures.get(f"{part}.count", 0))))


def between(before: Figures, after: Figures, seconds: float) -> Usage:
    """What was used between two looks; a machine that was started between them counts from its start."""

    def rate(a: int, b: int) -> int:
        return int((b - a if b >= a else b) / max(seconds, 1e-3))

    cpu = rate(int(before.get("cpu.time", 0)), int(after.get("cpu.time", 0)))
    pairs = (("block", "rd.bytes"), ("block", "wr.bytes"), ("net", "rx.bytes"), ("net", "tx.bytes"))
    rates = [rate(total(before, *pair), total(after, *pair)) for pair in pairs]
    return Usage(int(cpu / 1e6), int(after.get("balloon.rss", 0)) * 1024, *rates)


def look(session: Session, objects: list[Object]) -> dict[Key, Figures]:
    """The counters of those that run and whose backend counts."""
    by: dict[str, list[Object]] = {}
    for obj in objects:
        if session.able(obj, Measures):
            by.setdefault(obj.backend, []).append(obj)
    found: dict[Key, Figures] = {}
    for of in by.values():
        found |= session.require(of[0], Measures).figures(of)
    return found


def path(layout: Layout) -> Path:
    return layout.state / "history.db"


def keep(layout: Layout, when: float, usages: Mapping[Key, Usage]) -> None:
    """Add a point of each machine, and let go of what is too old."""
    try:
        _keep(path(layout), when, usages)
    except sqlite3.OperationalError:
        raise  # locked, or no space: it may pass
    except sqlite3.DatabaseError:  # damaged: a history may be lost
        path(layout).unlink(missing_ok=True)


def _keep(file: Path, when: float, usages: Mapping[Key, Usage]) -> None:
    with contextlib.closing(sqlite3.connect(file, timeout=5, isolation_level=None)) as c:
        file.chmod(0o600)
        c.execute("PRAGMA synchronous=OFF")
        c.execute("BEGIN IMMEDIATE")
        values = ", ".join(f"{name} INTEGER" for name in COLUMNS)
        have = tuple(row[1] for row in c.execute("PRAGMA table_info(points)"))
        if have and have[4:] != COLUMNS:  # of another version: a history may be lost
            c.execute("DROP TABLE points")
        c.execute(
            f"CREATE TABLE IF NOT EXISTS points(step INTEGER, namespace TEXT, name TEXT, time INTEGER, {values},"
            " PRIMARY KEY(step, namespace, name, time)) WITHOUT ROWID"
        )
        marks = ", ".join("?" * (4 + len(COLUMNS)))
        for key, usage in usages.items():
            for step in (STEP, MINUTE):  # of a minute its last point stays
                at = int(when) // step * step
                row = (step, key.namespace, key.name, at, *usage.row)
                c.execute(f"INSERT OR REPLACE INTO points VALUES({marks})", row)
        for step, most in ((STEP, HOUR), (MINUTE, DAY)):
            c.execute("DELETE FROM points WHERE step=? AND time < ?", (step, int(when) - most))
        c.execute("COMMIT")


def history(layout: Layout, obj: Object, since: float) -> dict[str, object]:
    """The points of the last `since` seconds, oldest first, as columns: `step` in seconds, `time` in Unix seconds."""
    step = STEP if since <= HOUR else MINUTE
    rows: list[tuple[int, ...]] = []
    # A file that was lost or damaged is a history without points.
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{quote(str(path(layout)))}?mode=ro", uri=True, timeout=5)) as c,
    ):
        sql = f"SELECT time, {', '.join(COLUMNS)} FROM points WHERE step=? AND namespace=? AND name=? AND time >= ? ORDER BY time"
        rows = c.execute(sql, (step, obj.namespace, obj.name, int(max(time.time() - since, obj.created)))).fetchall()
    columns = [list(c) for c in zip(*rows, strict=True)] if rows else [[] for _ in ("time", *COLUMNS)]
    return {"step": step, **dict(zip(("time", *COLUMNS), columns, strict=True))}
