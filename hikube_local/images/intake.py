"""How a file becomes an image of the cache: copied, hashed, unpacked, inspected, made qcow2 where it must be, checked."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from hikube_local import files
from hikube_local.errors import HikubeError
from hikube_local.images import checksums, convert
from hikube_local.images.cache import Cache, Entry, digest_of
from hikube_local.images.checksums import Wanted
from hikube_local.images.download import SYNC_EVERY, room
from hikube_local.images.foreign import refused
from hikube_local.images.inspect import inspect
from hikube_local.images.unpack import Unpacker, write_sparse
from hikube_local.run import Limits, run
from hikube_local.text import size

LARGEST = 4 << 40  # bytes of a file that is imported: a sparse one may say anything


def adopt(
    cache: Cache,
    file: Path,
    key: str,
    origin: str,
    digest: str = "",
    etag: str = "",
    modified: str = "",
    sources: dict[str, str] | None = None,
    verified: str = "",
) -> Entry:
    """Take a whole file into the cache: inspected, fsynced, renamed to its digest; then its index entry.

    qcow2 and raw stay as they are, other formats become qcow2 here.
    """
    cache.make()
    about = inspect(file)
    if about.format not in ("qcow2", "raw"):
        file = convert.to_qcow2(file, about.format, about.virtual_size, cache.folder / "partial")
        about, digest = inspect(file), ""
    check_image(file, about.format)
    digest = digest or digest_of(file)
    target = cache.path(digest)
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fchmod(fd, 0o444)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(file, target)
    files.fsync_folder(target.parent)
    now = time.time()
    entry = Entry(
        digest=digest,
        format=about.format,
        virtual_size=about.virtual_size,
        size=target.stat().st_size,
        origin=origin,
        key=key,
        etag=etag,
        fetched=now,
        modified=modified,
        used=now,
        verified=verified,
        sources=sources or {},
    )
    return cache.enter(entry)


def take(
    cache: Cache,
    path: Path,
    key: str,
    origin: str,
    given: Wanted | None,
    limit: int = 0,
    say: Callable[..., None] = lambda text, **data: None,
) -> Entry:
    """A copy of a file of this host, verified and unpacked like a download; under the key's lock.

    `say(text, bytes=…, total=…)` is told now and then how far it is.
    """
    cache.make()
    with _regular(path) as source:
        total, told = os.fstat(source.fileno()).st_size, time.monotonic()
        if total > LARGEST:
            raise refused(f"it has {total} bytes, at most {LARGEST} are read")
        hashers = {n: hashlib.new(n) for n in {"sha256", *([given.algorithm] if given else [])}}
        target = cache.folder / "partial" / f"import-{secrets.token_hex(6)}"
        unpacker = Unpacker(target.with_name(target.name + ".unpacked"), limit)
        try:
            with open(target, "xb") as out:
                for count in itertools.count():
                    if not (block := source.read(1 << 20)):
                        break
                    if count % (SYNC_EVERY >> 20) == 0:
                        room(cache.folder, SYNC_EVERY)
                    for h in hashers.values():
                        h.update(block)
                    unpacker.feed(block)
                    write_sparse(out, block)
                    if (now := time.monotonic()) - told >= 1.0:
                        told, here = now, source.tell()
                        say(f"reading {100 * here // max(1, total)}% {size(here)}", bytes=here, total=total)
                out.truncate(out.tell())
            digests = {n: h.hexdigest() for n, h in hashers.items()}
            if given and digests[given.algorithm] != given.digest:
                raise checksums.mismatch(str(path), given, digests[given.algorithm])
            unpacked = unpacker.finish()
            digest = "" if unpacked else digests["sha256"]
            who = given.origin if given else ""
            return adopt(cache, unpacked or target, key, origin, digest, sources=digests, verified=who)
        finally:
            unpacker.drop()
            target.unlink(missing_ok=True)


@contextlib.contextmanager
def _regular(path: Path) -> Iterator[BinaryIO]:
    """A regular file, opened without following a link or waiting for a pipe; HK702 when it changes while it is read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise HikubeError("HK701", f"{path} cannot be read: {e.strerror}") from None
    before = os.fstat(fd)
    if not stat.S_ISREG(before.st_mode):
        os.close(fd)
        raise refused("it is a folder" if stat.S_ISDIR(before.st_mode) else "it is not a regular file")
    with os.fdopen(fd, "rb") as f:
        yield f
        after = os.fstat(fd)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise refused("it changed while it was read", "stop the program that writes it, then try again")


def check_image(path: Path, format: str) -> None:
    """qemu-img's own check of a qcow2 image (a cut one reads as zeros otherwise); leaks alone are accepted."""
    if format != "qcow2":
        return
    done = run(
        ["qemu-img", "check", "-q", "-f", "qcow2", path], limits=Limits(cpu=60), check=False, timeout=120, cwd=Path("/")
    )
    if done.returncode not in (0, 3):
        from hikube_local.text import sanitize

        why = sanitize(done.stderr or done.stdout).strip()[-300:] or f"qemu-img ended with {done.returncode}"
        raise HikubeError(
            "HK702",
            "the image is refused",
            f"qemu-img check finds it damaged: {why}",
            "a broken download? fetch it again",
        )
