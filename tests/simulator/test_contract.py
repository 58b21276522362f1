"""The contract on the simulator, and the sweep that kills the program at each of its steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Program
from tests.contract import Contract
from tests.growth import patience

SIMULATED = """\
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata: {name: sys}
spec: {storage: 1Gi}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {name: web}
spec:
  external: true
  externalPorts: [22, 80]
  instanceType: u1.nano
  instanceProfile: alpine
  disks: [sys]
"""


class TestSimulator(Contract):
    @pytest.fixture
    def program(self, hikube: Program) -> Program:
        hikube.env["HIKUBE_LOCAL_BACKEND"] = "simulator"
        return hikube

    @pytest.fixture
    def manifest(self) -> str:
        return SIMULATED


# Runs the program in-process and kills it with SIGKILL before its Nth step or transaction, whoever writes it.
KILLER = """
import os, signal, sys
from hikube_local.backends.simulator import Simulator
from hikube_local.store.file import File
count = [int(sys.argv[1])]
def counted(owner, name):
    real = getattr(owner, name)
    def wrapped(*a, **k):
        count[0] -= 1
        if count[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*a, **k)
    setattr(owner, name, wrapped)
counted(Simulator, 'perform')
counted(File, 'write')
from hikube_local.cli.main import run
sys.exit(run(sys.argv[2:]))
"""


def killed_at(program: Program, n: int, *words: object) -> bool:
    """Run a command and kill it at its nth point; False when it ended before."""
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(n), *map(str, words)],
        env=program.env,
        capture_output=True,
        timeout=patience(60),
        cwd=program.folder,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


@pytest.mark.parametrize("verb", ["up", "down"])
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.full)])
def test_killed_at_every_step_the_next_up_heals(hikube: Program, verb: str, every: int):
    """In `make test` a third of the points, in `make test-all` all of them."""
    hikube.env["HIKUBE_LOCAL_BACKEND"] = "simulator"
    path = hikube.file("m.yaml", SIMULATED)
    words = ("up", path) if verb == "up" else ("down", "--disks", "--yes")
    points = 0
    for n in range(1, 200, every):
        if verb == "down":
            assert hikube("up", path).code == 0
        if not killed_at(hikube, n, *words):
            break
        points += 1
        # Looking works in every half-made state.
        assert hikube("get", "-A", "-o", "json").code == 0
        if verb == "down":
            assert hikube("down", "--disks", "--yes").code == 0
            assert hikube("get", "-A").out == ""
            continue
        assert hikube("up", path).code == 0
        found = {i["metadata"]["name"]: i["status"] for i in hikube("get", "-o", "json").json["items"]}
        assert found["web"]["printableStatus"] == "Running" and found["sys"]["phase"] == "Succeeded"
        assert "nothing changed" in hikube("up", path).err
        assert hikube("down", "--disks", "--yes").code == 0
    assert points * every > 8, "the sweep did not walk through the steps"


def _sweep(call: str, tmp_path: Path, n: int, argv: list[str], env: dict[str, str]) -> int:
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={n}", *argv]
    return subprocess.run(strace, env=env, capture_output=True, timeout=patience(60)).returncode


@pytest.mark.full
@pytest.mark.parametrize("call", ["write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "ftruncate"])
def test_killed_at_system_calls(hikube: Program, call: str):
    """Every such call of `up`, one after the other, from the state that the kill before left."""
    hikube.env["HIKUBE_LOCAL_BACKEND"] = "simulator"
    path = hikube.file("m.yaml", SIMULATED)
    argv = [sys.executable, "-m", "hikube_local", "up", str(path)]
    for n in range(1, 120):
        code = _sweep(call, hikube.home, n, argv, hikube.env)
        if code == 0:
            break
        assert hikube("up", path).code == 0
        assert "nothing changed" in hikube("up", path).err
        assert hikube("down", "--disks", "--yes").code == 0
    assert hikube("get", "-A", "-o", "json").code == 0


def test_a_disk_full_of_something_else_is_told(hikube: Program, tmp_path: Path):
    """ENOSPC in the store is a sentence, and the next run with space succeeds."""
    hikube.env["HIKUBE_LOCAL_BACKEND"] = "simulator"
    path = hikube.file("m.yaml", SIMULATED)
    argv = [sys.executable, "-m", "hikube_local", "up", str(path)]
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=pwrite64:error=ENOSPC", *argv]
    done = subprocess.run(strace, env=hikube.env, capture_output=True, text=True, timeout=patience(60))
    assert done.returncode == 1 and "Traceback" not in done.stderr and "HK604" in done.stderr
    assert hikube("up", path).code == 0


def test_json_events_are_kept(hikube: Program):
    hikube.env["HIKUBE_LOCAL_BACKEND"] = "simulator"
    hikube("up", hikube.file("m.yaml", SIMULATED))
    assert json.loads(hikube("events", "-o", "json").out)
    assert os.stat(hikube.home / "state" / "store.sqlite").st_mode & 0o777 == 0o600
