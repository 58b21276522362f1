"""Nothing outlives the tests: what runs them ends what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.growth import patience

ROOT = Path(__file__).parents[2]
# A daemon: its parent is gone, its session is its own.
LEAVES = (
    "setsid sh -c 'sleep 600 & echo $! > \"$1\"' x {left}; until [ -s {left} ]; do sleep 0.05; done; echo up; {then}"
)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("then", "sent", "code"), [("exit 7", None, 7), ("exec sleep 600", signal.SIGTERM, 143)])
def test_what_a_command_leaves_is_ended_with_it(tmp_path: Path, then: str, sent: int | None, code: int):
    left = tmp_path / "left"
    argv = [sys.executable, "-m", "tests.reaper", "sh", "-c", LEAVES.format(left=left, then=then)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reaper:
        assert reaper.stdout.readline() == "up\n"
        pid = int(left.read_text())
        if sent:
            assert alive(pid)
            os.kill(reaper.pid, sent)
        _, told = reaper.communicate(timeout=patience(30))
    assert reaper.returncode == code
    assert not alive(pid) and f"ended now: {pid} " in told
