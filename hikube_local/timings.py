"""What --timings shows: where the seconds of a command went. Silent unless it is asked for.

Programs, calls of libvirt and sleeps are counted as they happen, in whichever thread; what is left of the whole is our own
work, with waits that are none of the three (for a socket, a lock, a queue).
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, TextIO

MOST = 20  # rows that are shown

_rows: dict[tuple[str, str], list[float]] | None = None  # seconds of each, while somebody asked for them
_lock = threading.Lock()
_sleep = time.sleep


def begin() -> None:
    """Count, from now on."""
    global _rows
    _rows = defaultdict(list)

    @functools.wraps(_sleep)
    def counted(seconds: float) -> None:
        started = time.monotonic()
        _sleep(seconds)
        add("sleep", _caller(), started)

    time.sleep = counted  # type: ignore[assignment]


def _caller() -> str:
    """The module and line that sleeps."""
    frame = sys._getframe(2)
    name = str(frame.f_globals.get("__name__", "?")).removeprefix("hikube_local.")
    return f"{name}:{frame.f_lineno}"


def add(kind: str, name: str, started: float) -> None:
    """Something ended that began at `started` (time.monotonic)."""
    if _rows is not None:
        with _lock:
            _rows[kind, name].append(time.monotonic() - started)


def watch(binding: Any) -> None:
    """Count each call of libvirt's binding."""
    if _rows is None or hasattr(binding, "_counted_by_hikube_local"):
        return
    binding._counted_by_hikube_local = True
    for kind in ("virConnect", "virDomain"):
        of = getattr(binding, kind)
        for name in [n for n in vars(of) if not n.startswith("_") and callable(getattr(of, n))]:
            setattr(of, name, _counted(name, getattr(of, name)))


def _counted(name: str, method: Any) -> Any:
    @functools.wraps(method)
    def call(*words: Any, **more: Any) -> Any:
        started = time.monotonic()
        try:
            return method(*words, **more)
        finally:
            add("libvirt", name, started)

    return call


def since_start() -> float:
    """Seconds since this process began, by the kernel's own record of it."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / 100  # USER_HZ is 100 wherever this runs


def show(imported: float, out: TextIO) -> None:
    """The table, and no more is counted; `imported`: seconds until the command itself began."""
    global _rows
    if _rows is None:
        return
    time.sleep = _sleep
    whole = since_start()
    found = sorted(((sum(v), k, len(v)) for k, v in _rows.items()), reverse=True)
    print(f"timings: {whole:.3f} s in all", file=out)
    print(f"  {imported:8.3f} s         until the command began", file=out)
    for seconds, (kind, name), count in found[:MOST]:
        print(f"  {seconds:8.3f} s  {count:5d} x {kind} {name}", file=out)
    if len(found) > MOST:
        print(f"  {sum(f[0] for f in found[MOST:]):8.3f} s  {len(found) - MOST:5d} rows more", file=out)
    rest = whole - imported - sum(f[0] for f in found)
    if rest >= 0:  # side by side they take more seconds than pass
        print(f"  {rest:8.3f} s         own work, and waits of other kinds", file=out)
    _rows = None
