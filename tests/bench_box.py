"""`make bench`, a box over ssh: what the way there adds, beside the same command on the box and beside bare ssh."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import sshbox
from tests.conftest import Program
from tests.sshbox import Box
from tests.tenant import MANIFEST

Row = Callable[..., None]
MIB = 256


def median(action: Callable[[], object], rounds: int = 7) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return sorted(times)[rounds // 2]


def over_ssh(work: Path, row: Row) -> None:
    """On the simulator: a look, and a large file."""
    if sshbox.server() is None or os.geteuid() != 0:
        return
    box = Box(Program(work / "there"), Program(work / "here"))
    try:
        assert box("up", box.here.file("m.yaml", MANIFEST)).code == 0
        row("box: get", median(lambda: box("get")), median(lambda: box.there("get")), "get on the box")
        ssh = [box.here.home / "bin" / "ssh", "-p", str(box.port), "root@127.0.0.1"]
        large = box.here.folder / "big.raw"

        def ours() -> None:
            large.write_bytes(os.urandom(1 << 20) * MIB)  # another one each time: one that the box has is not sent
            begin = time.perf_counter()
            assert box("test", large.name).code != 0  # no manifest: it is sent, and refused at once
            times.append(time.perf_counter() - begin)

        times: list[float] = []
        for _ in range(3):
            ours()
        with open(large, "rb") as content:
            begin = time.perf_counter()
            subprocess.run([*ssh, f"cat > {work}/there/copy"], stdin=content, check=True)
            bare = time.perf_counter() - begin
        row(f"box: a file of {MIB} MiB to it", sorted(times)[1], bare, "ssh cat > FILE")
    finally:
        box.close()


def into_a_guest(program: Any, here: Any, row: Row) -> None:
    """`program`: whose machine `web` runs, which is the box's; `here`: an empty root from which it is entered."""
    if sshbox.server() is None:
        return
    program.env["HIKUBE_LOCAL_BACKEND"] = "qemu"
    box = Box(program, here)
    try:
        first = box("ssh", "web", "--", "true", timeout=200)
        assert first.code == 0, first.err
        near = median(lambda: program("ssh", "web", "--", "true"))
        row("box: ssh NAME -- true", median(lambda: box("ssh", "web", "--", "true")), near, "the same on the box")
    finally:
        box.close()
