"""`up --warm`: a guest that counts comes from the state after its first boot, and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import TINY, Real, second, seeded
from tests.e2e.test_checkpoints import COUNTER, KILLED, counts, killed_at, wait_for

pytestmark = pytest.mark.e2e

RESUMED, KEPT, COLD = "resumed in", "is kept for warm starts", "no warm start"


def away(real: Real, *of: Path) -> None:
    gone = real("down", *of, "--disks", "--yes", "--force")
    assert gone.code == 0, gone.err


@pytest.fixture
def kept(real: Real) -> tuple[Real, Path]:
    """A machine that was configured once with --warm, and taken away with its disks."""
    path = real.file("m.yaml", seeded(TINY, COUNTER))
    first = real("up", "--warm", path)
    assert first.code == 0 and KEPT in first.err and RESUMED not in first.err, first.err
    wait_for(real, 3, 0)
    away(real)
    return real, path


def as_it_should_be(real: Real) -> None:
    """It counts, and what its disk says is what its memory says."""
    wait_for(real, (counts(real) or [0])[-1] + 2, 0)
    log = real("logs", "web").out
    assert "MISMATCH" not in log and "FOUND" not in log, log[-2000:]
    assert real.status()["printableStatus"] == "Running"


def test_it_goes_on_from_the_state_after_its_first_boot(kept):
    real, path = kept
    back = real("up", "--warm", path)
    assert back.code == 0 and RESUMED in back.err, back.err
    as_it_should_be(real)
    assert "nothing changed" in real("up", "--warm", path).err
    # It is an ordinary machine: reset, its snapshots, off and on.
    assert [r["name"] for r in real("snapshot", "list", "web", "-o", "json").json] == ["configured"]
    reset = real("reset", "web", "--yes")
    assert reset.code == 0, reset.err
    as_it_should_be(real)
    assert real("restart", "web", "--wait", "--force").code == 0
    wait_for(real, 2, 0)
    assert not list(real.home.rglob("aside.qcow2")) and not list(real.home.rglob("warm.json"))
    # Its disk stays when it goes, and is not what was kept.
    assert real("down", "web", "--force").code == 0
    again = real("up", "--warm", path)
    assert again.code == 0 and COLD in again.err and RESUMED not in again.err, again.err
    # What was kept is what it was: another one comes from it.
    away(real)
    assert RESUMED in real("up", "--warm", path).err
    as_it_should_be(real)
    assert "Warm states" in real("system", "df").out


@pytest.mark.full
def test_what_must_not_match_boots(kept):
    real, path = kept
    text = path.read_text()
    others = {
        "other user-data": text.replace("echo COUNTING", "echo STILL COUNTING"),
        "another size": text.replace("u1.nano", "u1.micro"),
        "a larger disk": text.replace("storage: 1Gi", "storage: 2Gi"),
        "another identity": text.rstrip("\n") + "\n  cloudInitSeed: other\n",
        "not by its annotation": text.replace("{name: web}", '{name: web, annotations: {hikube.local/warm: "false"}}'),
    }
    for why, other in others.items():
        up = real("up", "--warm", real.file("other.yaml", other))
        assert up.code == 0 and RESUMED not in up.err, (why, up.err)
        away(real)
    assert RESUMED not in (cold := real("up", path)).err, cold.err
    away(real)
    asked = text.replace("{name: web}", '{name: web, annotations: {hikube.local/warm: "true"}}')
    assert RESUMED in real("up", real.file("asked.yaml", asked)).err


@pytest.mark.full
def test_killed_anywhere_it_boots_or_goes_on_whole(kept):
    real, path = kept
    # A machine that stays, so that nothing which outlives the command is begun under strace, which would wait for it.
    assert real("up", "--no-checkpoint", real.file("stays.yaml", second(TINY, "stays"))).code == 0
    died = []
    for call, when in (
        *(("rename", n) for n in (1, 3, 6, 9)),
        *(("link", n) for n in (1, 2)),
        *(("unlink", n) for n in (1, 4, 8, 14)),
    ):
        died.append(killed_at(real, call, when, "up", "--warm", str(path)) in KILLED)
        up = real("up", "--warm", path)
        assert up.code == 0, (call, when, up.err)
        as_it_should_be(real)
        assert not list(real.home.rglob("aside.qcow2")) and not list(real.home.rglob("warm.json")), (call, when)
        away(real, path)
    assert sum(died) >= 5, died


@pytest.mark.full
def test_a_state_that_is_damaged_is_given_up_and_the_machine_boots(kept):
    real, path = kept
    (state,) = (p for p in (real.home / "state" / "warm").iterdir() if p.is_dir())
    memory = state / "checkpoint" / "memory"
    memory.write_bytes(memory.read_bytes()[:4096])
    up = real("up", "--warm", path)
    assert up.code == 0 and "the machine boots" in up.err, up.err
    as_it_should_be(real)
    away(real)
    assert RESUMED in real("up", "--warm", path).err, "the new first boot was kept"


@pytest.mark.full
def test_two_machines_each_come_from_their_own(real: Real):
    pair = seeded(TINY, COUNTER) + "---\n" + seeded(second(TINY, "api"), COUNTER)
    path = real.file("m.yaml", pair)
    assert real("up", "--warm", path).err.count(KEPT) == 2
    wait_for(real, 2, 0)
    away(real)
    back = real("up", "--warm", path)
    assert back.code == 0 and back.err.count(RESUMED) >= 2, back.err
    as_it_should_be(real)
    assert real.status("api")["printableStatus"] == "Running"
