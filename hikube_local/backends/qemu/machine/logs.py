"""A machine's logs: what its serial console, or its firmware, said, by its boots and made safe to show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from hikube_local.api.objects import Object
from hikube_local.backends.qemu import boot_marks
from hikube_local.errors import HikubeError
from hikube_local.text import Cleaner


class Log:
    """One log of one machine."""

    def __init__(self, obj: Object, folder: Path, kind: str) -> None:
        self.obj, self.kind, self.folder = obj, kind, folder
        self.path = self.folder / f"{self.kind}.log"
        self._cleaner = Cleaner()
        self._end: list[int] | None = None

    def read(self, previous: bool, since: float | None, whole: bool = True) -> str:
        """The last boot, the one before it, or all of the last `since` seconds; `whole`: nothing comes after it."""
        rows = boot_marks.all(self.folder)
        if previous and len(rows) < 2:
            raise HikubeError("HK804", f"{self.obj.name} has no previous boot")
        row = rows[-2 if previous else -1] if rows else {}
        if since is not None:
            recent = [r for r in rows if r["time"] >= time.time() - since]
            row = recent[0] if recent else row
        self._end = self._now()  # where what `more` tells begins
        end = rows[-1].get(self.kind) if previous else self._end
        text = "".join(map(self._cleaner.feed, boot_marks.read(self.path, row.get(self.kind), end)))
        return text + (self._cleaner.end() if whole else "")

    def _now(self) -> list[int] | None:
        about = self.path.stat() if self.path.exists() else None
        return [about.st_ino, about.st_size] if about else None

    def more(self) -> Iterator[str]:
        """What comes after `read`, one block a call: nothing where nothing came; whoever reads waits in between."""
        tail = boot_marks.Tail(self.path, self._end or self._now())
        while True:
            block = tail.more()
            yield self._cleaner.feed(block) if block else ""

    def raw(self) -> bytes:
        """All that is kept of it, as the machine wrote it."""
        return b"".join(boot_marks.read(self.path, None)) if self.path.exists() else b""

    def first_boot(self, most: int) -> bytes:
        """At most so many bytes of the first boot that is known, its last ones."""
        rows = boot_marks.all(self.folder)
        return b"".join(boot_marks.read(self.path, rows[0].get(self.kind) if rows else None))[-most:]
