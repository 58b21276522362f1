"""An image from its URL into the cache: from there, from a mirror, or downloaded, verified, unpacked and looked at now."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from urllib.parse import urlsplit

from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.images import checksums, intake
from hikube_local.images.cache import Cache, Entry, digest_of
from hikube_local.images.download import Download
from hikube_local.images.unpack import Unpacker
from hikube_local.records import dataclass
from hikube_local.text import mask_url

NOTED = 0.3  # seconds in which an interrupt that ended a program has come to us, too


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted: `limit` bounds what a compressed image may unpack to (bytes, 0: what the disk has)."""

    url: str
    about: str = ""
    checksum: str = ""
    who_says: str = "the checksum that was given"
    limit: int = 0
    pull: bool = False
    mirrors: Mapping[str, str] = field(default_factory=dict)


def fetch(cache: Cache, url: str, emit: Emit, about: str, checksum: str = "", **more: object) -> Entry:
    """The image behind `url`; `about` names the object that wants it."""
    return request(cache, Request(url, about, checksum, **more), emit)  # type: ignore[arg-type]


def request(cache: Cache, want: Request, emit: Emit) -> Entry:
    given = checksums.parse(want.checksum, want.who_says) if want.checksum else None
    with cache.lock(want.url, emit):
        kept = cache.lookup(want.url)
        if kept and given and came_as(cache, kept, given.algorithm) != given.digest:
            kept = None  # it was fetched before the checksum was changed
        if kept and not want.pull:
            # A kill right after it was taken in leaves the note about its download.
            for path in (cache.folder / "partial").glob(f"{_stem(want.url)}*"):
                path.unlink(missing_ok=True)
            emit(Event(EventType.PROGRESS, f"image from the cache ({kept.digest[:12]})", want.about))
            return kept
        source = mirrored(want.url, want.mirrors)
        if source != want.url:
            emit(Event(EventType.PROGRESS, f"from the mirror {mask_url(source)}", want.about))
        if not source.startswith(("http://", "https://")):
            return _from_folder(cache, want, Path(source), given)
        return _from_server(cache, want, source, given, kept, emit)


def mirrored(url: str, mirrors: Mapping[str, str]) -> str:
    """The URL, or what the longest prefix of the configuration's `mirrors` makes of it (another URL, or a path)."""
    prefix = max((p for p in mirrors if url.startswith(p)), key=len, default="")
    if prefix and ".." in urlsplit(url).path.split("/"):
        raise HikubeError("HK701", f"{mask_url(url)} points outside its folder", fix="write the URL without ..")
    return mirrors[prefix].rstrip("/") + "/" + url.removeprefix(prefix).lstrip("/") if prefix else url


def came_as(cache: Cache, entry: Entry, algorithm: str) -> str:
    """The digest of what came from the server; empty when it cannot be told any more (it was unpacked or converted)."""
    known = entry.sources or {"sha256": entry.digest}
    if algorithm not in known and known.get("sha256") == entry.digest:
        return digest_of(cache.path(entry.digest), algorithm)  # it was kept as it came
    return known.get(algorithm, "")


def _from_folder(cache: Cache, want: Request, path: Path, given: checksums.Wanted | None) -> Entry:
    """A mirror that is a folder of this host."""
    try:
        path = path.resolve(strict=True)
    except OSError as e:
        raise HikubeError("HK701", f"the mirror has no {path}", why=str(e.strerror)) from None
    return intake.take(cache, path, want.url, mask_url(want.url), given, want.limit)


def _from_server(
    cache: Cache, want: Request, source: str, given: checksums.Wanted | None, kept: Entry | None, emit: Emit
) -> Entry:
    def say(message: str, warn: bool = False) -> None:
        emit(Event(EventType.WARNING if warn else EventType.PROGRESS, message, want.about))

    unless = _unless(kept) if kept else None
    wanted = given or (None if unless else checksums.vendors(source, say))
    stem = _stem(want.url)
    target = cache.folder / "partial" / stem
    unpacker = Unpacker(target.with_name(stem + ".unpacked"), want.limit)
    for attempt in (1, 2):
        download = Download(source, target, emit, want.about, {wanted.algorithm} if wanted else set(), bool(given))
        download.feed, download.restart = unpacker.feed, unpacker.restart
        try:
            got = download.run(unless)
        except BaseException as e:
            unpacker.drop()
            if isinstance(e, HikubeError) and e.code in ("HK702", "HK703"):
                download.forget()
            raise
        if got.unchanged:
            say("the server has nothing newer")
            assert kept is not None
            return kept
        if not wanted and unless:
            wanted = checksums.vendors(source, say)
            if wanted and wanted.algorithm not in got.digests:
                got.digests[wanted.algorithm] = digest_of(target, wanted.algorithm)
        if not wanted or got.digests[wanted.algorithm] == wanted.digest:
            break
        unpacker.drop()
        download.forget()
        if attempt == 2 or not got.resumed:
            what = f"the image of {mask_url(want.url)}"
            raise checksums.mismatch(what, wanted, got.digests[wanted.algorithm])
        say("the resumed download is damaged: downloading again from the start")
    try:
        unpacked = unpacker.finish()
        entry = intake.adopt(
            cache,
            unpacked or target,
            want.url,
            mask_url(want.url),
            digest="" if unpacked else got.digests["sha256"],
            etag=got.etag,
            modified=got.modified,
            sources=got.digests,
            verified=wanted.origin if wanted else "",
        )
    except BaseException:
        unpacker.drop()
        # An interrupt, which ends the programs of its terminal too, is raised here: what came is kept then. It may come to the
        # program before it comes to us.
        time.sleep(NOTED)
        emit(Event(EventType.PULSE, "", want.about))
        download.forget()
        raise
    unpacker.drop()
    download.forget()
    _trust(cache, entry, kept, wanted, emit, want.about)
    return entry


def _trust(
    cache: Cache, entry: Entry, kept: Entry | None, wanted: checksums.Wanted | None, emit: Emit, about: str
) -> None:
    """Nobody vouches for it: it is trusted on first use, and a change is said."""
    digest = entry.sources.get("sha256", entry.digest)
    if wanted:
        cache.remember(entry.key, digest)
        return
    message = f"no checksum is known for it: trusted on first use (sha256:{digest})"
    before = cache.remembered(entry.key)
    if before and before != digest:
        message = f"it changed since it was first used: sha256:{before[:16]}… became sha256:{digest[:16]}…"
        emit(Event(EventType.WARNING, message, about))
    else:
        emit(Event(EventType.PROGRESS, message, about))
    cache.remember(entry.key, digest)


def _unless(kept: Entry) -> dict[str, str]:
    """The conditional headers of a --pull: 304 costs nothing."""
    if kept.etag:
        return {"If-None-Match": kept.etag}
    return {"If-Modified-Since": kept.modified} if kept.modified else {}


def _stem(url: str) -> str:
    """The name of a URL's partial file."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]
