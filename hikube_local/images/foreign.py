"""Images that are neither qcow2 nor raw: what their headers say, checked against the file before qemu-img sees it.

Formats: VMDK (KDMV) after VMware's "Virtual Disk Format 5.0", VDI as VirtualBox writes it, VHD after Microsoft's "Virtual
Hard Disk Image Format" 1.0, VHDX after [MS-VHDX]. What refers to another file is refused, whatever it is.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from hikube_local.errors import HikubeError

SECTOR = 512
LARGEST = 1 << 50  # bytes: beyond it a size is a lie


def refused(why: str, fix: str = "") -> HikubeError:
    return HikubeError("HK702", "the image is refused", why, fix)


def _lie(field: str, value: object, length: int) -> HikubeError:
    return refused(
        f"{field} = {value} is outside the file ({length} bytes) or out of range", "a broken download? fetch it again"
    )


def _at(f: BinaryIO, offset: int, count: int) -> bytes:
    f.seek(offset)
    return f.read(count)


def vmdk(f: BinaryIO, length: int) -> int:
    """A sparse VMDK that holds its own extent; its virtual size in bytes."""
    h = _at(f, 0, SECTOR)
    version, _, capacity, grain, at, count = struct.unpack("<IIQQQQ", h[4:44])
    per_table, _, directory = struct.unpack("<IQQ", h[44:64])
    if version not in (1, 2, 3):
        raise refused(f"VMDK version {version} is not known")
    if not capacity:
        raise refused("it is a VMDK whose capacity is 0: its extent lies in another file")
    if capacity > LARGEST // SECTOR:
        raise _lie("capacity", capacity, length)
    if not grain or grain & (grain - 1) or not 8 <= grain <= 1 << 16 or per_table != 512:
        raise _lie("grain size", grain, length)
    # qemu-img looks for a parent at the first sector, wherever the header says that the descriptor stands.
    if at != 1 or not 1 <= count <= 2048 or (at + count) * SECTOR > length:
        raise _lie("descriptor offset", at, length)
    _descriptor(_at(f, SECTOR, max(count, 20) * SECTOR))
    if directory == (1 << 64) - 1:
        # streamOptimized, written in one pass: the directory's place stands in a footer, two sectors before the end marker.
        footer = _at(f, max(0, length - 2 * SECTOR), SECTOR)
        if not footer.startswith(b"KDMV") or any(_at(f, length - SECTOR, SECTOR)):
            raise refused("it ends without its footer", "a broken download? fetch it again")
        directory = struct.unpack("<Q", footer[56:64])[0]
    tables = -(-capacity // (grain * per_table))
    if not directory or directory * SECTOR + 4 * tables > length:
        raise _lie("grain directory offset", directory, length)
    return capacity * SECTOR


def _descriptor(raw: bytes) -> None:
    """The text inside: one createType, one extent, which is the file itself, and no parent."""
    if b"parentFileNameHint" in raw:
        raise refused("it refers to another file (a VMDK's parent)")
    text = raw.split(b"\0", 1)[0].decode("utf-8", "replace")
    kinds = re.findall(r'createType\s*=\s*"([^"]*)"', text, re.I)
    if len(kinds) != 1 or kinds[0] not in ("monolithicSparse", "streamOptimized"):
        raise refused(f"it is a VMDK that refers to other files (createType {', '.join(kinds)[:60] or 'is missing'})")
    extents = re.findall(r"^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\w+)", text, re.M)
    if len(extents) != 1 or extents[0] != "SPARSE":
        raise refused(f"it is a VMDK with {len(extents)} extents ({', '.join(extents)[:40]})")
    if "parentFileNameHint" in text or not re.search(r"parentCID\s*=\s*ffffffff", text, re.I):
        raise refused("it refers to another file (a VMDK's parent)")


def vdi(f: BinaryIO, length: int) -> int:
    h = _at(f, 0, 0x200)
    version, header, kind = struct.unpack("<III", h[0x44:0x50])
    blocks_at, data_at = struct.unpack("<II", h[0x154:0x15C])
    sector = struct.unpack("<I", h[0x168:0x16C])[0]
    virtual, block, _, blocks, allocated = struct.unpack("<QIIII", h[0x170:0x188])
    if version != 0x00010001 or header < 0x180:
        raise refused(f"VDI version {version:#x} is not known")
    if kind not in (1, 2):
        raise refused(f"it refers to another file (VDI image type {kind} is a differencing one)")
    if any(h[0x1A8:0x1C8]):
        raise refused("it refers to another file (a VDI's parent)")
    if sector not in (0, SECTOR) or block != 1 << 20:
        raise _lie("block size", block, length)
    if not virtual or virtual > LARGEST or blocks != -(-virtual // block) or allocated > blocks:
        raise _lie("disk size", virtual, length)
    if blocks_at % SECTOR or blocks_at < 0x200 or blocks_at + 4 * blocks > length:
        raise _lie("block map offset", blocks_at, length)
    if data_at < blocks_at or data_at + allocated * block > length:
        raise _lie("allocated blocks", allocated, length)
    return virtual


def vhd(f: BinaryIO, length: int) -> int:
    """Dynamic (a copy of the footer in front) or fixed (the footer alone, at the end)."""
    footer = _at(f, length - SECTOR, SECTOR)
    if not footer.startswith(b"conectix"):
        raise refused("it ends without its footer", "a broken download? fetch it again")
    said = struct.unpack(">I", footer[64:68])[0]
    if said != ~sum(footer[:64] + footer[68:]) & 0xFFFFFFFF:
        raise _lie("footer checksum", hex(said), length)
    data_at = struct.unpack(">Q", footer[16:24])[0]
    _, current = struct.unpack(">QQ", footer[40:56])
    cylinders, heads, sectors = struct.unpack(">HBB", footer[56:60])
    kind = struct.unpack(">I", footer[60:64])[0]
    if kind == 4:
        raise refused("it refers to another file (a differencing VHD's parent)")
    if kind not in (2, 3):
        raise refused(f"VHD type {kind} is not known")
    if not current or current % SECTOR or current > 2040 << 30:
        raise _lie("current size", current, length)
    geometry = cylinders * heads * sectors * SECTOR
    # The largest geometry says that the size beside it is what counts.
    if geometry != 65535 * 16 * 255 * SECTOR and not current // 2 <= geometry <= current:
        raise _lie("current size", f"{current} (its geometry says {geometry})", length)
    if kind == 2:
        if current + SECTOR != length:
            raise _lie("current size", current, length)
        return current
    h = _at(f, data_at, 1024) if data_at < length else b""
    if not h.startswith(b"cxsparse") or len(h) < 1024:
        raise _lie("data offset", data_at, length)
    table, _, entries, block, check = struct.unpack(">QIIII", h[16:40])
    if check != ~sum(h[:36] + h[40:]) & 0xFFFFFFFF:
        raise _lie("header checksum", hex(check), length)
    if not block or block & (block - 1) or not SECTOR <= block <= 1 << 28:
        raise _lie("block size", block, length)
    if entries < -(-current // block) or entries > 1 << 22 or table + 4 * entries > length:
        raise _lie("table entries", entries, length)
    return current


_BAT = bytes.fromhex("6677c22d23f600429d64115e9bfd4a08")
_METADATA = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e")
_FILE_PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
_VIRTUAL_SIZE = bytes.fromhex("2442a52f1bcd7648b2115dbed83bf4b8")


def vhdx(f: BinaryIO, length: int) -> int:
    """One without a parent and without a log to replay."""
    heads = [_at(f, at, 4096) for at in (64 << 10, 128 << 10)]
    known = [h for h in heads if h.startswith(b"head") and len(h) == 4096]
    if not known:
        raise refused("it is a VHDX without a header", "a broken download? fetch it again")
    newest = max(known, key=lambda h: struct.unpack("<Q", h[8:16])[0])
    if any(newest[48:64]):
        raise refused("it is a VHDX with a log to replay: it was not shut down cleanly")
    regions = _regions(_at(f, 192 << 10, 64 << 10), length)
    at, size = regions[_METADATA]
    table = _at(f, at, min(size, 64 << 10))
    if not table.startswith(b"metadata"):
        raise _lie("metadata region", at, length)
    count = struct.unpack("<H", table[10:12])[0]
    if not 1 <= count <= 2047:
        raise _lie("metadata entries", count, length)
    items = {}
    for i in range(count):
        row = table[32 + 32 * i : 64 + 32 * i]
        if len(row) == 32:
            items[row[:16]] = struct.unpack("<II", row[16:24])
    if _VIRTUAL_SIZE not in items or _FILE_PARAMETERS not in items:
        raise refused("it is a VHDX without a size")

    def item(name: bytes, what: str) -> bytes:
        where, n = items[name]
        raw = _at(f, at + where, 8) if n >= 8 and where + 8 <= size else b""
        if len(raw) < 8:
            raise _lie(what, where, length)
        return raw

    if struct.unpack("<I", item(_FILE_PARAMETERS, "file parameters")[4:])[0] & 2:
        raise refused("it refers to another file (a differencing VHDX's parent)")
    virtual = struct.unpack("<Q", item(_VIRTUAL_SIZE, "virtual disk size"))[0]
    if not virtual or virtual % SECTOR or virtual > LARGEST:
        raise _lie("virtual disk size", virtual, length)
    return virtual


def _regions(table: bytes, length: int) -> dict[bytes, tuple[int, int]]:
    if not table.startswith(b"regi"):
        raise refused("it is a VHDX without a region table", "a broken download? fetch it again")
    count = struct.unpack("<I", table[8:12])[0]
    if not 1 <= count <= 2047:
        raise _lie("regions", count, length)
    found = {}
    for i in range(count):
        row = table[16 + 32 * i : 48 + 32 * i]
        if len(row) == 32:
            at, size = struct.unpack("<QI", row[16:28])
            if at + size > length or at < 1 << 20:
                raise _lie("region offset", at, length)
            found[row[:16]] = (at, size)
    if _BAT not in found or _METADATA not in found:
        raise refused("it is a VHDX without its block table or metadata")
    return found
