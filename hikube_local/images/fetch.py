"""Download an image: one pass that streams and hashes, the length checked, into the cache."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from pathlib import Path

from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.images.cache import Cache, Entry
from hikube_local.text import mask_url, size

CONNECT_TIMEOUT = 10
STALL_TIMEOUT = 30
BLOCK = 1 << 20
RESERVE = 512 << 20  # bytes of the file system that a download leaves free


class Unreachable(HikubeError):
    """The server could not be reached at all (as opposed to: it said no)."""


def fetch(cache: Cache, url: str, emit: Emit, about: str, checksum: str = "") -> Entry:
    """The image behind `url`, from the cache or downloaded now. `about` names the object that wants it."""
    with cache.lock(url, emit):
        if entry := cache.lookup(url):
            emit(Event(EventType.PROGRESS, f"image from the cache ({entry.digest[:12]})", about))
            return entry
        partial = cache.folder / "partial" / secrets.token_hex(8)
        try:
            digest, etag = _download(url, partial, emit, about)
            _verify(url, digest, checksum)
            return cache.adopt(partial, url, mask_url(url), digest=digest, etag=etag)
        finally:
            partial.unlink(missing_ok=True)


def _verify(url: str, digest: str, checksum: str) -> None:
    wanted = checksum.lower().removeprefix("sha256:")
    if wanted and wanted != digest:
        raise HikubeError(
            "HK704",
            f"the image of {mask_url(url)} has another digest than the one it should have",
            why=f"wanted sha256:{wanted}, got sha256:{digest}",
            fix="nothing was kept: look whether the image was replaced, then correct the checksum",
        )


def _download(url: str, target: Path, emit: Emit, about: str) -> tuple[str, str]:
    """Stream `url` into `target`; hands back the sha256 and a strong ETag."""
    import requests
    from urllib3.exceptions import HTTPError

    shown = mask_url(url)
    session = requests.Session()
    session.max_redirects = 10
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "hikube-local"})
    try:
        with session.get(url, stream=True, timeout=(CONNECT_TIMEOUT, STALL_TIMEOUT)) as answer:
            if answer.status_code != 200:
                raise HikubeError(
                    "HK701",
                    f"{shown} answered {answer.status_code} {answer.reason}",
                    fix="open the URL in a browser; correct source.http.url",
                )
            if answer.headers.get("Content-Encoding", "identity") not in ("identity", ""):
                raise HikubeError(
                    "HK701", f"{shown} answered with Content-Encoding {answer.headers['Content-Encoding'][:30]!r}"
                )
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            _room(target, total)
            digest = _store(answer, target, total, emit, about)
            etag = answer.headers.get("ETag", "")
            return digest, "" if etag.startswith("W/") else etag
    except (requests.exceptions.ConnectionError, requests.exceptions.ConnectTimeout) as e:
        raise Unreachable(
            "HK701",
            f"{shown} could not be reached",
            why=_reason(e),
            fix="look at the network and the proxy settings, then run it again",
        ) from None
    except HTTPError as e:
        raise HikubeError(
            "HK701", f"the download of {shown} broke off", why=_reason(e), fix="run it again: nothing partial was kept"
        ) from None
    except requests.exceptions.Timeout:
        raise HikubeError("HK701", f"{shown}: nothing came for {STALL_TIMEOUT} s", fix="run it again") from None
    except requests.exceptions.RequestException as e:
        raise HikubeError("HK701", f"{shown} could not be fetched", why=_reason(e)) from None


def _reason(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    return mask_url(str(cause))[:200]


def _room(target: Path, total: int | None) -> None:
    from shutil import disk_usage

    free = disk_usage(target.parent).free
    if total is not None and total + RESERVE > free:
        missing = size(total + RESERVE - free)
        raise HikubeError(
            "HK604", f"the image has {size(total)}, {missing} are missing in {target.parent}", fix="free space there"
        )


def _store(answer, target: Path, total: int | None, emit: Emit, about: str) -> str:
    hasher = hashlib.sha256()
    count = 0
    begin = told = time.monotonic()
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as out:
        for block in answer.raw.stream(BLOCK, decode_content=False):
            count += len(block)
            if total is not None and count > total:
                break
            hasher.update(block)
            out.write(block)
            now = time.monotonic()
            if now - told >= 2:
                told = now
                rate = count / max(now - begin, 0.001)
                percent = f" {100 * count // total}%" if total else ""
                left = f", {int((total - count) / rate)} s left" if total and rate else ""
                emit(
                    Event(
                        EventType.PROGRESS,
                        f"downloading{percent} {size(count)} at {size(int(rate))}/s{left}",
                        about,
                        data={"bytes": count, "total": total},
                    )
                )
        out.flush()
        os.fsync(out.fileno())
    if total is not None and count != total:
        raise HikubeError(
            "HK701", f"the download ended at {count} of {total} bytes", fix="run it again: nothing partial was kept"
        )
    emit(
        Event(
            EventType.PROGRESS, f"downloaded {size(count)}" + ("" if total else " (the server told no length)"), about
        )
    )
    return hasher.hexdigest()
