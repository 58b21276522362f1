"""Compressed bytes in, unpacked ones out, piece by piece and within a bound of memory: gzip, bzip2, xz, zstd."""

from __future__ import annotations

import bz2
import lzma
import os
import select
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from typing import Any

from hikube_local import log
from hikube_local.osdep import UNIX

MAGICS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
MEMORY = 128 << 20  # of a decompressor: a header may ask for gigabytes
PIECE = 1 << 20  # bytes that are unpacked at once


def compression(head: bytes) -> str:
    """gzip, bzip2, xz or zstd by content, else an empty string."""
    return next((name for magic, name in MAGICS.items() if head.startswith(magic)), "")


class Stream:
    """Bytes in, pieces of at most PIECE bytes out; ValueError and the libraries' own errors where they are damaged."""

    whole: Any = False  # once the end was seen

    def feed(self, block: bytes) -> Iterator[bytes]:
        raise NotImplementedError

    def end(self) -> Iterator[bytes]:
        """What comes when nothing more is fed."""
        return iter(())

    def close(self) -> None:
        """Nothing of it stays, wherever it was."""


class _Lzma(Stream):
    def __init__(self) -> None:
        self._make()
        self._members = 0

    def _make(self) -> None:
        self._d = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)

    @property
    def whole(self) -> bool:
        return self._members > 0 and not self._open

    _open = False

    def feed(self, block: bytes) -> Iterator[bytes]:
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


class _Gzip(Stream):
    """Members one after the other are one file; anything else behind a member is damage."""

    def __init__(self) -> None:
        self._d: Any = None
        self._members = 0

    @property
    def whole(self) -> bool:
        return self._members > 0 and self._d is None

    def feed(self, block: bytes) -> Iterator[bytes]:
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


class _Zstd(Stream):
    """Frames one after the other; a window beyond the bound is refused."""

    def __init__(self) -> None:
        import zstandard

        self._maker = zstandard.ZstdDecompressor(max_window_size=MEMORY)
        self._d: Any = None
        self._frames = 0

    @property
    def whole(self) -> bool:
        return self._frames > 0 and self._d is None

    def feed(self, block: bytes) -> Iterator[bytes]:
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


class XzBlocks(Stream):
    """The program xz, which unpacks a file of several blocks in as many threads as there are processors."""

    def __init__(self, xz: str) -> None:
        words = [xz, "-dc", "-T0", f"--memlimit-decompress={MEMORY}"]  # of all threads together, since xz 5.4
        pipe = subprocess.PIPE
        self._program = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        log.started(words)
        assert self._program.stdin and self._program.stdout and self._program.stderr
        self._in, self._out, self._said = self._program.stdin, self._program.stdout, self._program.stderr
        os.set_blocking(self._in.fileno(), False)
        self.whole = False

    @staticmethod
    def helps(head: bytes) -> str | None:
        """The program, where it is there and the first block's header says both sizes, as xz writes it with threads."""
        several = len(head) > 13 and head[12] and head[13] & 0xC0 == 0xC0
        return shutil.which("xz") if UNIX and several else None

    def feed(self, block: bytes) -> Iterator[bytes]:
        rest = memoryview(block)
        while rest:
            can_read, can_write, _ = select.select([self._out], [self._in], [])
            if can_read:
                if not (piece := self._out.read(PIECE)):
                    raise ValueError(self._error())
                yield piece
            if can_write:
                try:
                    rest = rest[self._in.write(rest) or 0 :]
                except BrokenPipeError:
                    raise ValueError(self._error()) from None

    def end(self) -> Iterator[bytes]:
        self._in.close()
        while piece := self._out.read(PIECE):
            yield piece
        said = self._error()
        self.whole = self._program.wait() == 0
        if not self.whole and " end " not in said:  # "Unexpected end of input": it ends early
            raise ValueError(said)

    def _error(self) -> str:
        """What it said, in words of one line."""
        return self._said.read(2000).decode(errors="replace").rpartition("(stdin): ")[2].strip()

    def close(self) -> None:
        self._program.kill()
        self._program.wait()
        for pipe in (self._in, self._out, self._said):
            pipe.close()


def stream(kind: str, head: bytes) -> Stream:
    """What unpacks a file of this compression that begins so."""
    if kind == "xz" and (xz := XzBlocks.helps(head)):
        return XzBlocks(xz)
    return {"gzip": _Gzip, "bzip2": _Bzip2, "xz": _Lzma, "zstd": _Zstd}[kind]()
