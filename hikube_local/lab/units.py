"""systemd's units of a boot, when each began and how long it took to come up; pure."""

from __future__ import annotations

import contextlib

from hikube_local.records import dataclass

# Microseconds since the kernel began (systemd.unit(5), org.freedesktop.systemd1(5)).
COMMAND = "systemctl show '*' -p Id -p InactiveExitTimestampMonotonic -p ActiveEnterTimestampMonotonic"
LEAST = 0.05  # seconds; what is quicker is not shown
MOST = 80  # units, the longest ones


@dataclass(frozen=True, slots=True)
class Unit:
    """Seconds since the kernel began, and until it was active."""

    name: str
    start: float
    seconds: float


def read(text: str) -> list[Unit]:
    """From what COMMAND prints: a block of NAME=VALUE for each unit, in the order of their beginnings."""
    found = []
    for block in text.split("\n\n")[:5000]:
        row = dict(line.partition("=")[::2] for line in block.splitlines())
        with contextlib.suppress(ValueError, OverflowError):
            begin = int(row.get("InactiveExitTimestampMonotonic", "0")) / 1e6
            end = int(row.get("ActiveEnterTimestampMonotonic", "0")) / 1e6
            if 0 < begin < end < 1e6 and end - begin >= LEAST and row.get("Id"):
                found.append(Unit(row["Id"][:80], begin, end - begin))
    longest = sorted(found, key=lambda u: -u.seconds)[:MOST]
    return sorted(longest, key=lambda u: u.start)
