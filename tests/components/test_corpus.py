"""Hostile and damaged images: each refused with its field, and nothing else is opened meanwhile."""

from __future__ import annotations

import contextlib
import gzip
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hikube_local.errors import HikubeError
from hikube_local.images.inspect import inspect
from hikube_local.images.intake import check_image
from tests.conftest import ROOT
from tests.growth import patience

SIZE = 8 << 20


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[str, bytes]:
    """A good file of each format."""
    folder = tmp_path_factory.mktemp("good")
    raw = folder / "raw"
    raw.write_bytes(b"\xeb\x63" + bytes(508) + b"\x55\xaa" + random.Random(7).randbytes(3 << 20) + bytes(SIZE))
    with open(raw, "r+b") as f:
        f.truncate(SIZE)
    out = {"raw": raw.read_bytes()}
    for name, words in {
        "qcow2": ["qcow2"],
        "small": ["qcow2", "-c"],
        "v2": ["qcow2", "-o", "compat=0.10"],
        "ext": ["qcow2", "-o", "extended_l2=on"],
        "zstd": ["qcow2", "-o", "compression_type=zstd"],
        "vmdk": ["vmdk"],
        "stream": ["vmdk", "-o", "subformat=streamOptimized"],
        "vdi": ["vdi"],
        "vhd": ["vpc"],
        "fixed": ["vpc", "-o", "subformat=fixed"],
        "vhdx": ["vhdx"],
    }.items():
        path = folder / name
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", *words, raw, path], check=True)
        out[name] = path.read_bytes()
    return out


def put(base: str, at: int, form: str, *values: object) -> Callable[[dict[str, bytes]], bytes]:
    def build(good: dict[str, bytes]) -> bytes:
        raw = bytearray(good[base])
        data = struct.pack(form, *values)
        place = at if at >= 0 else len(raw) + at
        raw[place : place + len(data)] = data
        return bytes(raw)

    return build


def backing(name: bytes, base: str = "qcow2") -> Callable:
    def build(good):
        raw = bytearray(good[base])
        struct.pack_into(">QI", raw, 8, 0x200, len(name))
        raw[0x200 : 0x200 + len(name)] = name
        return bytes(raw)

    return build


def cut(base: str, length: int) -> Callable:
    return lambda good: good[base][: length if length > 0 else len(good[base]) + length]


def vhd_footer(at: int, form: str, *values: object) -> Callable:
    """A VHD whose footer says something else, with the right checksum."""

    def build(good):
        raw = bytearray(good["vhd"])
        footer = raw[-512:]
        struct.pack_into(form, footer, at, *values)
        footer[64:68] = bytes(4)
        struct.pack_into(">I", footer, 64, ~sum(footer) & 0xFFFFFFFF)
        raw[-512:] = footer
        return bytes(raw)

    return build


def descriptor(*pairs: tuple[bytes, bytes]) -> Callable:
    def build(good):
        raw = good["vmdk"]
        for old, new in pairs:
            assert old in raw
            raw = raw.replace(old, new.ljust(len(old), b" ") if len(new) < len(old) else new, 1)
        return raw

    return build


def text(content: bytes) -> Callable:
    return lambda good: content.ljust(2048, b"\n")


FLAT = b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 100 FLAT "/etc/passwd" 0\n'
ROWS: dict[str, tuple[Callable, str]] = {
    "backing absolute": (backing(b"/etc/passwd"), "refers to another file"),
    "backing json": (backing(b"json:{'driver':'file','filename':'/etc/passwd'}"), "refers to another file"),
    "backing nbd": (backing(b"nbd://127.0.0.1:1/x"), "refers to another file"),
    "backing fd": (backing(b"/dev/fd/0"), "refers to another file"),
    "backing in v2": (backing(b"/etc/passwd", "v2"), "refers to another file"),
    "backing length only": (put("qcow2", 8, ">QI", 0, 9), "refers to another file"),
    "backing far": (put("qcow2", 8, ">QI", 1 << 40, 9), "refers to another file"),
    "data file": (put("qcow2", 72, ">Q", 4), "external data file"),
    "data file extension": (put("qcow2", 112, ">II", 0x44415441, 8), "data file extension"),
    "autoclear raw": (put("qcow2", 88, ">Q", 3), "autoclear"),
    "dirty": (put("qcow2", 72, ">Q", 1), "in use or damaged"),
    "corrupt": (put("qcow2", 72, ">Q", 2), "in use or damaged"),
    "compression bit alone": (put("qcow2", 72, ">Q", 8), "compression_type"),
    "compression unknown": (put("zstd", 104, ">B", 7), "compression_type"),
    "compression without bit": (put("qcow2", 104, ">B", 1), "compression_type"),
    "incompatible 5": (put("qcow2", 72, ">Q", 1 << 5), "incompatible_features"),
    "incompatible 63": (put("qcow2", 72, ">Q", 1 << 63), "incompatible_features"),
    **{f"version {v}": (put("qcow2", 4, ">I", v), f"version {v}") for v in (0, 1, 4, 255)},
    **{f"cluster_bits {v}": (put("qcow2", 20, ">I", v), "cluster_bits") for v in (0, 8, 22, 31, 63)},
    **{f"layout {v}": (put("qcow2", 20, ">I", v), "") for v in (9, 21)},
    **{f"refcount_order {v}": (put("qcow2", 96, ">I", v), "refcount_order") for v in (7, 31)},
    "refcount_order 6": (put("qcow2", 96, ">I", 6), "check"),
    **{f"size {v}": (put("qcow2", 24, ">Q", v), "size = ") for v in (0, 1, SIZE - 1, (1 << 63) - 512, (1 << 64) - 1)},
    "size 1 PiB": (put("qcow2", 24, ">Q", 1 << 50), "l1_size"),
    "l1_size 0": (put("qcow2", 36, ">I", 0), "l1_size"),
    "l1_size huge": (put("qcow2", 36, ">I", 0xFFFFFFFF), "l1_size"),
    "l1_size 4 Mi": (put("qcow2", 36, ">I", 4 << 20), "l1_table_offset"),
    **{f"l1_offset {v:#x}": (put("qcow2", 40, ">Q", v), "l1_table_offset") for v in (1 << 40, 0, 0x30001)},
    **{f"refcount_table {v:#x}": (put("qcow2", 48, ">Q", v), "refcount_table_offset") for v in (0, 1 << 40)},
    **{f"refcount_clusters {v}": (put("qcow2", 56, ">I", v), "refcount_table_clusters") for v in (0, 0xFFFFFFFF)},
    "snapshots many": (put("qcow2", 60, ">IQ", 65535, 1 << 40), "nb_snapshots"),
    "snapshot beyond": (put("qcow2", 60, ">IQ", 1, 1 << 40), "snapshots_offset"),
    **{f"crypt {v}": (put("qcow2", 32, ">I", v), "encrypted") for v in (1, 2, 9)},
    "crypto extension": (put("qcow2", 112, ">II", 0x0537BE77, 16), "encrypted"),
    **{f"header_length {v}": (put("qcow2", 100, ">I", v), "header_length") for v in (0, 103, 113, 0x20000, 0xFFFFFFFF)},
    "extension length": (put("qcow2", 112, ">II", 0x12345678, 0xFFFFFFF0), "extension"),
    "8,000 extensions": (put("qcow2", 112, f">{'II' * 4000}", *([0x12345678, 0] * 4000)), "header extensions"),
    "cut to 4": (cut("qcow2", 4), "ends after"),
    "cut to 103": (cut("qcow2", 103), "ends after"),
    "cut to 512": (cut("qcow2", 512), "is outside"),
    "cut to 64 KiB": (cut("qcow2", 1 << 16), "is outside"),
    "cut by 1 MB": (cut("qcow2", -1_000_000), "check"),
    "cut compressed": (cut("small", -1_000_000), "check"),
    "twice": (lambda good: good["qcow2"] * 2, "twice"),
    "vmdk text": (text(FLAT), "VMDK"),
    "vmdk text crlf": (text(FLAT.replace(b"\n", b"\r\n")), "VMDK"),
    "vmdk text without its first line": (text(FLAT.split(b"\n", 1)[1]), "VMDK"),
    "vmdk text with utf-8": (text(FLAT.replace(b"version=1", "# é".encode())), "VMDK"),
    "vmdk text spelled otherwise": (text(FLAT.replace(b"createType=", b"CreateType = ")), "VMDK"),
    "vmdk capacity 0": (put("vmdk", 12, "<Q", 0), "capacity"),
    "vmdk capacity huge": (put("vmdk", 12, "<Q", 1 << 60), "capacity"),
    "vmdk version": (put("vmdk", 4, "<I", 9), "version 9"),
    "vmdk grain": (put("vmdk", 20, "<Q", 1 << 40), "grain"),
    "vmdk descriptor elsewhere": (put("vmdk", 28, "<Q", 1 << 30), "descriptor"),
    "vmdk flat extent": (descriptor((b"SPARSE", b"FLAT")), "extent"),
    "vmdk parent": (descriptor((b"parentCID=ffffffff", b"parentCID=12345678")), "parent"),
    "vmdk hint behind": (put("vmdk", 0x200 + 5000, "<24s", b'parentFileNameHint="abc"'), "parent"),
    "vmdk other type": (descriptor((b'"monolithicSparse"', b'"vmfs"')), "createType"),
    "vmdk cut": (cut("vmdk", 600), ""),
    "cowd": (lambda good: b"COWD" + bytes(4096), "COWD"),
    "vdi size": (put("vdi", 0x170, "<Q", 1 << 62), "disk size"),
    "vdi block": (put("vdi", 0x178, "<I", 512), "block size"),
    "vdi version": (put("vdi", 0x44, "<I", 2), "version"),
    "vdi blocks": (put("vdi", 0x180, "<I", 0xFFFFFFFF), ""),
    "vdi map": (put("vdi", 0x154, "<I", 0x201), "block map"),
    "vdi parent": (put("vdi", 0x1A8, "<Q", 1), "parent"),
    "vdi differencing": (put("vdi", 0x4C, "<I", 4), "differencing"),
    "vhd checksum": (put("vhd", -512 + 64, ">I", 1), "checksum"),
    "vhd differencing": (vhd_footer(60, ">I", 4), "differencing"),
    "vhd size": (vhd_footer(48, ">Q", 1 << 62), "current size"),
    "vhd two sizes": (vhd_footer(48, ">Q", 1 << 30), "geometry"),
    "vhd data": (vhd_footer(16, ">Q", 1 << 50), "data offset"),
    "vhdx regions": (put("vhdx", (192 << 10) + 8, "<I", 0xFFFFFFFF), "regions"),
    "vhdx no table": (put("vhdx", 192 << 10, "<4s", b"xxxx"), "region table"),
    "vhdx cut": (cut("vhdx", 300 << 10), "outside"),
    "qcow2 and vdi": (put("qcow2", 0x40, ">I", 0x7F10DABE), "at once"),
    "iso and qcow2": (lambda good: good["qcow2"][:32769] + b"CD001" + good["qcow2"][32774:], "at once"),
    "iso and vmdk text": (lambda good: FLAT.ljust(32769, b"\0") + b"CD001" + bytes(60000), "VMDK"),
    "mbr and vmdk text": (lambda good: FLAT.ljust(510, b"\0") + b"\x55\xaa" + bytes(60000), "VMDK"),
    "iso cut": (lambda good: bytes(32769) + b"CD001" + bytes(74) + struct.pack("<I", 1 << 31) + bytes(4000), "ISO"),
    "luks": (lambda good: b"LUKS\xba\xbe\0\1" + bytes(4096), "LUKS"),
    "qed": (lambda good: b"QED\0" + bytes(4096), "qed"),
    "html": (text(b"\xef\xbb\xbf  <!DOCTYPE html><title>Please log in</title>"), "Please log in"),
    "xml": (text(b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"), "web page"),
    "lfs pointer": (text(b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n"), "text"),
    "sums": (text(b"a" * 64 + b"  x.img\n"), "text"),
    "zip": (lambda good: b"PK\x03\x04" + bytes(4096), "zip"),
    "elf": (lambda good: b"\x7fELF" + bytes(4096), "ELF"),
    "parallels": (lambda good: b"WithoutFreeSpace" + bytes(4096), "parallels"),
    "empty": (lambda good: b"", "ends after"),
    "one byte": (lambda good: b"x", "ends after"),
    "gz in gz": (lambda good: gzip.compress(good["raw"]), "twice"),
}


def look(path: Path) -> None:
    """What an import does before an image counts."""
    check_image(path, inspect(path).format)


@pytest.mark.parametrize("name", ROWS)
def test_it_is_refused_with_its_field(name, good, tmp_path):
    build, word = ROWS[name]
    path = tmp_path / "image"
    path.write_bytes(build(good))
    with pytest.raises(HikubeError) as e:
        look(path)
    assert e.value.code == "HK702" and word in e.value.render(), e.value.render()


@pytest.mark.parametrize(
    "name", ["raw", "qcow2", "small", "v2", "ext", "zstd", "vmdk", "stream", "vdi", "vhd", "fixed", "vhdx"]
)
def test_good_images_pass(name, good, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(good[name])
    about = inspect(path)
    assert about.virtual_size in (SIZE, 8390656)  # a VHD's geometry rounds up
    look(path)


@pytest.mark.parametrize("junk", [b"\0" * 100, b"garbage" * 50])
def test_garbage_behind_an_image_is_none_of_its_content(junk, good, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(good["qcow2"] + junk)
    look(path)


def test_a_raw_disk_with_a_qcow2_inside_is_raw(good, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(good["raw"][: 1 << 20] + good["qcow2"])
    assert inspect(path).format == "raw"


def test_nothing_but_the_image_is_opened(good, tmp_path):
    """The whole corpus under strace: no file outside the work folder and the program's own, no connection."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i, (build, _) in enumerate(ROWS.values()):
        (folder / f"{i}").write_bytes(build(good))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from tests.components.test_corpus import look\n"
        "open('/tmp/hikube-marker-not-there', 'rb') if Path('/tmp/hikube-marker-not-there').exists() else None\n"
        "for p in sorted(Path(sys.argv[2]).iterdir()):\n"
        "    try: look(p)\n"
        "    except Exception: pass\n"
    )
    trace = tmp_path / "trace"
    argv = ["strace", "-f", "-qq", "-o", trace, "-e", "trace=openat,connect,socket", sys.executable, "-c", program]
    subprocess.run([*argv, ROOT, folder], check=True, timeout=patience(300), stdin=subprocess.DEVNULL)
    lines = trace.read_text().split("hikube-marker-not-there")[-1].splitlines()
    strange = [
        line
        for line in lines
        if ("/etc/passwd" in line or "AF_INET" in line or '"/dev/fd' in line) and "ENOENT" not in line
    ]
    assert not strange, strange[:5]


@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=12),
    st.sampled_from(["qcow2", "vmdk", "vdi", "vhd", "vhdx"]),
)
def test_no_header_crashes_the_reader_or_gets_a_reference_past_it(good, tmp_path_factory, changes, base):
    raw = bytearray(good[base][: 1 << 20])
    for at, value in changes:
        raw[at] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(raw)
    with contextlib.suppress(HikubeError):
        about = inspect(path)
        assert about.virtual_size > 0
        if about.format == "qcow2":
            assert raw[8:20] == bytes(12) and not raw[79] & 7


# What OpenStack's reader calls unsafe although nothing is wrong with it.
FALSE_ALARMS = {"ext", "raw", "fixed"}  # extended L2 entries; a boot sector without partitions


def oslo_refuses(path: Path) -> bool:
    from oslo_utils.imageutils import format_inspector

    try:
        inspector = format_inspector.detect_file_format(str(path))
        inspector.safety_check()
    except Exception:
        return True
    return False


@pytest.mark.parametrize(
    "name", [*ROWS, "raw", "qcow2", "small", "v2", "ext", "zstd", "vmdk", "stream", "vdi", "vhd", "fixed"]
)
def test_what_another_reader_refuses_is_refused_here(name, good, tmp_path):
    """oslo.utils is OpenStack's answer to CVE-2024-32498: an oracle, not the gate."""
    path = tmp_path / "image"
    path.write_bytes(ROWS[name][0](good) if name in ROWS else good[name])
    if name in FALSE_ALARMS or not oslo_refuses(path):
        return
    with pytest.raises(HikubeError):
        look(path)
