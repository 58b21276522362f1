"""How the time of a reader grows with what it reads, n against 4n, never against a clock; and how slow this machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

MOST = 9.0  # four times the input takes four times as long; sixteen times would be quadratic


def unit() -> float:
    """Seconds of processor time that a fixed piece of work takes on this machine now: about 0.1 on a laptop of 2024."""
    return seconds(lambda: sum(i * i % 7 for i in range(1_300_000)))


@lru_cache(maxsize=4)
def _slowness(minute: int) -> float:
    begin = time.monotonic()
    sum(i * i % 7 for i in range(1_300_000))
    return min(20.0, max(1.0, (time.monotonic() - begin) / 0.1))


def patience(seconds: float) -> float:
    """`seconds` of a laptop of 2024 on this machine as it is now, with what else runs on it: what a wait may take."""
    return seconds * _slowness(int(time.monotonic() // 60))


def seconds(action: Callable[[], Any], tries: int = 3) -> float:
    """The shortest of a few tries: what else the machine does only ever adds."""
    best = float("inf")
    for _ in range(tries):
        begin = time.process_time()
        action()
        best = min(best, time.process_time() - begin)
    return best


def is_linear(read: Callable[[Any], Any], make: Callable[[int], Any], n: int) -> None:
    """Fail when four times as much takes far more than four times as long. `n` is chosen so that f(n) can be measured."""
    small, large = make(n), make(4 * n)
    for _ in range(3):
        a, b = seconds(lambda: read(small)), seconds(lambda: read(large))
        ratio = b / max(a, 0.002)
        if ratio < MOST:
            return
    raise AssertionError(f"{n} took {a:.3f} s, {4 * n} took {b:.3f} s: {ratio:.1f} times as long")
