"""The console of a tenant's machine while somebody waits for its boot: the platform keeps none, and says nothing of a boot.

KubeVirt's console has one seat: who comes later takes it, and it is given up without a word to whoever does.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from hikube_local import files
from hikube_local.errors import HikubeError
from hikube_local.kubeclient.client import Refused
from hikube_local.readiness.console import Console, final_message

KEPT = 4 << 20  # bytes of a recorded console
AGAIN = 1.0  # seconds between two attempts, while the machine is not there yet


class Seat(StrEnum):
    """Whether we read the console."""

    WAITING = "waiting"
    OURS = "ours"
    LOST = "lost"  # somebody else has it, or the machine ended
    REFUSED = "refused"  # the person's role has no consoles


class Stream(Protocol):
    """What of a websocket is used."""

    def receive(self) -> bytes: ...

    def close(self) -> None: ...


class Recorder:
    """Reads until it is closed. `connect`: opens the console; `keep`: where what came is written, for `logs`."""

    def __init__(self, connect: Callable[[], Stream], cloud_init: str, keep: Path) -> None:
        self.console = Console(final_message(cloud_init))
        self.seat = Seat.WAITING
        self._connect, self._keep = connect, keep
        self._stream: Stream | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        files.make_folder(keep.parent)
        files.write(keep, b"")
        self._thread.start()

    def close(self) -> None:
        """The seat is free again."""
        self._closed.set()
        if self._stream is not None:
            self._stream.close()
        self._thread.join(2)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._stream = self._connect()
            except Refused as e:
                if e.status == 403:
                    self.seat = Seat.REFUSED
                    return
            except (HikubeError, OSError):
                pass  # not there yet, or not reached now
            else:
                self.seat = Seat.OURS
                with contextlib.suppress(HikubeError, OSError), open(self._keep, "ab") as kept:
                    self._read(self._stream, kept.fileno())
                self.seat = Seat.LOST
                return
            self._closed.wait(AGAIN)

    def _read(self, stream: Stream, kept: int) -> None:
        room = KEPT
        while block := stream.receive():
            self.console.feed(block)
            if room > 0:
                with contextlib.suppress(OSError):  # a full disk: it is followed all the same
                    os.write(kept, block[:room])
                room -= len(block)
