"""Where each start of a machine begins in its console's log, over appends and rotations: (inode, offset)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hikube_local import files

FILE = "starts.json"
KEPT = 20


def mark(folder: Path, logs: dict[str, Path]) -> None:
    """Note that a start begins here."""
    row: dict[str, Any] = {"time": time.time()}
    for name, path in logs.items():
        try:
            st = os.stat(path)
            row[name] = [st.st_ino, st.st_size]
        except FileNotFoundError:
            row[name] = [0, 0]
    files.write_json(folder / FILE, [*all(folder)[-KEPT:], row])


def all(folder: Path) -> list[dict[str, Any]]:
    rows = files.read_json(folder / FILE)
    return rows if isinstance(rows, list) else []


def pieces(log: Path) -> list[Path]:
    """The log with its rotated parts, oldest first."""
    rotated = [p for p in log.parent.glob(f"{log.name}.[0-9]*") if p.suffix[1:].isdigit()]
    return [*sorted(rotated, key=lambda p: -int(p.suffix[1:])), log]


def read(log: Path, begin: list[int] | None, end: list[int] | None = None) -> Iterator[bytes]:
    """The bytes from mark `begin` to mark `end` (None: from the first, to the last)."""
    inode, offset = begin or [0, 0]
    known = [p for p in pieces(log) if p.exists()]
    inodes = [os.stat(p).st_ino for p in known]
    first = inodes.index(inode) if inode in inodes else 0
    for i, path in enumerate(known[first:]):
        with open(path, "rb") as f:
            if i == 0 and inodes[first] == inode:
                f.seek(offset)
            limit = end[1] if end and os.fstat(f.fileno()).st_ino == end[0] else None
            while block := f.read(min(1 << 20, max(0, limit - f.tell())) if limit is not None else 1 << 20):
                yield block
            if limit is not None:
                return


class Tail:
    """Follows one log from a mark on; each `more` hands back what came since."""

    def __init__(self, log: Path, begin: list[int] | None) -> None:
        self.log = log
        self._inode, self._offset = begin or [0, 0]

    def more(self) -> bytes:
        out = b""
        known = [p for p in pieces(self.log) if p.exists()]
        inodes = [os.stat(p).st_ino for p in known]
        if self._inode in inodes:
            known = known[inodes.index(self._inode) :]
        else:
            self._offset = 0
        for path in known:
            with open(path, "rb") as f:
                inode = os.fstat(f.fileno()).st_ino
                if inode == self._inode:
                    f.seek(self._offset)
                block = f.read(1 << 20)
                self._inode, self._offset = inode, f.tell()
                out += block
        return out
