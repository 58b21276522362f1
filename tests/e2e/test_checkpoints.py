"""Checkpoints of a guest that counts on its disk and in its memory: consistent, as often as wanted, over kills."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest

from tests.e2e.conftest import TINY, Real, empty_disk
from tests.e2e.test_disks import seeded

pytestmark = pytest.mark.e2e

# Each round: what the disk says must be what the memory says; then both are one more.
COUNTER = r"""
mkdir -p /d; mount /dev/vda1 /d; echo 0 > /d/n; sync
(n=0; while :; do
  m=$(cat /d/n); [ "$m" = "$n" ] || echo "MISMATCH disk $m memory $n" > /dev/ttyS0
  n=$((n+1)); echo $n > /d/n.new; mv /d/n.new /d/n; sync; echo 3 > /proc/sys/vm/drop_caches
  echo "COUNT $n" > /dev/ttyS0; sleep 0.5
done) &
echo COUNTING
"""


def counts(real: Real, since: int = 0) -> list[int]:
    lines = real("logs", "web").out[since:].splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("COUNT ") and line.split()[1].isdigit()]


def wait_for(real: Real, least: int, since: int, timeout: float = 40) -> list[int]:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = counts(real, since)
        if found and found[-1] >= least:
            return found
        time.sleep(0.3)
    raise AssertionError(real("logs", "web").out[since:][-2000:])


def since_the_drop(found: list[int], base: int) -> list[int]:
    """The counts from where they are near the checkpoint's again."""
    at = next((i for i, n in enumerate(found) if abs(n - base) <= 3), len(found))
    return found[at:]


def length(real: Real) -> int:
    return len(real("logs", "web").out)


@pytest.fixture
def counting(real: Real) -> Real:
    result = real("up", "--no-checkpoint", real.file("m.yaml", seeded(TINY, COUNTER)))
    assert result.code == 0, result.err
    wait_for(real, 3, 0)
    return real


def test_back_and_forth_as_often_as_wanted(counting: Real):
    real = counting
    assert real("snapshot", "create", "web", "one").code == 0
    at = counts(real)[-1]
    wait_for(real, at + 4, 0)
    made = real("snapshot", "create", "web", "two")
    assert made.code == 0, made.err
    second = counts(real)[-1]
    rows = real("snapshot", "list", "web", "-o", "json").json
    assert [(r["name"], r["memory"]) for r in rows] == [("one", True), ("two", True)]
    for name, base in (("one", at), ("two", second), ("one", at), ("one", at)):
        before = length(real)
        back = real("snapshot", "restore", "web", name, "--yes")
        assert back.code == 0, back.err
        deadline = time.monotonic() + 40
        # A count may still have come between the look and the way back.
        while len(after := since_the_drop(counts(real, before), base)) < 3 and time.monotonic() < deadline:
            time.sleep(0.3)
        assert len(after) >= 3 and abs(after[0] - base) <= 3, (name, base, counts(real, before))
        assert real.status()["printableStatus"] == "Running"
    assert "MISMATCH" not in real("logs", "web").out
    # It goes on as an ordinary machine: nothing to do, and off and on again.
    assert "nothing changed" in real("up", "--no-checkpoint", real.home / "files" / "m.yaml").err
    assert real("snapshot", "delete", "web", "two", "--yes").code == 0
    assert real("restart", "web", "--wait", "--force").code == 0
    assert [r["name"] for r in real("snapshot", "list", "web", "-o", "json").json] == ["one"]
    assert real("snapshot", "restore", "web", "one").code == 2, "what is lost is asked about"
    assert real("snapshot", "create", "web", "one").code == 1


def test_reset_goes_back_to_the_first_boot_and_a_machine_that_is_off_has_checkpoints_too(real: Real):
    # With an empty disk beside the system's, which has no image below its layers.
    text = seeded(
        TINY.replace("disks: [sys]", "disks: [sys, data]"), "mkdir -p /d; mount /dev/vda1 /d; touch /d/first; sync"
    )
    path = real.file("m.yaml", text + empty_disk("data"))
    result = real("up", path)
    assert result.code == 0 and "checkpoint configured" in result.err, result.err
    assert "nothing changed" in real("up", path).err, "a checkpoint is no change of the machine"
    back = real("reset", "web", "--yes")
    assert back.code == 0 and "is back at configured" in back.out, back.err
    assert real("stop", "web", "--force").code == 0
    made = real("snapshot", "create", "web", "cold")
    assert made.code == 0, made.err
    assert real.status()["printableStatus"] == "Stopped"
    assert real("snapshot", "restore", "web", "cold", "--yes").code == 0
    assert real("start", "web", "--wait").code == 0
    for n in range(3):
        assert real("snapshot", "create", "web", f"auto-{n}", "--keep", "2").code == 0
    names = [r["name"] for r in real("snapshot", "list", "web", "-o", "json").json]
    assert names == ["configured", "cold", "auto-1", "auto-2"]
    # With the machine the checkpoint of its first boot goes; snapshots stay until the disks go.
    gone = real("down", "web", "--force")
    assert gone.code == 0 and "its snapshots stay (cold, auto-1, auto-2)" in gone.err, gone.err
    folder = real.home / "state" / "checkpoints" / "default" / "web"
    assert sorted(p.name for p in folder.iterdir()) == ["auto-1", "auto-2", "cold"]
    assert real("down", "--disks", "--yes").code == 0
    assert not folder.exists()


@pytest.mark.parametrize("who", ["us", pytest.param("libvirtd", marks=pytest.mark.full)])
def test_a_kill_in_the_middle_is_healed(counting: Real, who: str):
    """At several moments: afterwards one `up` brings the machine back, and no count is lost on its disk."""
    import subprocess
    import sys

    real = counting
    for delay in (0.35, 0.55, 0.8):
        before = length(real)
        last = counts(real)[-1]
        words = [
            *real.host.enter,
            sys.executable,
            "-m",
            "hikube_local",
            "snapshot",
            "create",
            "web",
            f"k{int(delay * 100)}",
        ]
        child = subprocess.Popen(words, env=real.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        if who == "us":
            child.kill()
        else:
            for pid in real.processes():
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/exe").endswith("/libvirtd"):
                        os.kill(pid, signal.SIGKILL)
        child.wait()
        healed = real("up", "--no-checkpoint", real.home / "files" / "m.yaml")
        assert healed.code == 0, healed.err
        found = wait_for(real, last + 2, before)
        assert found[0] >= last, "no count is lost"
    assert "MISMATCH" not in real("logs", "web").out
    taken = real("snapshot", "create", "web", "after")
    assert taken.code == 0, taken.err
    assert real("snapshot", "restore", "web", "after", "--yes").code == 0
