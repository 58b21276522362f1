"""A bell that rings when anybody wrote to the store, in this process or another."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

EVERY = 0.05  # seconds between two looks at the file, which take some microseconds


class Bell:
    """Waits for a change of one store file. A file that comes, goes or is replaced is a change, too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = self._look()

    def _look(self) -> tuple[int, ...]:
        """What tells one state of the file from another.

        SQLite's own counter says what the file's times may hide (sqlite.org/fileformat.html, 1.3.7): it counts
        transactions. It is read as bytes, since a connection that stays open would hold the file.
        """
        with contextlib.suppress(OSError), open(self._path, "rb") as f:
            about, head = os.fstat(f.fileno()), f.read(28)
            return about.st_ino, about.st_mtime_ns, about.st_size, int.from_bytes(head[24:28])
        return ()

    def wait(self, seconds: float) -> bool:
        """Whether somebody wrote since the last call, or before `seconds` have passed."""
        end = time.monotonic() + seconds
        while (now := self._look()) == self._mark:
            if (left := end - time.monotonic()) <= 0:
                return False
            time.sleep(min(EVERY, left))
        self._mark = now
        return True
