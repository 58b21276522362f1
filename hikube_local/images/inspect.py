"""The first gate: what an image is, read by code that cannot follow references, before QEMU opens it.

Only qcow2 and raw pass. A backing file, an external data file, encryption, damage and unknown features are refused.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hikube_local.errors import HikubeError
from hikube_local.images import foreign, header
from hikube_local.images.foreign import refused
from hikube_local.images.header import QCOW2
from hikube_local.text import sanitize, size

# Formats that become qcow2 once, by the name that qemu-img has for them: place and magic, and who reads the header.
_FOREIGN: dict[str, tuple[int, bytes, Callable[[BinaryIO, int], int]]] = {
    "vmdk": (0, b"KDMV", foreign.vmdk),
    "vhdx": (0, b"vhdxfile", foreign.vhdx),
    "vpc": (0, b"conectix", foreign.vhd),
    "vdi": (0x40, b"\x7f\x10\xda\xbe", foreign.vdi),
}
_OTHER = (
    (0, b"\x1f\x8b", "compressed twice (gzip)"),
    (0, b"BZh", "compressed twice (bzip2)"),
    (0, b"\xfd7zXZ\x00", "compressed twice (xz)"),
    (0, b"\x28\xb5\x2f\xfd", "compressed twice (zstd)"),
    (0, b"COWD", "vmdk (COWD)"),
    (0, b"QED\0", "qed"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"\x7fELF", "ELF"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
)
_HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class About:
    """What an image is: qcow2, raw, vmdk, vdi, vpc or vhdx, the size that a guest would see (bytes), whether it is an ISO."""

    format: str
    virtual_size: int
    iso: bool = False


def inspect(path: Path) -> About:
    """Look at a regular file; refusals are HK702 with the field named."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as f:
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode):
            raise refused("it is no regular file")
        head = f.read(_HEAD)
        if len(head) < 512:
            raise refused(f"it ends after {len(head)} bytes", "a broken download? fetch it again")
        f.seek(max(0, st.st_size - 512))
        tail = f.read(8)
        _one_format(head, tail)
        if head.startswith(QCOW2):
            _second_image(f, head, st.st_size)
            return About("qcow2", header.qcow2(head, st.st_size))
        _not_a_disk(head)
        for name, (at, magic, read) in _FOREIGN.items():
            if head[at : at + len(magic)] == magic or (name == "vpc" and tail == b"conectix"):
                return About(name, read(f, st.st_size))
        for at, magic, name in _OTHER:
            if head[at : at + len(magic)] == magic:
                raise refused(f"its content is {name}, which is not taken", "convert it to qcow2, then name that")
        iso = head[32769:32774] == b"CD001"
        if iso and int.from_bytes(head[32848:32852], "little") * 2048 > st.st_size:
            raise refused("it ends before its ISO 9660 volume does", "a broken download? fetch it again")
        return About("raw", -(-st.st_size // 512) * 512, iso)


def _one_format(head: bytes, tail: bytes) -> None:
    """A file that can be read as two formats is nobody's image: each reader would see another one."""
    found = [name for name, (at, magic, _) in _FOREIGN.items() if head[at : at + len(magic)] == magic]
    if tail == b"conectix" and "vpc" not in found and not head.startswith(QCOW2):
        found.append("vpc")
    if head.startswith(QCOW2):
        found.append("qcow2")
    if head[32769:32774] == b"CD001":
        found.append("iso")
    if len(found) > 1:
        raise refused(f"it is {' and '.join(found)} at once")
    if head[510:512] == b"\x55\xaa" and found and found != ["iso"] and found != ["vpc"]:
        raise refused(f"it is {found[0]} and a raw disk with a partition table at once")


def _second_image(f: BinaryIO, head: bytes, length: int) -> None:
    """A resume that went wrong leaves the image twice."""
    if length % 2 == 0 and length > len(head):
        f.seek(length // 2)
        if f.read(4) == QCOW2:
            f.seek(0)
            if f.read(512) == _again(f, length // 2):
                raise refused("it holds the image twice", "a broken download? fetch it again")


def _again(f: BinaryIO, at: int) -> bytes:
    f.seek(at)
    return f.read(512)


def _not_a_disk(head: bytes) -> None:
    """HTML from a captive portal and other text; a VMDK's text descriptor names other files."""
    if not head.startswith(b"KDMV") and re.search(rb"createType\s*=", head, re.I):
        raise refused("it is a VMDK descriptor, which refers to other files")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:2048]
    if start.lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        title = re.search(rb"<title>(.{0,120}?)</title>", start, re.S | re.I)
        shown = f" titled {sanitize(title[1]).strip()!r}" if title else ""
        raise refused(
            f"it is a web page{shown}, not a disk image",
            "is this the image's own URL? a login page or a captive portal answers so",
        )
    text = head[:512]
    if all(32 <= b < 127 or b in (9, 10, 13) for b in text):
        # Its content is not shown: it may be what a service inside a network told nobody but us.
        raise refused(f"it is text{_text_kind(text)}, not a disk image", "is this the image's own URL?")


def _text_kind(text: bytes) -> str:
    start = text.lstrip()
    if start.startswith(b"version https://git-lfs"):
        return " (a Git LFS pointer)"
    if start.startswith(b"#!"):
        return " (a script)"
    return " (JSON)" if start[:1] in (b"{", b"[") else ""


def virtual_size(path: Path) -> int:
    """The virtual size of one of our own qcow2 files, from its header (bytes); 0 when it is none."""
    try:
        with open(path, "rb") as f:
            head = f.read(32)
    except OSError:
        return 0
    return int.from_bytes(head[24:32], "big") if head.startswith(QCOW2) and len(head) == 32 else 0


def fits(about: About, storage: int) -> None:
    """CDI's check: an image larger than the disk is refused."""
    if about.virtual_size > storage:
        raise HikubeError(
            "HK703",
            f"virtual image size {about.virtual_size} is larger than the reported available storage {storage}",
            fix=f"write storage: {-(-about.virtual_size // (1 << 30))}Gi or more (the image is {size(about.virtual_size)})",
        )
