"""One download: streamed and hashed in one pass into a partial file that a later run goes on with.

Beside the partial lies what it is of: URL, validator, length, and how much of it is surely on the disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hikube_local import files
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.images import http
from hikube_local.images.beside import Beside
from hikube_local.records import dataclass
from hikube_local.text import mask_url, size

BLOCK = 1 << 20  # bytes read at a time of what is on the disk
FAST_BLOCK, SLOW_BLOCK = 128 << 10, 4 << 10  # the same of what comes, as fast as it does
SYNC_EVERY = 64 << 20
SYNC_SECONDS = 5.0  # that much of a slow download is lost when it is killed
RESERVE = 512 << 20  # bytes of the file system that a download leaves free
TRIES = 5  # after a break; a try that brought something counts anew
CONNECT_TRIES = 3
PROGRESS_EVERY = 2.0
sleep: Callable[[float], None] = time.sleep

Sink = Callable[[bytes], None]


@dataclass(slots=True)
class Got:
    """What came: digests by algorithm, the server's validators, whether it was put together over several connections."""

    digests: dict[str, str]
    etag: str = ""
    modified: str = ""
    resumed: bool = False
    unchanged: bool = False  # 304: the server has nothing newer


class Download:
    """Fetch `url` into `target`. `feed` gets every byte once, in order (an unpacker); `restart` tells it to begin again."""

    def __init__(
        self, url: str, target: Path, emit: Emit, about: str, algorithms: set[str], known: bool = False
    ) -> None:
        self.url, self.target, self.about, self.known = url, target, about, known
        self.emit = emit
        self.algorithms = {"sha256", *algorithms}
        self.note = target.with_name(target.name + ".json")
        self.feed: Sink = lambda block: None
        self.restart: Callable[[], None] = lambda: None

    def say(self, message: str, **data: Any) -> None:
        self.emit(Event(EventType.PROGRESS, message, self.about, data=data))

    def run(self, unless: dict[str, str] | None = None) -> Got:
        """Until it is whole; `unless` holds the conditional headers of a --pull."""
        tries = 0
        while True:
            before = self._kept()
            try:
                return self._once(unless)
            except http.Again as again:
                if self._kept() > before:
                    tries = 0
                tries += 1
                most = CONNECT_TRIES if isinstance(again.error, http.Unreachable) and not self._kept() else TRIES
                if tries >= most:
                    raise again.error from None
                wait = again.wait if again.wait is not None else min(2.0 ** (tries - 1), 30.0)
                self.say(f"{again.error.what}: retrying in {wait:.0f} s ({tries} of {most - 1})")
                self._pause(wait)

    def _pause(self, seconds: float) -> None:
        while seconds > 0:
            self.emit(Event(EventType.PULSE, "", self.about))  # where an interrupt is heeded
            sleep(min(seconds, 1.0))
            seconds -= 1.0

    def forget(self) -> None:
        """Nothing partial stays."""
        for path in (self.note, self.target):
            path.unlink(missing_ok=True)

    def _kept(self) -> int:
        """Bytes of an earlier connection that are surely on the disk and of this URL."""
        row = files.read_json(self.note) or {}
        try:
            usable = row["url"] == self.url and (row["etag"] or row["modified"])
            # Of a file that is there whole the last byte is asked for again: so the server says whether it is still that one.
            most = max(0, int(row["total"]) - 1) if row["total"] else int(row["synced"])
            return min(int(row["synced"]), self.target.stat().st_size, most) if usable else 0
        except (KeyError, TypeError, ValueError, OSError):
            return 0

    def _once(self, unless: dict[str, str] | None) -> Got:
        start = self._kept()
        headers = dict(unless or {})
        row = files.read_json(self.note) or {}
        if start:
            headers = {"Range": f"bytes={start}-", "If-Range": row["etag"] or row["modified"]}
        with http.get(self.url, headers, self.known) as answer:
            if answer.status_code == 304:
                return Got({}, unchanged=True)
            if start and not self._continues(answer, start, row):
                if answer.status_code != 200:
                    self.forget()
                    raise http.Again(HikubeError("HK701", f"{mask_url(self.url)} changed during the download"), 0)
                self.say("starting from the beginning (the file changed, or the server does not support ranges)")
                start = 0
            if answer.headers.get("Content-Encoding", "identity") not in ("identity", ""):
                raise HikubeError(
                    "HK701", f"{mask_url(self.url)} answered with a Content-Encoding, so its bytes are not the file's"
                )
            return self._take(answer, start, row)

    def _continues(self, answer: Any, start: int, row: dict[str, Any]) -> bool:
        """Whether this is the rest of what we have: the same file, from that byte on."""
        if answer.status_code != 206 or answer.headers.get("Content-Type", "").startswith("multipart/"):
            return False
        said = answer.headers.get("Content-Range", "")
        unit, _, rest = said.partition(" ")
        span, _, total = rest.partition("/")
        same = not row.get("total") or total in ("*", str(row["total"]))
        return unit == "bytes" and span.startswith(f"{start}-") and same and _etag(answer) in ("", row["etag"])

    def _take(self, answer: Any, start: int, row: dict[str, Any]) -> Got:
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        if start and (whole := answer.headers.get("Content-Range", "").rpartition("/")[2]).isdigit():
            total = int(whole)  # a part may be shorter than what was asked for
        etag, modified = (
            (row["etag"], row["modified"]) if start else (_etag(answer), answer.headers.get("Last-Modified", ""))
        )
        room(self.target.parent, (total - start) if total is not None else SYNC_EVERY)
        hashers = {name: hashlib.new(name) for name in sorted(self.algorithms)}
        fd = os.open(self.target, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "r+b") as out:
            out.truncate(start)
            self.restart()
            # Digests and the unpacker are fed beside the network and the disk: each waits for the other two only where it must.
            with Beside[bytes](lambda blocks: self._pass(blocks, hashers)) as pass_on:
                # What an earlier connection brought is read again: the digest is over what is on the disk.
                left = start
                while left:
                    block = out.read(min(BLOCK, left))
                    if not block:
                        raise HikubeError("HK701", f"{self.target} became shorter while it was read")
                    left -= len(block)
                    pass_on.put(block)
                self._write_note(etag, modified, total, start)
                try:
                    count = self._stream(answer, out, start, total, pass_on, (etag, modified))
                except BaseException:
                    out.flush()
                    os.fsync(out.fileno())
                    self._write_note(etag, modified, total, out.tell())
                    raise
                out.flush()
                os.fsync(out.fileno())
        self._write_note(etag, modified, total, count)
        if total is not None and count != total:
            what = f"the download ended at {count} of {total} bytes"
            raise http.Again(HikubeError("HK701", what, fix="run it again: the download resumes"))
        self.say(f"downloaded {size(count)}" + ("" if total else " (the server sent no length)"))
        return Got({n: h.hexdigest() for n, h in hashers.items()}, etag, modified, resumed=start > 0)

    def _pass(self, blocks: Iterator[bytes], hashers: dict[str, Any]) -> None:
        for block in blocks:
            for h in hashers.values():
                h.update(block)
            self.feed(block)

    def _stream(
        self, answer, out, start: int, total: int | None, pass_on: Beside[bytes], validators: tuple[str, str]
    ) -> int:
        count = synced = checked = start
        begin = told = saved = time.monotonic()
        much = f"downloading, {size(total)} in all" if total is not None else "downloading: the server sent no length"
        self.say(much, bytes=start, total=total)

        def sync(counts: Iterator[int]) -> None:
            for upto in counts:
                os.fsync(out.fileno())
                self._write_note(*validators, total, upto)

        with Beside[int](sync, ahead=1) as on_disk:
            for block in _blocks(answer.raw):
                if total is not None and count + len(block) > total:
                    block = block[: total - count]
                out.write(block)
                count += len(block)
                pass_on.put(block)
                if count - checked >= SYNC_EVERY:
                    checked = count
                    room(self.target.parent, SYNC_EVERY if total is None else total - count)
                now = time.monotonic()
                if (count - synced >= SYNC_EVERY or now - saved >= SYNC_SECONDS) and on_disk.idle:
                    out.flush()  # the rest is for the disk, which nobody has to wait for
                    synced, saved = count, now
                    on_disk.put(synced)
                if now - told >= PROGRESS_EVERY:
                    told = now
                    self._progress(count, start, total, now - begin)
        return count

    def _progress(self, count: int, start: int, total: int | None, spent: float) -> None:
        rate = (count - start) / max(spent, 0.001)
        percent = f" {100 * count // total}%" if total else ""
        left = f", {int((total - count) / rate)} s left" if total and rate else ""
        self.say(f"downloading{percent} {size(count)} at {size(int(rate))}/s{left}", bytes=count, total=total)

    def _write_note(self, etag: str, modified: str, total: int | None, synced: int) -> None:
        row = {"url": self.url, "etag": etag, "modified": modified, "total": total, "synced": synced}
        files.write_json(self.note, row)


def _blocks(raw: Any) -> Iterator[bytes]:
    """What comes, as it comes: a second's worth or less at a time, so that a slow server is heard of, and an interrupt heeded."""
    most = SLOW_BLOCK
    while True:
        begin = time.monotonic()
        block = raw.read(most, decode_content=False)
        if not block:
            return
        spent = time.monotonic() - begin
        most = min(2 * most, FAST_BLOCK) if spent < 0.1 else max(most // 2, SLOW_BLOCK) if spent > 1 else most
        yield block


def _etag(answer: Any) -> str:
    """A strong validator; a weak one says nothing about bytes."""
    etag = answer.headers.get("ETag", "")
    return "" if etag.startswith("W/") else etag


def room(folder: Path, more: int) -> None:
    """HK604 when `more` bytes would take what the file system is to keep free."""
    free = shutil.disk_usage(folder).free
    if more + RESERVE > free:
        missing = size(more + RESERVE - free)
        raise HikubeError(
            "HK604",
            f"not enough space in {folder}: {size(more)} needed, {size(RESERVE)} to stay free, {missing} missing",
            fix="free space there; hikube-local images prune --dry-run says what it could remove",
        )
