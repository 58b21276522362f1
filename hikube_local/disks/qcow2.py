"""Disks as files: overlays on images of the cache, and empty ones; made in constant time, whole or not at all.

Every call pins the format: a guest can write another format's header into its disk (CVE-2026-24708). A new disk's content
is on the host's disk when the call ends, its name once the caller has synced the folder (`files.fsync_folder`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from hikube_local import files
from hikube_local.disks import layers
from hikube_local.errors import HikubeError
from hikube_local.images.inspect import virtual_size
from hikube_local.records import dataclass
from hikube_local.run import Limits, run

DISK = layers.FIRST
FACTS = "disk.json"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a disk stands on: the image's digest (empty for none), its format, and its size."""

    base: str = ""
    base_format: str = ""
    base_size: int = 0  # bytes of the image's file


def facts(folder: Path) -> Facts:
    """What the disk in `folder` stands on; without a note, on nothing."""
    row = files.read_json(folder / FACTS)
    try:
        return Facts(**(row or {}))
    except TypeError:
        return Facts()


@contextlib.contextmanager
def _new(folder: Path, about: Facts) -> Iterator[Path]:
    """The temporary name of a disk that is made now, with the note of what it stands on; an existing one is never replaced."""
    target = folder / DISK
    if target.exists():
        raise HikubeError("HK708", f"there is already a disk at {target}", fix="an existing disk is never overwritten")
    files.sweep_partials(folder)
    if about.base:
        files.write_json(folder / FACTS, asdict(about))
    else:
        (folder / FACTS).unlink(missing_ok=True)  # of an attempt that was cut short
    with files.beside(target, name_too=False) as temporary:
        yield temporary


def create(folder: Path, size: int, base: Path | None, about: Facts) -> None:
    """Make the disk of `size` bytes; on `base` as an overlay."""
    with _new(folder, about) as temporary:
        argv: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2"]
        if base is not None:
            argv += ["-F", about.base_format, "-b", base]
        run([*argv, temporary, str(size)], limits=Limits() if base else None)  # an empty one reads nothing
        if virtual_size(temporary) != size:
            raise HikubeError("HK708", f"qemu-img made a disk of {virtual_size(temporary)} bytes instead of {size}")


def clone(source: Path, folder: Path, base: Path | None, size: int) -> None:
    """A disk with the content of another one that nobody writes to, independent of it; on the same image of the cache."""
    about = facts(source)
    if layers.below(source):
        # With a base qemu-img copies the top layer alone; what lies in frozen ones would be lost.
        about, base = Facts(), None
    with _new(folder, about) as temporary:
        argv: list[str | Path] = ["qemu-img", "convert", "-q", "-f", "qcow2", "-O", "qcow2"]
        if base is not None:
            argv += ["-F", about.base_format, "-B", base]
        # QEMU's own lock keeps a machine from starting on the source while it is read.
        run([*argv, layers.active(source), temporary], timeout=3600)
        if virtual_size(temporary) < size:
            run(["qemu-img", "resize", "-q", "-f", "qcow2", temporary, str(size)], limits=Limits())


def grow(folder: Path, size: int) -> None:
    """Grow a disk that no machine runs on; never shrink."""
    disk = layers.active(folder)
    if disk.is_symlink():
        raise HikubeError("HK708", f"{disk} is a symbolic link, not a disk file", fix="put the disk's file back")
    if virtual_size(disk) < size:
        if disk.stat().st_nlink > 1:  # a kept state is the same file, and stays as it is
            with files.beside(disk, name_too=False) as temporary:
                copy(disk, temporary)
        run(["qemu-img", "resize", "-q", "-f", "qcow2", disk, str(size)], limits=Limits())


def copy(source: Path, target: Path) -> None:
    """The same bytes in a file of their own, with their holes; nobody else may read it, also while it is made."""
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    run(["cp", "--sparse=always", "--reflink=auto", "--", source, target], timeout=3600)


LARGEST_EMPTY = 8 << 20  # bytes that the tables of an empty disk may take


def untouched(folder: Path) -> bool:
    """Whether a disk is as it was made: one layer, and nothing was ever written to it."""
    disk = folder / layers.FIRST
    if layers.read(folder) != layers.Layers() or not disk.exists() or actual_size(disk) > LARGEST_EMPTY:
        return False
    words: list[str | Path] = ["qemu-img", "map", "-f", "qcow2", "--output=json", disk]
    rows = json.loads(run(words, limits=Limits()).stdout)
    return not any(row["depth"] == 0 and row["present"] for row in rows)


def actual_size(path: Path) -> int:
    """Bytes that the file really takes."""
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return 0
