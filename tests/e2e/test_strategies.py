"""A guest that powers itself off, under each run strategy; and `stop`, which wins over all of them."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import TINY, Real, seeded

pytestmark = pytest.mark.e2e

# Off at the first boot, by itself; the second one stays.
ONCE_OFF = "mkdir -p /d; mount /dev/vda1 /d; if [ ! -e /d/mark ]; then touch /d/mark; sync; umount /d; poweroff -f; fi"


def manifest(strategy: str) -> str:
    return seeded(TINY + f"  runStrategy: {strategy}\n", ONCE_OFF)


def boots(real: Real) -> int:
    return sum("init started" in line for line in real("logs", "web").out.splitlines())


def test_always_comes_back_and_stop_wins(real: Real):
    result = real("up", "--no-checkpoint", real.file("m.yaml", manifest("Always")))
    assert result.code == 0, result.err
    assert boots(real) == 2 and real.status()["printableStatus"] == "Running"
    assert real("stop", "web", timeout=60).code == 0
    assert real.status()["printableStatus"] == "Stopped" and boots(real) == 2
    assert real("start", "web", "--wait").code == 0


@pytest.mark.parametrize("strategy", ["Once", pytest.param("RerunOnFailure", marks=pytest.mark.full)])
def test_once_stays_off(real: Real, strategy: str):
    result = real("up", "--no-checkpoint", real.file("m.yaml", manifest(strategy)))
    assert result.code == 1 and "powered itself off" in result.err
    assert real.status()["printableStatus"] == "Stopped" and boots(real) == 1
    again = real("up", "--no-checkpoint", real.file("m.yaml", manifest(strategy)))
    assert boots(real) == 1, again.err
    assert real("start", "web", "--wait").code == 0 and real.status()["printableStatus"] == "Running"
