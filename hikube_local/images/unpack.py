"""Compressed images: unpacked while they arrive, sparse, one layer at most, bounded so that a bomb ends early."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

from hikube_local.errors import HikubeError
from hikube_local.images import streams
from hikube_local.images.beside import Beside
from hikube_local.images.download import SYNC_EVERY, room
from hikube_local.text import size

HOLE = 64 << 10  # runs of zeros of this length are not written


class Unpacker:
    """Takes the bytes of a download as they come and writes what they unpack to beside it, in a thread of its own."""

    def __init__(self, target: Path, limit: int) -> None:
        self.target, self.limit = target, limit  # bytes; 0: what the disk has
        self.kind = ""
        self._head = b""
        self._beside: Beside[bytes] | None = None

    def restart(self) -> None:
        """From the first byte again."""
        self.drop()
        self.kind, self._head = "", b""

    def feed(self, block: bytes) -> None:
        if self._beside is None and len(self._head) < 6:
            self._head = block = self._head + block
            if len(self._head) < 6:
                return
            self._head = block[:6]
            self.kind = streams.compression(self._head)
            if self.kind:
                self._beside = Beside(self._work).start()
        if self._beside is not None:
            self._beside.put(block)

    def finish(self) -> Path | None:
        """The unpacked file when the image was compressed, else None."""
        if self._beside is not None:
            self._beside.end()
        return self.target if self.kind else None

    def drop(self) -> None:
        """Give up: nothing stays."""
        if self._beside is not None:
            self._beside.abandon()
            self._beside = None
        self.target.unlink(missing_ok=True)

    def _work(self, blocks: Iterator[bytes]) -> None:
        try:
            self._unpack(blocks)
        except (HikubeError, OSError):
            raise
        except MemoryError:
            raise _refused(f"its {self.kind} header asks for more than {size(streams.MEMORY)} of memory") from None
        except Exception as e:
            raise _refused(f"its {self.kind} content is damaged: {e}"[:200]) from None

    def _unpack(self, blocks: Iterator[bytes]) -> None:
        first = next(blocks, b"")
        with closing(streams.stream(self.kind, first)) as stream:
            self._write(stream, chain([first], blocks))
            if not stream.whole:
                raise _refused(f"its {self.kind} content ends early", "a broken download? fetch it again")

    def _write(self, stream: streams.Stream, blocks: Iterator[bytes]) -> None:
        pieces = chain(chain.from_iterable(map(stream.feed, blocks)), stream.end())
        fd = os.open(self.target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            total = checked = 0
            for piece in pieces:
                total += len(piece)
                if total - checked > 0:
                    room(self.target.parent, SYNC_EVERY)
                    checked = total + SYNC_EVERY
                if self.limit and total > self.limit:
                    raise HikubeError(
                        "HK703",
                        f"it unpacks to more than {size(self.limit)}",
                        fix="write a larger storage, if this is the image that was meant",
                    )
                write_sparse(out, piece)
            out.truncate(total)
            out.flush()
            os.fsync(out.fileno())


def write_sparse(out: Any, data: bytes) -> None:
    """Write, but leave long runs of zeros as holes."""
    zero = bytes(HOLE)
    for at in range(0, len(data), HOLE):
        part = data[at : at + HOLE]
        if part == zero[: len(part)]:
            out.seek(len(part), os.SEEK_CUR)
        else:
            out.write(part)


def _refused(why: str, fix: str = "") -> HikubeError:
    return HikubeError("HK702", "the image is refused", why, fix)
