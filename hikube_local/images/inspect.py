"""The first gate: what an image is, read by code that cannot follow references, before QEMU opens it.

Only qcow2 and raw pass. A backing file, an external data file, encryption, damage and unknown features are refused.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hikube_local.errors import HikubeError
from hikube_local.images import foreign, header
from hikube_local.images.foreign import refused
from hikube_local.images.header import QCOW2
from hikube_local.records import dataclass
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
            raise refused("it is not a regular file")
        head = f.read(_HEAD)
        _not_an_archive(f, head, st.st_size)
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
                raise refused(f"its content is {name}, which is not supported", "convert it to qcow2 first")
        iso = head[32769:32774] == b"CD001"
        if iso and int.from_bytes(head[32848:32852], "little") * 2048 > st.st_size:
            raise refused("it is shorter than its ISO 9660 volume", "a broken download? fetch it again")
        return About("raw", -(-st.st_size // 512) * 512, iso)


# Archives and packages by what they begin with, and what to do with them.
_ARCHIVES = (
    (b"!<arch>\n", "a Debian package (ar archive)"),
    (b"\xed\xab\xee\xdb", "an RPM package"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"070701", "a cpio archive (an initramfs?)"),
    (b"hsqs", "a SquashFS file system (an Incus or LXD root file system, or a snap)"),
    (b"MSCF", "a cabinet archive"),
    (b"MSWIM", "a WIM archive"),
    (b"xar!", "a xar archive"),
)
_DISKS = (".qcow2", ".img", ".raw", ".vmdk", ".vdi", ".vhd", ".vhdx", ".iso")
MOST_MEMBERS = 200


def _not_an_archive(f: BinaryIO, head: bytes, length: int) -> None:
    """An archive is no disk, though one may lie in it: which one, and how it is taken out."""
    if head[257:262] == b"ustar":
        members = _members(f, length)
        lower = [m.lower() for m in members]
        kind = "a tar archive"
        if any(m.endswith(".ovf") for m in lower):
            kind = "an OVA (tar archive of an appliance)"
        elif "vagrantfile" in [m.rpartition("/")[2] for m in lower] or (
            "metadata.json" in lower and "box.img" in lower
        ):
            kind = "a Vagrant box (tar archive)"
        elif "disk.raw" in lower:
            kind = "an image of Google Compute Engine (tar archive)"
        elif "metadata.yaml" in lower and any("rootfs" in m for m in lower):
            kind = "an image of Incus or LXD (tar archive)"
        disks = [m for m in members if m.lower().endswith(_DISKS)]
        inside = sanitize(disks[0])[:100] if disks else ""
        fix = (
            f"take {inside} out of it: tar -xf FILE {inside}" if inside else "no disk image is among its first members"
        )
        raise refused(f"it is {kind}, not a disk", fix)
    for magic, name in _ARCHIVES:
        if head.startswith(magic):
            raise refused(f"it is {name}, not a disk", "take the disk image out of it, if there is one")


def _members(f: BinaryIO, length: int) -> list[str]:
    """The names in a tar archive, by its headers alone (POSIX ustar); at most MOST_MEMBERS."""
    found: list[str] = []
    at, long_name = 0, ""
    while at + 512 <= length and len(found) < MOST_MEMBERS:
        f.seek(at)
        block = f.read(512)
        if block[257:262] != b"ustar":
            break
        try:
            size_ = int(block[124:136].strip(b"\0 ") or b"0", 8)
        except ValueError:
            break
        name = block[:100].rstrip(b"\0").decode("utf-8", "replace")
        if prefix := block[345:500].split(b"\0")[0].decode("utf-8", "replace") if block[263:265] == b"00" else "":
            name = f"{prefix}/{name}"
        if block[156:157] == b"L":  # GNU: the next member's name
            long_name = f.read(min(size_, 1024)).rstrip(b"\0").decode("utf-8", "replace")
        elif block[156:157] not in (b"x", b"g"):
            found.append((long_name or name).removeprefix("./"))
            long_name = ""
        at += 512 + -(-size_ // 512) * 512
    return [m for m in found if m]


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
            "is this the URL of the image itself? it may be a login page or a captive portal",
        )
    text = head[:512]
    if all(32 <= b < 127 or b in (9, 10, 13) for b in text):
        # Its content is not shown: it may be what a service inside a network told nobody but us.
        raise refused(f"it is text{_text_kind(text)}, not a disk image", "is this the URL of the image itself?")


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
