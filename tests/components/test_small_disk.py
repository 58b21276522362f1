"""A file system that fills up at each phase: a clear error, nothing partial that counts, and the next run succeeds."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.components.server import Act, serving

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a tmpfs")

# Runs in a mount namespace of its own: the tmpfs goes with it.
CHILD = """
import os, subprocess, sys
from pathlib import Path
folder, url, phase = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=0755", "tmpfs", folder], check=True)
from hikube_local.disks import qcow2
from hikube_local.errors import HikubeError, unexpected
from hikube_local.images import cache as images, download, fetch, unpack
from hikube_local.images.cache import Cache
download.RESERVE = 4 << 20
images.SYNC_EVERY = unpack.SYNC_EVERY = download.SYNC_EVERY = 1 << 20
cache, ballast = Cache(folder / "cache"), folder / "ballast"
def once():
    entry = fetch.fetch(cache, url, lambda e: None, "x")
    if phase == "overlay":
        take = os.statvfs(folder)
        ballast.write_bytes(os.urandom(take.f_bavail * take.f_frsize - (64 << 10)))
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    qcow2.create(disk, 1 << 40, cache.path(entry.digest), qcow2.Facts(entry.digest, entry.format, entry.size))
    return entry
if phase != "overlay":
    ballast.write_bytes(os.urandom({"download": 40, "unpack": 30, "convert": 34}[phase] << 20))
try:
    once()
    print("no error")
except Exception as e:
    told = unexpected(e)
    print(told.code, told.what)
left = [p.name for p in (folder / "cache/sha256").iterdir()]
print("images", len(left), "disk", (folder / "disk/disk.qcow2").exists())
ballast.unlink()
phase = "again"
entry = once()
print("again", entry.format, (folder / "disk/disk.qcow2").exists(), len(list((folder / "cache/partial").iterdir())))
"""


@pytest.mark.parametrize("phase", ["download", "unpack", "convert", "overlay"])
def test_a_file_system_that_is_full(tmp_path: Path, phase: str):
    content = b"\xeb\x63" + os.urandom(9 << 20) + bytes(510)
    if phase == "unpack":
        import gzip

        content = gzip.compress(b"\xeb\x63" + os.urandom(1 << 20) * 14 + bytes(510))
    elif phase == "convert":
        raw, foreign = tmp_path / "raw", tmp_path / "foreign"
        raw.write_bytes(content)
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vdi", raw, foreign], check=True)
        content = foreign.read_bytes()
    folder = tmp_path / "small"
    folder.mkdir()
    with serving() as served:
        served.files["/a.img"] = content
        served.default = Act(length=None) if phase == "download" else Act()
        words = ["unshare", "-m", sys.executable, "-c", textwrap.dedent(CHILD), folder, f"{served.url}/a.img", phase]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    error, kept, again = done.stdout.splitlines()
    assert error.startswith("HK604 no space"), done.stdout
    assert kept == ("images 1 disk False" if phase == "overlay" else "images 0 disk False"), done.stdout
    assert again.startswith("again") and again.endswith("True 0"), done.stdout
    assert not list(folder.iterdir())
