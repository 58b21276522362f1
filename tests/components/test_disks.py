"""VMDisks through the command line, without a machine: one download, clones, uploads, bundles, what is kept and what goes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.components.server import Act, serve_file, serving
from tests.conftest import Program, disk
from tests.growth import patience


@pytest.fixture
def served():
    with serving() as s:
        s.etag = '"v1"'
        yield s


@pytest.fixture
def image(tmp_path: Path) -> Path:
    raw, path = tmp_path / "raw", tmp_path / "image.qcow2"
    raw.write_bytes(b"\xeb\x63" + os.urandom(3 << 20) + bytes(510))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    return path


def named(name: str, **spec) -> str:
    return disk(**spec).replace('"name": "sys"', f'"name": "{name}"')


def manifest(hikube: Program, *documents: str) -> Path:
    return hikube.file("disks.yaml", "\n---\n".join(documents))


def file_of(hikube: Program, name: str) -> Path:
    return hikube.home / "state" / "disks" / "default" / name / "disk.qcow2"


def same(a: Path, b: Path) -> bool:
    words = ["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", a, b]
    return subprocess.run(words, capture_output=True).returncode == 0


def phase(hikube: Program, name: str) -> str:
    return hikube("get", "vmdisk", name, "-o", "jsonpath={.status.phase}").out.strip()


def test_two_processes_ten_disks_one_download(hikube, served, image):
    url = serve_file(served, image, "a.img")
    served.delay = 0.3
    running = []
    for half in ("a", "b"):
        text = "\n---\n".join(named(f"{half}{i}", source={"http": {"url": url}}, storage="1Gi") for i in range(5))
        path = hikube.file(f"{half}.yaml", text)
        argv = [sys.executable, "-m", "hikube_local", "up", str(path)]
        running.append(subprocess.Popen(argv, env=hikube.env, stderr=subprocess.PIPE, text=True))
    told = [p.communicate(timeout=patience(120))[1] for p in running]
    assert [p.returncode for p in running] == [0, 0], told
    assert served.fetched == ["/a.img"]
    assert any("waits for" in t for t in told)
    assert hikube("get", "vmdisk").out.count("Ready") == 10


def test_a_clone_is_independent_and_comes_after_its_source(hikube, served, image):
    url = serve_file(served, image, "a.img")
    # In an order that would be wrong; a copy of a copy too.
    path = manifest(
        hikube,
        named("c2", source={"disk": {"name": "c1"}}, storage="2Gi"),
        named("c1", source={"disk": {"name": "zz"}}, storage="1Gi"),
        named("zz", source={"http": {"url": url}}, storage="1Gi"),
    )
    result = hikube("up", path)
    assert result.code == 0, result.err
    assert same(file_of(hikube, "zz"), file_of(hikube, "c1")) and phase(hikube, "c2") == "Succeeded"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", file_of(hikube, "zz")], check=True, stdout=-3)
    assert not same(file_of(hikube, "zz"), file_of(hikube, "c1"))
    assert hikube("delete", "vmdisk/zz", "--yes").code == 0
    check = ["qemu-img", "check", "-q", "-f", "qcow2", file_of(hikube, "c1")]
    assert subprocess.run(check).returncode == 0
    alone = manifest(hikube, named("c1", source={"disk": {"name": "zz"}}, storage="1Gi"))
    assert "nothing changed" in hikube("up", alone).err


def test_a_clone_that_cannot_be_is_told_in_cdis_words(hikube, served, image):
    url = serve_file(served, image, "a.img")
    small = hikube(
        "up",
        manifest(
            hikube,
            named("src", source={"http": {"url": url}}, storage="2Gi"),
            named("c", source={"disk": {"name": "src"}}, storage="1Gi"),
        ),
    )
    assert small.code == 1 and "HK703" in small.err and "smaller than the source" in small.err
    none = hikube("up", manifest(hikube, named("d", source={"disk": {"name": "nowhere"}}, storage="1Gi")))
    assert none.code == 1 and "nowhere" in none.err and "is missing" in none.err


def test_an_upload_is_waited_for_named_and_never_overwritten(hikube, image):
    path = manifest(hikube, named("up", source={"upload": {}}, storage="1Gi"))
    result = hikube("up", path)
    assert result.code == 0 and "hikube-local image-upload vmdisk up --image-path FILE" in result.err
    assert phase(hikube, "up") == "UploadReady"
    again = hikube(
        "image-upload", "dv", "vm-disk-up", "--image-path", image, "--insecure", "--uploadproxy-url", "https://x"
    )
    assert again.code == 0, again.err
    assert phase(hikube, "up") == "Succeeded"
    assert hikube("image-upload", "vmdisk", "up", "--image-path", image).code == 1
    assert "nothing changed" in hikube("up", path).err
    made = hikube("image-upload", "pvc", "new", "--size", "1Gi", "--image-path", image)
    assert made.code == 0 and phase(hikube, "new") == "Succeeded"
    # A copy of a disk that waits for its upload waits with it.
    two = manifest(
        hikube,
        named("orig", source={"upload": {}}, storage="1Gi"),
        named("copy", source={"disk": {"name": "orig"}}, storage="1Gi"),
    )
    waiting = hikube("up", two)
    assert waiting.code == 0 and waiting.err.count("image-upload vmdisk orig") == 2, waiting.err
    assert hikube("image-upload", "dv", "orig", "--image-path", image).code == 0
    assert phase(hikube, "copy") == "Succeeded"
    fifo = image.with_name("fifo")
    os.mkfifo(fifo)
    refused = hikube("image-upload", "pvc", "odd", "--size", "1Gi", "--image-path", fifo)
    assert refused.code == 1 and "not a regular file" in refused.err


def test_images_are_imported_listed_verified_and_pruned(hikube, served, image):
    assert hikube("images", "import", image, "--name", "golden").code == 0
    assert hikube("images", "import", image, "--name", "Bad Name").code == 2
    path = manifest(hikube, named("g", source={"image": {"name": "golden"}}, storage="1Gi"))
    assert hikube("validate", path).code == 0
    assert hikube("up", path).code == 0
    other = image.with_name("other.raw")
    other.write_bytes(os.urandom(1 << 20))
    url = serve_file(served, other, "b.raw")
    pulled = hikube("images", "pull", url)
    assert pulled.code == 0 and "sha256:" in pulled.out
    rows = {r["name"] or r["origin"]: r for r in hikube("images", "list", "-o", "json").json}
    assert rows["golden"]["usedBy"] == ["default/g"] and rows[url]["usedBy"] == []
    assert {"digest", "size", "used", "verified"} <= set(rows[url])
    # Never what a disk stands on, also when its row is lost.
    (hikube.home / "state" / "store.sqlite").unlink()
    shown = hikube("images", "prune", "--dry-run")
    assert "would be freed" in shown.out and rows["golden"]["digest"][:12] not in shown.out
    assert hikube("images", "prune").code == 2
    assert hikube("images", "prune", "--yes").code == 0
    assert [r["usedBy"] for r in hikube("images", "list", "-o", "json").json] == [["default/g"]]
    assert hikube("images", "verify").code == 0
    kept = hikube.home / "cache" / "images" / "sha256" / rows["golden"]["digest"]
    kept.chmod(0o644)
    with open(kept, "r+b") as f:
        f.seek(200_000)
        f.write(b"!!!!")
    bad = hikube("images", "verify")
    assert bad.code == 1 and "DAMAGED" in bad.out and "default/g" in bad.out
    # It is brought back under the disk that stands on it.
    assert hikube("images", "import", image, "--name", "golden").code == 0
    assert kept.read_bytes() == image.read_bytes() and hikube("images", "verify").code == 0
    kept.chmod(0o644)
    with open(kept, "ab") as f:
        f.write(b"more")
    changed = hikube("get", "vmdisk", "g", "-o", "json").json["status"]
    assert changed["phase"] == "Failed" and "was changed" in changed["conditions"][0]["message"]
    kept.unlink()
    gone = hikube("describe", "vmdisk", "g").out
    assert "missing from the cache" in gone


def test_a_bundle_is_all_that_another_machine_needs(hikube, served, image, tmp_path):
    url = serve_file(served, image, "a.img")
    path = manifest(hikube, named("d", source={"http": {"url": url}}, storage="1Gi"))
    folder = tmp_path / "bundle"
    made = hikube("bundle", path, "--to", folder)
    assert made.code == 0, made.err
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == sorted(
        ["disks.yaml", "images/bundle.json", f"images/{hashlib.sha256(image.read_bytes()).hexdigest()}"]
    )
    assert hikube("bundle", path, "--to", folder).code == 1  # not empty
    before = len(served.requests)
    other = Program(tmp_path / "other")
    assert other("up", "--offline", path).code == 1  # nothing is there yet
    result = other("up", "--offline", folder)
    assert result.code == 0, result.err
    assert phase(other, "d") == "Succeeded" and len(served.requests) == before
    # Somebody else's gives nothing that was not asked for, and replaces nothing.
    index = folder / "images" / "bundle.json"
    rows = json.loads(index.read_text())
    index.write_text(json.dumps(rows | {"https://example.org/other.img": rows[url], "name:golden": rows[url]}))
    fourth = Program(tmp_path / "fourth")
    assert fourth("up", "--offline", folder).code == 0
    assert [r["key"] if "key" in r else r["origin"] for r in fourth("images", "list", "-o", "json").json] == [url]
    # A bundle that was tampered with is refused.
    third = Program(tmp_path / "third")
    blob = next(p for p in (folder / "images").iterdir() if p.suffix != ".json")
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    tampered = third("up", "--offline", folder)
    assert tampered.code == 1 and "HK704" in tampered.err


def test_the_annotation_is_a_checksum(hikube, served, image):
    url = serve_file(served, image, "a.img")
    digest = hashlib.sha512(image.read_bytes()).hexdigest()

    def annotated(checksum: str) -> Path:
        body = json.loads(named("d", source={"http": {"url": url}}, storage="1Gi"))
        body["metadata"]["annotations"] = {"hikube.local/checksum": checksum}
        return hikube.file("disks.yaml", json.dumps(body))

    wrong = hikube("up", annotated("sha512:" + "0" * 128))
    assert wrong.code == 1 and "HK704" in wrong.err and digest in wrong.err
    odd = hikube("up", annotated("md5:abc"))
    assert odd.code == 1 and "is not a checksum" in odd.err
    assert hikube("up", annotated(f"sha512:{digest}")).code == 0
    assert hikube("images", "list", "-o", "json").json[0]["verified"] == "the annotation hikube.local/checksum"


def test_a_compressed_image_larger_than_storage_fails_alone(hikube, served, tmp_path):
    import lzma

    served.files["/big.xz"] = lzma.compress(b"\xeb\x63" + bytes(64 << 20))
    served.files["/ok.raw"] = b"\xeb\x63" + bytes(1 << 20)
    result = hikube(
        "up",
        manifest(
            hikube,
            named("big", source={"http": {"url": f"{served.url}/big.xz"}}, storage="1Mi"),
            named("ok", source={"http": {"url": f"{served.url}/ok.raw"}}, storage="1Gi"),
        ),
    )
    assert result.code == 1 and "HK703" in result.err
    assert phase(hikube, "ok") == "Succeeded" and phase(hikube, "big") != "Succeeded"
    assert hikube("get", "vmdisk", "big", "-o", "json").code == 0


def test_pull_of_an_image_that_changed_leaves_disks_alone(hikube, served, image):
    url = serve_file(served, image, "a.img")
    path = manifest(hikube, named("d", source={"http": {"url": url}}, storage="1Gi"))
    assert hikube("up", path).code == 0
    served.etag = '"v2"'
    served.files["/a.img"] = b"\xeb\x63" + os.urandom(1 << 20)
    assert "nothing changed" in hikube("up", path, "--pull").err  # a disk's source is read once
    both = manifest(
        hikube,
        named("d", source={"http": {"url": url}}, storage="1Gi"),
        named("e", source={"http": {"url": url}}, storage="1Gi"),
    )
    assert hikube("up", both, "--pull").code == 0
    digests = [hikube("get", "vmdisk", n, "-o", "jsonpath={.status.imageDigest}").out for n in ("d", "e")]
    assert digests[0] != digests[1]


def test_the_catalogues_urls_are_asked_whether_they_answer(hikube, served):
    """Through mirrors, since a test has no way to the vendors: one image is there, the others are not."""
    served.files["/images/cloud/bookworm/latest/debian-12-generic-amd64.qcow2"] = b"QFI\xfb" + bytes(1000)
    config = hikube.file(
        "config.yaml", f'mirrors: {{"https://": "{served.url}/gone/", "https://cloud.debian.org/": "{served.url}/"}}\n'
    )
    result = hikube("--config", config, "images", "verify", "--remote")
    assert result.code == 1
    rows = dict(line.split(None, 1) for line in result.out.splitlines())
    assert rows["debian-12"] == "ok" and "404" in rows["rocky-9"]
    assert "no public image" in rows["cloudlinux-8"]


def test_a_disk_is_untouched_until_something_was_written_to_it(tmp_path: Path, image: Path):
    """By what it holds, not by times: a warm start is for a disk as it was made."""
    from hikube_local.disks import layers, qcow2

    over, empty = tmp_path / "over", tmp_path / "empty"
    for folder in (over, empty):
        folder.mkdir()
    qcow2.create(over, 1 << 30, image, qcow2.Facts("d", "qcow2", image.stat().st_size))
    qcow2.create(empty, 500 << 30, None, qcow2.Facts())
    assert qcow2.untouched(over) and qcow2.untouched(empty)
    qcow2.grow(over, 2 << 30)
    assert qcow2.untouched(over)
    for folder, command in ((over, "write -z 1M 64k"), (empty, "write 400G 512")):
        subprocess.run(
            ["qemu-io", "-f", "qcow2", "-c", command, folder / layers.FIRST], check=True, capture_output=True
        )
        assert not qcow2.untouched(folder), command
    layered = tmp_path / "layered"
    layered.mkdir()
    qcow2.create(layered, 1 << 30, image, qcow2.Facts("d", "qcow2", image.stat().st_size))
    layers.make(layered, "layer-a.qcow2", layers.FIRST, 1 << 30)
    layers.switch(layered, "layer-a.qcow2", layers.FIRST)
    assert not qcow2.untouched(layered)


@pytest.mark.parametrize(("act", "presses"), [(Act(drip=1024), 1), (Act(stall=600), 2)], ids=["slow", "stalled"])
def test_ctrl_c_ends_a_pull_and_the_next_one_goes_on(hikube, served, image, act, presses):
    """From a server that is slow at the next event; from one that says nothing any more at the second Ctrl-C."""
    url = serve_file(served, image, "slow.qcow2")
    served.files["/SHA256SUMS"] = f"{hashlib.sha256(image.read_bytes()).hexdigest()}  slow.qcow2\n".encode()
    served.script = [act]
    argv = [sys.executable, "-m", "hikube_local", "images", "pull", url, "--progress", "plain"]
    pull = subprocess.Popen(argv, env=hikube.env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said = ""
        while ": downloading, 3." not in said:
            line = pull.stderr.readline()
            assert line, said
            said += line
        if presses == 1:
            _until_synced(hikube, 1 << 14)
        for _ in range(presses):
            time.sleep(0.5)
            os.killpg(pull.pid, signal.SIGINT)
        said += pull.communicate(timeout=patience(20))[1]
    finally:
        pull.kill()
    assert pull.returncode == 130 and "again to continue" in said and "Traceback" not in said, said
    assert ("Ctrl-C again ends them at once" in said) and "FAILED" not in said
    assert hikube("images", "pull", url).code == 0
    if presses == 1:  # killed, it loses what came in the last seconds
        assert served.seen[-1]["Range"].startswith("bytes=") and served.seen[-1]["Range"] != "bytes=0-"


def _until_synced(hikube, count: int) -> None:
    """Until a note says that so many bytes are on the disk."""
    deadline = time.monotonic() + patience(30)
    while True:
        notes = (hikube.home / "cache" / "images" / "partial").glob("*.json")
        if any(json.loads(note.read_bytes() or b"{}").get("synced", 0) >= count for note in notes):
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("verb", ["pull", "up"])
def test_ctrl_c_while_a_program_works_is_no_failure_of_the_image(hikube, served, image, tmp_path, verb):
    """A terminal's Ctrl-C ends qemu-img, too: what came is kept, and nothing is said to be damaged."""
    real = shutil.which("qemu-img")
    shim = tmp_path / "bin" / "qemu-img"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\n: > {tmp_path}/at-work\nsleep 60\nexec {real} "$@"\n')
    shim.chmod(0o755)
    url = serve_file(served, image, "a.qcow2")
    path = manifest(hikube, named("sys", source={"http": {"url": url}}, storage="1Gi"))
    argv = [sys.executable, "-m", "hikube_local", *(("images", "pull", url) if verb == "pull" else ("up", path))]
    env = hikube.env | {"PATH": f"{shim.parent}:{hikube.env['PATH']}"}
    work = subprocess.Popen(list(map(str, argv)), env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + patience(30)
        while not (tmp_path / "at-work").exists():
            assert time.monotonic() < deadline and work.poll() is None
            time.sleep(0.05)
        time.sleep(0.3)
        os.killpg(work.pid, signal.SIGINT)
        said = work.communicate(timeout=patience(20))[1]
    finally:
        work.kill()
    assert work.returncode == 130 and "FAILED" not in said and "HK702" not in said, said
    fetched = len(served.fetched)
    again = hikube("images", "pull", url) if verb == "pull" else hikube("up", path)
    assert again.code == 0, again.err
    assert len(served.fetched) > fetched and all("Range" in seen for seen in served.seen[fetched:])
