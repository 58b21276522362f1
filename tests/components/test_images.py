"""Fetching, the first gate, the cache, disks: real qemu-img, a real server."""

from __future__ import annotations

import json
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from hikube_local.disks import qcow2
from hikube_local.events import ignore
from hikube_local.images import fetch, http, inspect
from hikube_local.images.cache import Cache
from tests.components.refusal import refusal
from tests.components.server import serve_file, serving


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A qcow2 with something in it."""
    raw = tmp_path / "raw"
    raw.write_bytes(b"\xeb\x63" + bytes(range(256)) * 8000)
    path = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def served():
    with serving() as s:
        yield s


def nothing_kept(cache: Cache) -> bool:
    return not list((cache.folder / "partial").iterdir()) and not list((cache.folder / "sha256").iterdir())


def test_an_image_is_fetched_once(cache, served, image):
    url = serve_file(served, image, "a.img")
    first = fetch.fetch(cache, url, ignore, "vmdisk/a")
    assert first.format == "qcow2"
    assert cache.path(first.digest).read_bytes() == image.read_bytes()
    assert cache.path(first.digest).stat().st_mode & 0o777 == 0o444
    assert fetch.fetch(cache, url, ignore, "vmdisk/b") == first
    assert served.fetched == ["/a.img"]


def test_ten_at_once_fetch_once(cache, served, image):
    url = serve_file(served, image, "a.img")
    served.delay = 0.2
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch.fetch(cache, url, ignore, "x").digest)) for _ in range(10)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(set(found)) == 1 and len(found) == 10
    assert served.fetched == ["/a.img"]


def test_a_404_is_an_answer_and_not_an_unreachable_server(cache, served):
    error = refusal(lambda: fetch.fetch(cache, served.url + "/none", ignore, "x"), "404")
    assert not isinstance(error, http.Unreachable)


def test_a_server_that_is_not_there_is_unreachable(cache):
    with pytest.raises(http.Unreachable):
        fetch.fetch(cache, "http://127.0.0.1:1/x", ignore, "x")


def test_a_wrong_digest_keeps_nothing_and_names_both(cache, served, image):
    url = serve_file(served, image, "a.img")
    refusal(lambda: fetch.fetch(cache, url, ignore, "x", "sha256:" + "0" * 64), "HK704", "0" * 64)
    assert nothing_kept(cache)


def test_a_login_page_is_recognised(cache, served):
    served.files["/a.img"] = b"<!DOCTYPE html><html><head><title>Sign in</title></head>" + b" " * 2000
    refusal(lambda: fetch.fetch(cache, served.url + "/a.img", ignore, "x"), "HK702", "Sign in")
    assert nothing_kept(cache)


def patched(image: Path, at: int, value: bytes) -> Path:
    raw = bytearray(image.read_bytes())
    raw[at : at + len(value)] = value
    path = image.with_name("patched.qcow2")
    path.write_bytes(raw)
    return path


HOSTILE = {
    "backing file": (8, struct.pack(">QI", 0x200, 11), "refers to another file"),
    "data file bit": (72, struct.pack(">Q", 4), "external data file"),
    "unknown feature": (72, struct.pack(">Q", 1 << 5), "incompatible_features"),
    "corrupt bit": (72, struct.pack(">Q", 2), "damaged"),
    "version 4": (4, struct.pack(">I", 4), "version 4"),
    "encrypted": (32, struct.pack(">I", 1), "encrypted"),
    "cluster bits": (20, struct.pack(">I", 63), "cluster_bits"),
    "size zero": (24, struct.pack(">Q", 0), "size = 0"),
    "no whole sectors": (24, struct.pack(">Q", 1000001), "size = 1000001"),
    "l1 outside": (40, struct.pack(">Q", 1 << 40), "l1_table"),
    "refcounts outside": (48, struct.pack(">Q", 1 << 40), "refcount_table"),
    "header length": (100, struct.pack(">I", 1 << 17), "header_length"),
    "data file extension": (112, struct.pack(">II", 0x44415441, 8), "data file extension"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_with_their_field(name, image):
    at, value, word = HOSTILE[name]
    refusal(lambda: inspect.inspect(patched(image, at, value)), "HK702", word)


def test_other_formats_are_named(tmp_path):
    for head, word in (
        (b"\x1f\x8b", "compressed twice (gzip)"),
        (b"COWD", "COWD"),
        (b'# Disk DescriptorFile\ncreateType="monolithicFlat"\n', "VMDK"),
        (b"PK\x03\x04", "zip"),
    ):
        path = tmp_path / "f"
        path.write_bytes(head + bytes(4096))
        refusal(lambda p=path: inspect.inspect(p), word)


def test_a_truncated_image_is_refused_by_the_check(cache, served, image):
    served.files["/a.img"] = image.read_bytes()[: image.stat().st_size * 3 // 4]
    refusal(lambda: fetch.fetch(cache, served.url + "/a.img", ignore, "x"), "HK702")
    assert nothing_kept(cache)


def test_links_and_pipes_are_not_opened(tmp_path, image):
    link = tmp_path / "link"
    link.symlink_to(image)
    with pytest.raises(OSError):
        inspect.inspect(link)


def info(path: Path) -> dict:
    return json.loads(
        subprocess.run(
            ["qemu-img", "info", "-f", "qcow2", "--output=json", path], check=True, capture_output=True
        ).stdout
    )


def test_an_overlay_stands_on_its_base_and_has_the_size(tmp_path, cache, served, image):
    entry = fetch.fetch(cache, serve_file(served, image, "a.img"), ignore, "x")
    folder = tmp_path / "disk"
    qcow2.create(folder, 5 << 30, cache.path(entry.digest), qcow2.Facts(entry.digest, entry.format))
    about = info(folder / qcow2.DISK)
    assert about["virtual-size"] == 5 << 30
    assert about["full-backing-filename"] == str(cache.path(entry.digest))
    assert about["backing-filename-format"] == "qcow2"
    assert qcow2.facts(folder) == qcow2.Facts(entry.digest, "qcow2")


def test_a_disk_that_exists_is_never_overwritten(tmp_path):
    qcow2.create(tmp_path / "d", 1 << 30, None, qcow2.Facts())
    before = (tmp_path / "d" / qcow2.DISK).read_bytes()
    refusal(lambda: qcow2.create(tmp_path / "d", 2 << 30, None, qcow2.Facts()), "already a disk")
    assert (tmp_path / "d" / qcow2.DISK).read_bytes() == before


def test_disks_grow_and_do_not_shrink(tmp_path):
    qcow2.create(tmp_path / "d", 1 << 30, None, qcow2.Facts())
    qcow2.grow(tmp_path / "d", 2 << 30)
    qcow2.grow(tmp_path / "d", 1 << 30)
    assert info(tmp_path / "d" / qcow2.DISK)["virtual-size"] == 2 << 30


def test_an_image_larger_than_storage_is_refused_in_cdis_words():
    refusal(
        lambda: inspect.fits(inspect.About("qcow2", 10 << 30), 5 << 30), "larger than the reported available storage"
    )


def test_a_copy_of_a_disk_with_frozen_layers_is_whole(tmp_path, image):
    """With a base qemu-img copies the top layer alone: what a checkpoint froze would be lost."""
    from hikube_local.disks import layers

    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source, target):
        folder.mkdir()
    base = tmp_path / "base.raw"
    base.write_bytes(bytes(3 << 20) + b"\x44" * (1 << 20) + bytes(4 << 20))
    qcow2.create(source, 8 << 20, base, qcow2.Facts("a" * 64, "raw", 8 << 20))

    def write(name: str, at: int, pattern: int) -> None:
        words = ["qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} {at} 64k", source / name]
        subprocess.run(words, check=True, capture_output=True)

    write("disk.qcow2", 0, 17)
    layers.make(source, "layer-1.qcow2", "disk.qcow2", 8 << 20)
    layers.switch(source, "layer-1.qcow2", "disk.qcow2")
    write("layer-1.qcow2", 1 << 20, 34)
    layers.make(source, "layer-2.qcow2", "layer-1.qcow2", 8 << 20)
    layers.switch(source, "layer-2.qcow2", "layer-1.qcow2")
    write("layer-2.qcow2", 2 << 20, 51)
    assert [p.name for p in layers.below(source)] == ["layer-1.qcow2", "disk.qcow2"]
    qcow2.clone(source, target, base, 8 << 20)
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", target / "disk.qcow2", raw], check=True)
    content = raw.read_bytes()
    assert [content[at << 20] for at in range(4)] == [17, 34, 51, 68]
    # Going back to the first: the other layers go when nothing stands on them.
    layers.make(source, "layer-3.qcow2", "disk.qcow2", 8 << 20)
    layers.switch(source, "layer-3.qcow2", "disk.qcow2")
    layers.sweep(source, ["layer-1.qcow2"])
    assert sorted(p.name for p in source.glob("*.qcow2")) == ["disk.qcow2", "layer-1.qcow2", "layer-3.qcow2"]
    layers.sweep(source, [])
    assert sorted(p.name for p in source.glob("*.qcow2")) == ["disk.qcow2", "layer-3.qcow2"]
