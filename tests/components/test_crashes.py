"""kill -9, a full disk and a power cut while an image is fetched and a disk is made: nothing counts that is not whole.

Three layers: a kill at each system call that changes anything, an error instead of it, and a
reader of traces that finds a rename without the fsyncs it needs. The mutants at the end are bugs that they must catch.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.server import Served, serving
from tests.conftest import ROOT, Program, disk
from tests.growth import patience

CALLS = ("rename", "fsync", "fdatasync", "pwrite64", "write", "ftruncate", "unlink")
SAMPLE = [("rename", 2), ("rename", 4), ("fsync", 3), ("fsync", 6), ("pwrite64", 4), ("ftruncate", 1), ("unlink", 1)]


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as s:
        s.etag = '"v1"'
        s.files["/a.raw"] = b"\xeb\x63" + bytes(508) + b"\x55\xaa" + bytes(range(256)) * 4096
        yield s


@pytest.fixture
def path(hikube: Program, served: Served) -> Path:
    return hikube.file("d.yaml", disk(source={"http": {"url": f"{served.url}/a.raw"}}, storage="1Gi"))


def strace(hikube: Program, inject: str, *words: object, only: list[str] | None = None) -> subprocess.CompletedProcess:
    argv = ["strace", "-f", "-qq", "-o", "/dev/null", *(only or []), "-e", f"inject={inject}"]
    argv += [sys.executable, "-m", "hikube_local", *map(str, words)]
    return subprocess.run(
        argv, env=hikube.env, capture_output=True, text=True, timeout=patience(120), cwd=hikube.folder
    )


def whole(hikube: Program, path: Path) -> None:
    """One `up` heals: the disk is there, the cache verifies, nothing partial is left, and nothing is left to do."""
    healed = hikube("up", path)
    assert healed.code == 0, healed.err
    assert hikube("get", "vmdisk", "sys", "-o", "jsonpath={.status.phase}").out.strip() == "Succeeded"
    assert hikube("images", "verify").code == 0
    cache = hikube.home / "cache" / "images"
    assert list((cache / "partial").iterdir()) == []
    assert not [p for p in hikube.home.rglob(".partial-*") if "locks" not in p.parts]
    assert "nothing changed" in hikube("up", path).err


def gone(hikube: Program) -> None:
    assert hikube("delete", "vmdisk/sys", "--yes", "--ignore-not-found").code == 0
    assert hikube("images", "prune", "--yes").code == 0
    assert not list((hikube.home / "state" / "disks").rglob("disk.qcow2"))


@pytest.mark.parametrize(("call", "n"), SAMPLE)
def test_killed_at_a_call_the_next_up_heals(hikube: Program, path: Path, call: str, n: int):
    done = strace(hikube, f"{call}:signal=KILL:when={n}", "up", path)
    assert done.returncode != 0, "the point lies behind the end"
    whole(hikube, path)


@pytest.mark.full
@pytest.mark.parametrize("verb", ["up", "delete"])
@pytest.mark.parametrize("call", CALLS)
def test_killed_at_every_call_the_next_up_heals(hikube: Program, path: Path, call: str, verb: str):
    points = 0
    for n in range(1, 400):
        if verb == "delete":
            whole(hikube, path)
            done = strace(hikube, f"{call}:signal=KILL:when={n}", "delete", "vmdisk/sys", "--yes")
        else:
            done = strace(hikube, f"{call}:signal=KILL:when={n}", "up", path)
        if done.returncode == 0:
            break
        points += 1
        if verb == "delete":
            gone(hikube)
        else:
            whole(hikube, path)
            gone(hikube)
    assert points or call in ("pwrite64", "ftruncate", "fdatasync", "unlink")


@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EDQUOT"])
@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_an_error_instead_is_told_and_nothing_partial_counts(hikube: Program, path: Path, call: str, error: str):
    assert hikube("get", "-A").code == 0
    # From the third call on, since the first ones are the store's own; writes are those of the download alone.
    url = re.search(r"http://[^\"]+", path.read_text())[0]
    partial = hikube.home / "cache" / "images" / "partial" / hashlib.sha256(url.encode()).hexdigest()[:32]
    only = ["-P", str(partial)] if call == "write" else []
    done = strace(hikube, f"{call}:error={error}:when={1 if only else 3}+", "up", path, only=only)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    whole(hikube, path)


# The power cut: what SIGKILL cannot show, since the page cache survives it.

_CALL = re.compile(r"^\d+\s+(?:<\.\.\. )?(\w+)[( ](.*)$")
_FD = re.compile(r"^\d+<([^>]*)>")
_NAMES = re.compile(r'"([^"]*)"')
_TRACE = "write,pwrite64,writev,pwritev,ftruncate,copy_file_range,fsync,fdatasync,rename,renameat,renameat2"


def lint(trace: str, root: Path) -> list[str]:
    """Findings about files below `root`: a rename of what was not yet on the disk, a name that was not, a write in place."""
    dirty: set[str] = set()
    written: set[str] = set()
    sources: set[str] = set()
    pending: dict[str, str] = {}
    found = []
    for line in trace.splitlines():
        if not (m := _CALL.match(line)) or "resumed>" in line or " = -1 " in line:
            continue
        call, rest = m[1], m[2]
        if call.startswith("rename"):
            names = _NAMES.findall(rest)
            if len(names) != 2 or not names[1].startswith(str(root)):
                continue
            old, new = names
            sources.add(old)
            if old in dirty:
                found.append(f"{Path(new).name} was renamed before its content was on the disk")
            if ".trash-" not in new and "damaged" not in new:
                pending[str(Path(new).parent)] = new
        elif (fd := _FD.match(rest)) and fd[1].startswith(str(root)):
            if call in ("fsync", "fdatasync"):
                dirty.discard(fd[1])
                pending.pop(fd[1], None)
            else:
                dirty.add(fd[1])
                written.add(fd[1])
    found += [f"the name of {Path(new).name} was never on the disk" for new in pending.values()]
    for name in sorted(written - sources):
        kept = any(word in name for word in ("store.sqlite", "/locks/", "/partial/", "/files/"))
        if not kept:
            found.append(f"{Path(name).name} was written in place")
    return found


def traced(hikube: Program, path: Path, tmp_path: Path, mutation: str = "") -> list[str]:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{mutation}\nfrom hikube_local.__main__ import main\nsys.exit(main())"
    trace = tmp_path / "trace"
    argv = [
        "strace",
        "-f",
        "-y",
        "-s",
        "400",
        "-qq",
        "-o",
        trace,
        "-e",
        f"trace={_TRACE}",
        sys.executable,
        "-c",
        program,
    ]
    done = subprocess.run([*argv, "up", path], env=hikube.env, capture_output=True, text=True, timeout=patience(120))
    assert done.returncode == 0, done.stderr
    return lint(trace.read_text(errors="replace"), hikube.home)


def test_a_power_cut_at_any_moment_finds_whole_files(hikube: Program, path: Path, tmp_path: Path):
    assert traced(hikube, path, tmp_path) == []


IN_PLACE = """
from pathlib import Path
from hikube_local import files
def write(path, content, mode=0o600):
    files.make_folder(path.parent)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
files.write = write
"""
MUTANTS = {
    "no fsync of small files": (
        "import os\nreal = os.fsync\nimport hikube_local.files as f\nf.os = type('O', (), {**{k: getattr(os, k) for k in dir(os)}, 'fsync': staticmethod(lambda fd: None)})",
        "before its content",
    ),
    "no fsync of folders": (
        "import hikube_local.files as f\nf.fsync_folder = lambda folder: None",
        "was never on the disk",
    ),
    "small files in place": (IN_PLACE, "in place"),
    "the image is not synced": (
        "import hikube_local.images.download as d, hikube_local.images.intake as c, os\nfor m in (d, c):\n    m.os = type('O', (), {**{k: getattr(os, k) for k in dir(os)}, 'fsync': staticmethod(lambda fd: None)})",
        "before its content",
    ),
    "the image's name is not synced": (
        "import hikube_local.images.intake as c\nreal = c.files\nc.files = type('F', (), {**{k: getattr(real, k) for k in dir(real)}, 'fsync_folder': staticmethod(lambda p: None)})",
        "was never on the disk",
    ),
    "the disk's name is not synced": (
        "import hikube_local.backends.qemu.machine.disks as d\nreal = d.files\nd.files = type('F', (), {**{k: getattr(real, k) for k in dir(real)}, 'fsync_folder': staticmethod(lambda p: None)})",
        "the name of disk.qcow2 was never",
    ),
    "the disk is made in place": (
        "import contextlib\nimport hikube_local.disks.qcow2 as q\nreal = q.files\n@contextlib.contextmanager\ndef beside(path, mode=0o600, name_too=True):\n    real.make_folder(path.parent)\n    yield path\nq.files = type('F', (), {**{k: getattr(real, k) for k in dir(real)}, 'beside': staticmethod(beside)})",
        "in place",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_bugs_are_caught(hikube: Program, path: Path, tmp_path: Path, name: str):
    mutation, word = MUTANTS[name]
    findings = traced(hikube, path, tmp_path, mutation)
    assert any(word in f for f in findings), findings
