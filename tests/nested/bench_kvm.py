"""Run on the nested host: ratios under KVM, in one run. Each program is slow there, since the host itself is emulated.

    python bench_kvm.py HIKUBE_LOCAL

Beside tiny.yaml, whose machine `web` is there with its snapshot `point`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
WARM = """\
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata: {name: ws}
spec: {storage: 1Gi, source: {image: {name: tiny}}}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {name: warm}
spec:
  instanceType: u1.nano
  instanceProfile: alpine
  disks: [ws]
  cloudInit: |
    #!/bin/sh
    echo configured
"""


class Bench:
    def __init__(self, program: str) -> None:
        self.program = program

    def __call__(self, *words: str) -> None:
        subprocess.run([self.program, *words], **QUIET)  # type: ignore[call-overload]

    def started(self) -> None:
        self("start", "web", "--wait")
        self("stop", "web", "--force")

    def warm(self, again: bool) -> float:
        """Seconds of `up --warm` of a machine that is not there."""
        self("down", "warm.yaml", "--disks", "--yes", "--force")
        begin = monotonic()
        said = subprocess.run([self.program, "up", "warm.yaml", "--warm"], capture_output=True, text=True)
        assert said.returncode == 0 and ("resumed in" in said.stderr) == again, said.stderr
        return monotonic() - begin


def bare() -> None:
    """The same guest by a QEMU command line, until its log-in prompt."""
    create = "qemu-img create -q -f qcow2 -F qcow2 -b /payload/tiny.qcow2 bench.qcow2"
    subprocess.run(create.split(), check=True)
    argv = "qemu-system-x86_64 -machine q35,accel=kvm -cpu host -m 512 -nodefaults -display none -serial stdio"
    argv += " -drive file=bench.qcow2,if=virtio,format=qcow2 -nic user,model=virtio-net-pci"
    process = subprocess.Popen(argv.split(), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    seen = b""
    while b"login: " not in seen:
        block = os.read(process.stdout.fileno(), 4096)
        assert block, seen
        seen += block
    process.kill()
    process.wait()


def took(action: Callable[[], object], rounds: int = 3) -> float:
    found = []
    for _ in range(rounds):
        begin = monotonic()
        action()
        found.append(monotonic() - begin)
    return statistics.median(found)


def row(name: str, ours: float, other: float, what: str) -> None:
    print(f"{name} {ours:.1f} s, {ours / other:.2f} x {what} ({other:.1f} s)")


def main() -> None:
    ours = Bench(sys.argv[1])
    ours("stop", "web", "--force")
    start = took(ours.started)
    row("start to ready and off", start, took(bare), "bare QEMU")
    empty = took(lambda: subprocess.run([sys.executable, "-c", "import click"], check=True))
    ours("start", "web", "--wait")
    row("get", took(lambda: ours("get")), empty, "a Python with click")
    row("up with nothing to do", took(lambda: ours("up", "tiny.yaml")), empty, "a Python with click")
    row("snapshot restore", took(lambda: ours("snapshot", "restore", "web", "point", "--yes")), start, "start and off")
    ours("down", "tiny.yaml", "--force")
    Path("warm.yaml").write_text(WARM)
    first = ours.warm(False)
    row("up --warm", statistics.median(ours.warm(True) for _ in range(3)), first, "its first boot")
    ours("down", "warm.yaml", "--disks", "--yes", "--force")
    ours("up", "tiny.yaml")


if __name__ == "__main__":
    main()
