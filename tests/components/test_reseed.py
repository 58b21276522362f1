"""The line that gives a guest new randomness after a way back, run by a real shell and looked at from below."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hikube_local.backends.qemu.machine.refresh import RESEED
from tests.growth import patience


def test_the_kernel_is_given_all_of_it_and_told_to_take_it_up(tmp_path: Path):
    seed, trace = b"sixty-four bytes of randomness, which a way back brings along...", tmp_path / "trace"
    argv = ["strace", "-f", "-qq", "-y", "-s", "100", "-e", "trace=write,ioctl", "-o", trace, "/bin/sh", "-c"]
    done = subprocess.run([*argv, f"{RESEED} echo on"], input=seed, capture_output=True, timeout=patience(30))
    assert done.stdout == b"on\n", "what stands behind it does not wait for it"
    calls = trace.read_text()
    assert any("/dev/urandom>" in line and seed.decode() in line for line in calls.splitlines()), calls
    assert "ioctl(3</dev/urandom>, RNDRESEEDCRNG)" in calls
