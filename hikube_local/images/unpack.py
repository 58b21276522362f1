"""Compressed images: unpacked while they arrive, sparse, one layer at most, bounded so that a bomb ends early."""

from __future__ import annotations

import bz2
import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from hikube_local.errors import HikubeError
from hikube_local.images.beside import Beside
from hikube_local.images.download import SYNC_EVERY, room
from hikube_local.text import size

MAGICS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
MEMORY = 128 << 20  # of a decompressor: a header may ask for gigabytes
PIECE = 1 << 20  # bytes that are unpacked at once
HOLE = 64 << 10  # runs of zeros of this length are not written


def compression(head: bytes) -> str:
    """gzip, bzip2, xz or zstd by content, else an empty string."""
    return next((name for magic, name in MAGICS.items() if head.startswith(magic)), "")


class Stream(Protocol):
    """Bytes in, pieces of at most PIECE bytes out; `whole` once the end was seen."""

    def feed(self, block: bytes) -> Any: ...

    @property
    def whole(self) -> bool: ...


class _Lzma:
    def __init__(self) -> None:
        self._make()
        self._members = 0

    def _make(self) -> None:
        self._d = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)

    @property
    def whole(self) -> bool:
        return self._members > 0 and not self._open

    _open = False

    def feed(self, block: bytes):
        while block or (self._open and not self._d.needs_input and not self._d.eof):
            if not self._open:
                block = block.lstrip(b"\0")  # stream padding
                if not block:
                    return
                self._make()
                self._open = True
            out = self._d.decompress(block, PIECE)
            block = b""
            if out:
                yield out
            if self._d.eof:
                block, self._open = self._d.unused_data, False
                self._members += 1
            elif self._d.needs_input:
                return


class _Bzip2(_Lzma):
    def _make(self) -> None:
        self._d = bz2.BZ2Decompressor()  # type: ignore[assignment]


class _Gzip:
    """Members one after the other are one file; anything else behind a member is damage."""

    def __init__(self) -> None:
        self._d: Any = None
        self._members = 0

    @property
    def whole(self) -> bool:
        return self._members > 0 and self._d is None

    def feed(self, block: bytes):
        while block:
            if self._d is None:
                self._d = zlib.decompressobj(16 + zlib.MAX_WBITS)
            out = self._d.decompress(block, PIECE)
            if out:
                yield out
            if self._d.eof:
                block, self._d = self._d.unused_data, None
                self._members += 1
            else:
                block = self._d.unconsumed_tail


class _Zstd:
    """Frames one after the other; a window beyond the bound is refused."""

    def __init__(self) -> None:
        import zstandard

        self._maker = zstandard.ZstdDecompressor(max_window_size=MEMORY)
        self._d: Any = None
        self._frames = 0

    @property
    def whole(self) -> bool:
        return self._frames > 0 and self._d is None

    def feed(self, block: bytes):
        step = 16 << 10  # one block of input cannot grow beyond what fits into memory
        for at in range(0, len(block), step):
            part = block[at : at + step]
            while part:
                if self._d is None:
                    self._d = self._maker.decompressobj()
                out = self._d.decompress(part)
                for i in range(0, len(out), PIECE):
                    yield out[i : i + PIECE]
                if self._d.eof:
                    part, self._d = self._d.unused_data, None
                    self._frames += 1
                else:
                    part = b""


STREAMS: dict[str, type[Stream]] = {"gzip": _Gzip, "bzip2": _Bzip2, "xz": _Lzma, "zstd": _Zstd}


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
            self.kind = compression(self._head)
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
            raise _refused(f"its {self.kind} header asks for more than {size(MEMORY)} of memory") from None
        except Exception as e:
            raise _refused(f"its {self.kind} content is damaged: {e}"[:200]) from None

    def _unpack(self, blocks: Iterator[bytes]) -> None:
        stream = STREAMS[self.kind]()
        fd = os.open(self.target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            total = checked = 0
            for block in blocks:
                for piece in stream.feed(block):
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
        if not stream.whole:
            raise _refused(f"its {self.kind} content ends early", "a broken download? fetch it again")


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
