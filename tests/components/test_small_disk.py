"""A file system that fills up at each phase: a clear error, nothing partial that counts, and the next run succeeds."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.components.server import Act, serving
from tests.conftest import disk, instance
from tests.growth import patience

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
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=patience(120), cwd=Path(__file__).parents[2]
        )
    assert done.returncode == 0, done.stderr
    error, kept, again = done.stdout.splitlines()
    assert error.startswith(("HK604 no space", "HK604 not enough space")), done.stdout
    assert kept == ("images 1 disk False" if phase == "overlay" else "images 0 disk False"), done.stdout
    assert again.startswith("again") and again.endswith("True 0"), done.stdout
    assert not list(folder.iterdir())


# The same for a machine (simulated) on a state root whose file system is full to the last byte.
FULL = """
import os, subprocess, sys
from pathlib import Path
home, manifest = Path(sys.argv[1]), sys.argv[2]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=72m,mode=0755", "tmpfs", home], check=True)
def run(*words):
    environ = {**os.environ, "HIKUBE_LOCAL_HOME": str(home)}
    done = subprocess.run([sys.executable, "-m", "hikube_local", *words], env=environ, capture_output=True, text=True)
    print(words[0], done.returncode, done.stderr if done.returncode else "")
run("up", "--backend", "simulator", manifest)
with open(home / "ballast", "wb", buffering=0) as file:
    try:
        while file.write(bytes(1 << 20)):
            pass
    except OSError:
        pass
assert os.statvfs(home).f_bavail == 0
for words in (["get", "vm,vmdisk"], ["describe", "vm/web"], ["events"], ["stop", "web"], ["start", "web"],
              ["delete", "vm/web", "--yes"], ["delete", "vmdisk/sys", "--yes"], ["down", "-A", "--force"]):
    run(*words)
print(sorted(p.name for kind in ("machines", "disks") for p in (home / "state" / kind).glob("*/*")))
"""


def test_on_a_full_disk_one_can_look_and_stop_and_delete(tmp_path: Path):
    """What frees room must not need any: it is how a user gets out of this."""
    home, manifest = tmp_path / "home", tmp_path / "m.yaml"
    home.mkdir()
    machine = instance(instanceType="u1.nano", instanceProfile="alpine", disks=["sys"])
    manifest.write_text(disk(storage="1Gi") + "\n---\n" + machine)
    words = ["unshare", "-m", sys.executable, "-c", FULL, home, manifest]
    done = subprocess.run(words, capture_output=True, text=True, timeout=patience(120), cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    *runs, left = done.stdout.splitlines()
    assert len(runs) == 9 and all(line.split()[1:] == ["0"] for line in runs), done.stdout
    assert left == "[]"
