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
        self._file: int | None = None
        self._mark = self._look()

    def _look(self) -> tuple[int, ...]:
        """What tells one state of the file from another.

        SQLite's own counter says what the file's times may hide (sqlite.org/fileformat.html, 1.3.7): it counts
        transactions. The file stays open: closing it would drop the locks that a transaction of this process holds on it
        (sqlite.org/howtocorrupt.html, 2.2).
        """
        with contextlib.suppress(OSError):
            about = os.stat(self._path)
            if self._file is None or os.fstat(self._file).st_ino != about.st_ino:
                self.close()
                self._file = os.open(self._path, os.O_RDONLY)
            os.lseek(self._file, 24, os.SEEK_SET)
            head = os.read(self._file, 4)
            return about.st_ino, about.st_mtime_ns, about.st_size, int.from_bytes(head)
        return ()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def wait(self, seconds: float) -> bool:
        """Whether somebody wrote since the last call, or before `seconds` have passed."""
        end = time.monotonic() + seconds
        while (now := self._look()) == self._mark:
            if (left := end - time.monotonic()) <= 0:
                return False
            time.sleep(min(EVERY, left))
        self._mark = now
        return True
