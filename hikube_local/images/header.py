"""The header of a qcow2, field by field, against the file that it stands in (QEMU's docs/interop/qcow2.txt)."""

from __future__ import annotations

from collections.abc import Callable

from hikube_local.images.foreign import refused
from hikube_local.text import sanitize

QCOW2 = b"QFI\xfb"
LARGEST = 1 << 62  # bytes of a virtual disk
MOST_EXTENSIONS = 64
MOST_SNAPSHOTS = 1000
_BROKEN = "a broken download? fetch it again"
# Incompatible features that change nothing we rely on: a compression type, extended L2 entries.
_COMPRESSION, _EXTENDED_L2 = 1 << 3, 1 << 4
_DATA_FILE_EXTENSION = 0x44415441
_CRYPTO_EXTENSION = 0x0537BE77


def qcow2(h: bytes, length: int) -> int:
    """The virtual size in bytes; `h` is the beginning of the file, `length` that of the whole."""

    def number(at: int, n: int) -> int:
        return int.from_bytes(h[at : at + n], "big")

    version = number(4, 4)
    if version not in (2, 3):
        raise refused(f"qcow2 version {version} is not known")
    if number(8, 8) or number(16, 4):
        name = h[number(8, 8) : number(8, 8) + min(number(16, 4), 200)] if number(8, 8) < len(h) else b""
        fix = "flatten it: qemu-img convert -O qcow2 IN OUT"
        raise refused(f"it refers to another file (backing file = {sanitize(name)!r})", fix)
    bits = number(20, 4)
    if not 9 <= bits <= 21:
        raise refused(f"cluster_bits = {bits} lies outside 9-21")
    if number(32, 4):
        raise refused(f"it is encrypted (crypt_method = {number(32, 4)})")
    virtual = number(24, 8)
    if virtual == 0 or virtual % 512 or virtual >= LARGEST:
        raise refused(f"size = {virtual} is not a valid disk size")
    if version == 3:
        _features(h, number)
    _tables(number, 1 << bits, virtual, length, version)
    return virtual


def _tables(number: Callable[[int, int], int], cluster: int, virtual: int, length: int, version: int) -> None:
    """The places of the tables: on cluster boundaries, inside the file, large enough and no larger than sense."""

    def place(name: str, at: int, size: int) -> None:
        if not at or at % cluster or at < cluster or at + size > length:
            raise refused(f"{name} = {at} is outside the file ({length} bytes) or out of range", _BROKEN)

    l1_size = number(36, 4)
    needed = -(-virtual // (cluster * cluster // 8))
    if not needed <= l1_size <= 4 << 20:
        raise refused(f"l1_size = {l1_size} does not fit the size {virtual}", _BROKEN)
    place("l1_table_offset", number(40, 8), 8 * l1_size)
    clusters = number(56, 4)
    if not 1 <= clusters <= 4096:
        raise refused(f"refcount_table_clusters = {clusters} lies outside its range")
    place("refcount_table_offset", number(48, 8), clusters * cluster)
    if snapshots := number(60, 4):
        if snapshots > MOST_SNAPSHOTS:
            raise refused(f"nb_snapshots = {snapshots} is more than {MOST_SNAPSHOTS}")
        place("snapshots_offset", number(64, 8), 40 * snapshots)
    if version == 3 and number(96, 4) > 6:
        raise refused(f"refcount_order = {number(96, 4)} is more than 6")


def _features(h: bytes, number: Callable[[int, int], int]) -> None:
    incompatible = number(72, 8)
    if incompatible & 4:
        raise refused("it refers to another file (external data file)")
    if incompatible & 3:
        raise refused("it was in use or damaged when it was copied (dirty or corrupt bit)")
    if unknown := incompatible & ~(_COMPRESSION | _EXTENDED_L2):
        raise refused(f"it needs a feature that is not known (incompatible_features = {unknown:#x})")
    if number(88, 8) & 2:
        raise refused("it needs a feature that is not known (autoclear: a raw external data file)")
    at = number(100, 4)
    if not 104 <= at <= 4096 or at % 8:
        raise refused(f"header_length = {at} lies outside its range")
    kind = h[104] if at > 104 else 0
    if kind > 1 or bool(incompatible & _COMPRESSION) != bool(kind):
        raise refused(f"compression_type = {kind} does not fit its feature bit")
    for _ in range(MOST_EXTENSIONS):
        extension, size = number(at, 4), number(at + 4, 4)
        if extension == 0:
            return
        if extension == _DATA_FILE_EXTENSION:
            raise refused("it refers to another file (data file extension)")
        if extension == _CRYPTO_EXTENSION:
            raise refused("it is encrypted")
        at += 8 + -(-size // 8) * 8
        if at + 8 > len(h):
            raise refused("a header extension lies outside the header")
    raise refused(f"it has more than {MOST_EXTENSIONS} header extensions")
