"""Checkpoints of a guest that counts on its disk and in its memory: consistent, as often as wanted, over kills."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import KEPT, TINY, Real, empty_disk, killed, seeded
from tests.e2e.test_firmware import put
from tests.growth import patience
from tests.guests import efi

pytestmark = pytest.mark.e2e

# Each round: what the disk says must be what the memory says, and what the TPM says too; then all are one more.
COUNTER = r"""
[ -e /dev/vdb ] && [ -b /dev/vdc ] && D=/dev/vdb || D=/dev/vda1
mkdir -p /d; mount $D /d 2>/dev/null || { mke2fs $D >/dev/null; mount $D /d; }
[ -f /d/n ] && echo "FOUND $(cat /d/n)"
echo 0 > /d/n; sync
pcr() { [ -e /dev/tpm0 ] || return; exec 3<>/dev/tpm0; printf "$1" >&3; head -c 200 <&3 | md5sum; exec 3>&-; }
(n=0; p=$(pcr 'READ'); while :; do
  m=$(cat /d/n); [ "$m" = "$n" ] || echo "MISMATCH disk $m memory $n" > /dev/ttyS0
  q=$(pcr 'READ'); [ "$q" = "$p" ] || echo "MISMATCH TPM $q memory $p" > /dev/ttyS0
  n=$((n+1)); echo $n > /d/n.new; mv /d/n.new /d/n; sync; echo 3 > /proc/sys/vm/drop_caches
  pcr 'EXTEND' >/dev/null; p=$(pcr 'READ')
  [ -e /dev/tpm0 ] && { [ "$p" = "$q" ] && echo "MISMATCH TPM took nothing" > /dev/ttyS0 || T=1; }
  echo "COUNT $n${T:+ TPM}" > /dev/ttyS0; sleep 0.5
done) &
echo COUNTING
"""
# TPM2_PCR_Read and TPM2_PCR_Extend of PCR 16 in the SHA-256 bank (TCG, part 3).
_TPM = {
    "READ": "8001 00000014 0000017e 00000001 000b 03 000001",
    "EXTEND": "8002 00000041 00000182 00000010 00000009 40000009 0000 00 0000 00000001 000b " + "2a" * 32,
}
for _name, _hex in _TPM.items():
    COUNTER = COUNTER.replace(f"'{_name}'", "'" + "".join(f"\\{b:03o}" for b in bytes.fromhex(_hex)) + "'")


def counts(real: Real, since: int = 0) -> list[int]:
    lines = real("logs", "web").out[since:].rpartition("\n")[0].splitlines()  # the last one may not be whole yet
    return [int(line.split()[1]) for line in lines if line.startswith("COUNT ") and line.split()[1].isdigit()]


def wait_for(real: Real, least: int, since: int, timeout: float = 40) -> list[int]:
    deadline = time.monotonic() + patience(timeout)
    while time.monotonic() < deadline:
        found = counts(real, since)
        if found and found[-1] >= least:
            return found
        time.sleep(0.3)
    raise AssertionError(real("logs", "web").out[since:][-2000:])


Base = tuple[int, int]


def taken(real: Real, name: str) -> Base:
    """Take a checkpoint; the counts between which it was, however long that took."""
    before = (counts(real) or [0])[-1]
    made = real("snapshot", "create", "web", name)
    assert made.code == 0, made.err
    return before, wait_for(real, 0, 0)[-1]  # one that has just been started anew has not counted yet


def since_the_drop(found: list[int], base: Base) -> list[int]:
    """The counts from where they are the checkpoint's again."""
    at = next((i for i, n in enumerate(found) if base[0] < n <= base[1] + 1), len(found))
    return found[at:]


KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


def killed_at(real: Real, call: str, when: int, *words: str) -> int:
    """The exit code of a command that is killed at its n-th system call of this name (strace), if it comes to that."""
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={when}"]
    argv = [*real.host.enter, *strace, sys.executable, "-m", "hikube_local", *words]
    return subprocess.run(argv, env=real.env, capture_output=True, timeout=patience(120)).returncode


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
    at = taken(real, "one")
    wait_for(real, at[1] + 4, 0)
    second = taken(real, "two")
    rows = real("snapshot", "list", "web", "-o", "json").json
    assert [(r["name"], r["memory"]) for r in rows] == [("one", True), ("two", True)]
    for name, base in (("one", at), ("two", second), ("one", at), ("one", at)):
        before = length(real)
        back = real("snapshot", "restore", "web", name, "--yes")
        assert back.code == 0, back.err
        deadline = time.monotonic() + patience(40)
        # A count may still have come between the look and the way back.
        while len(after := since_the_drop(counts(real, before), base)) < 3 and time.monotonic() < deadline:
            time.sleep(0.3)
        assert len(after) >= 3, (name, base, counts(real, before))
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
    assert back.code == 0 and "restored to configured" in back.out, back.err
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
    assert gone.code == 0 and "its snapshots are kept (cold, auto-1, auto-2)" in gone.err, gone.err
    folder = real.home / "state" / "checkpoints" / "default" / "web"
    assert sorted(p.name for p in folder.iterdir()) == ["auto-1", "auto-2", "cold"]
    assert real("down", "--disks", "--yes").code == 0
    assert not folder.exists()


@pytest.mark.full
def test_a_disk_does_not_grow_a_layer_with_each_machine_that_used_it(real: Real):
    """`up`, `down`, `up`, `down`: the first boot's layer goes with its machine, also when the `down` is killed."""
    note = "mkdir -p /d; mount /dev/vda1 /d; [ -f /d/n ] && echo FOUND $(cat /d/n)\nn=$(cat /d/n || echo 0); echo $((n+1)) > /d/n; sync"
    path = real.file("m.yaml", seeded(TINY, note))
    for turn, kill in enumerate([None, None, ("rename", 2), ("rename", 4), ("unlink", 3)]):
        result = real("up", path)
        assert result.code == 0 and "checkpoint configured" in result.err, result.err
        assert turn == 0 or on_disk(real) == turn
        assert len(layers_of(real)) == 2
        assert real("stop", "web", "--force").code == 0
        if kill:
            assert killed_at(real, *kill, "down", "web", "--force") in KILLED
        gone = real("down", "web", "--force")
        assert gone.code == 0, gone.err
        assert layers_of(real) == ["disk.qcow2"]
        assert not (real.home / "state" / "checkpoints" / "default" / "web").exists()


def on_disk(real: Real) -> int:
    """The count that the guest found on its disk when it was started last."""
    lines = [line for line in real("logs", "web").out.splitlines() if line.startswith("FOUND ")]
    assert lines, real("logs", "web").out[-2000:]
    return int(lines[-1].split()[1])


def layers_of(real: Real) -> list[str]:
    folder = real.home / "state" / "disks" / "default" / "sys"
    return sorted(p.name for p in folder.glob("*.qcow2"))


def back_to(real: Real, name: str, base: Base) -> None:
    before = length(real)
    back = real("snapshot", "restore", "web", name, "--yes")
    assert back.code == 0, back.err
    deadline = time.monotonic() + patience(40)
    while not (after := since_the_drop(counts(real, before), base)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert after, (name, base, counts(real, before))


@pytest.mark.full
def test_a_chain_is_as_long_as_there_are_checkpoints(counting: Real):
    """Layers that nobody stands on are merged, while the machine runs and while it is off; what is left stays right."""
    real = counting
    at = {}
    for name in ("a", "b", "c"):
        at[name] = taken(real, name)
        wait_for(real, at[name][1] + 2, 0)
    assert len(layers_of(real)) == 4
    gone = real("snapshot", "delete", "web", "b", "--yes")
    assert gone.code == 0 and "1 layer merged" in gone.err, gone.err
    assert len(layers_of(real)) == 3
    for name in ("a", "c"):
        back_to(real, name, at[name])
    assert real.status()["printableStatus"] == "Running"
    assert "nothing changed" in real("up", "--no-checkpoint", real.home / "files" / "m.yaml").err
    last = wait_for(real, at["c"][1] + 4, 0)[-1]
    assert real("stop", "web", "--force").code == 0
    gone = real("snapshot", "delete", "web", "c", "--yes")
    assert gone.code == 0 and "merged" in gone.err, gone.err
    gone = real("snapshot", "delete", "web", "a", "--yes")
    assert gone.code == 0 and layers_of(real) == ["disk.qcow2"], gone.err
    assert real("start", "web", "--wait").code == 0
    assert on_disk(real) >= last
    assert "MISMATCH" not in real("logs", "web").out


@pytest.mark.full
def test_a_disk_that_grew_and_one_that_was_added_since(counting: Real):
    real = counting
    base = taken(real, "one")
    text = seeded(TINY, COUNTER)
    large = real.file("large.yaml", text.replace("storage: 1Gi", "storage: 2Gi"))
    assert real("up", "--no-checkpoint", large).code == 0
    assert real("get", "vmdisk", "sys", "-o", "json").json["status"]["capacity"] == 2 << 30
    second = taken(real, "two")
    # Back to when it was smaller: it is so again, and grows with the next `up`, while the machine runs.
    back_to(real, "one", base)
    assert real("get", "vmdisk", "sys", "-o", "json").json["status"]["capacity"] == 1 << 30
    grown = real("up", "--no-checkpoint", large)
    assert grown.code == 0 and "growing" in grown.err, grown.err
    back_to(real, "two", second)
    assert real("get", "vmdisk", "sys", "-o", "json").json["status"]["capacity"] == 2 << 30
    # With a disk more it is another machine than the one whose memory lies there.
    more = text.replace("storage: 1Gi", "storage: 2Gi").replace("disks: [sys]", "disks: [sys, data]") + empty_disk(
        "data"
    )
    added = real.file("more.yaml", more)
    assert real("up", "--no-checkpoint", "--restart", added).code == 0
    refused = real("snapshot", "restore", "web", "two", "--yes")
    assert refused.code == 1 and "has changed since" in refused.err and "restore the earlier manifest" in refused.err
    third = taken(real, "three")
    back_to(real, "three", third)
    # The manifest as it was: its memory fits again, and the disk that is not in it stays.
    assert real("up", "--no-checkpoint", "--restart", large).code == 0
    back_to(real, "two", second)
    assert real("get", "vmdisk", "data").code == 0
    assert "MISMATCH" not in real("logs", "web").out


def whole(real: Real) -> None:
    """Each layer's header names a file that is there: qemu-img reads every chain to its end."""
    folder = real.home / "state" / "disks" / "default" / "sys"
    for path in folder.glob("*.qcow2"):
        words = ["qemu-img", "info", "-U", "--backing-chain", path]
        # The image below has its cache's path, as seen from here.
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, (path.name, done.stderr)


@pytest.mark.full
def test_merging_leaves_other_branches_as_they_are(counting: Real):
    """A way back makes a branch; of the branch that does not run nothing is merged, and nothing is lost."""
    real = counting
    at = {}
    for name in ("z", "a", "b"):
        at[name] = taken(real, name)
        wait_for(real, at[name][1] + 2, 0)
    back_to(real, "z", at["z"])
    gone = real("snapshot", "delete", "web", "a", "--yes")
    assert gone.code == 0 and "merged" not in gone.err, gone.err
    assert "nothing changed" in real("up", "--no-checkpoint", real.home / "files" / "m.yaml").err
    back_to(real, "b", at["b"])
    # And one whose upper layer has two children, of which one is open.
    at["c"] = taken(real, "c")
    back_to(real, "b", at["b"])
    gone = real("snapshot", "delete", "web", "z", "--yes")
    assert gone.code == 0, gone.err
    whole(real)
    for name in ("c", "b"):
        back_to(real, name, at[name])
    assert real("stop", "web", "--force").code == 0
    for name in ("b", "c"):
        assert real("snapshot", "delete", "web", name, "--yes").code == 0
    assert layers_of(real) == ["disk.qcow2"]
    whole(real)
    assert real("start", "web", "--wait").code == 0
    assert "MISMATCH" not in real("logs", "web").out


@pytest.mark.full
@pytest.mark.parametrize("state", ["running", "off"])
def test_a_merge_that_is_killed_loses_nothing(counting: Real, state: str):
    """Killed at its system calls that rename or remove (strace): whatever was done, the next command ends it."""
    real = counting
    at = {}
    for name in ("a", "b", "c"):
        at[name] = taken(real, name)
        wait_for(real, at[name][1] + 2, 0)
    last = counts(real)[-1]
    if state == "off":
        assert real("stop", "web", "--force").code == 0
    killed = []
    for turn, (call, when) in enumerate([("rename", n) for n in (1, 2, 3, 4, 5)] + [("unlink", 1), ("unlink", 2)]):
        name = f"k{turn}"
        assert real("snapshot", "create", "web", name).code == 0
        assert real("snapshot", "create", "web", f"{name}-top").code == 0
        code = killed_at(real, call, when, "snapshot", "delete", "web", name, "--yes")
        note = real.home / "state" / "machines" / "default" / "web" / "pending.json"
        killed.append((code, json.loads(note.read_text())["down"] if note.exists() else None))
        if state == "off":
            # The very next command is a start: what was cut short must not stand in its way.
            assert real("start", "web", "--wait").code == 0
            assert on_disk(real) >= last
            last = wait_for(real, 2, 0)[-1]
            assert real("stop", "web", "--force").code == 0
        settled = real("snapshot", "list", "web", "-o", "json")
        assert settled.code == 0 and {"a", "b", "c"} <= {r["name"] for r in settled.json}
        if any(r["name"] == name for r in settled.json):
            assert real("snapshot", "delete", "web", name, "--yes").code == 0
        assert real("snapshot", "delete", "web", f"{name}-top", "--yes").code == 0
    assert all(code in KILLED for code, _ in killed[:3]), killed
    assert {False, True} <= {down for _, down in killed}, ("before and after the content was below", killed)
    if state == "off":
        assert real("start", "web", "--wait").code == 0
        assert on_disk(real) >= last
    for name in ("b", "a", "c"):
        back_to(real, name, at[name])
    assert "MISMATCH" not in real("logs", "web").out


@pytest.mark.full
@pytest.mark.parametrize("firmware", ["BIOS", "EFI with TPM"])
def test_fifty_ways_back_without_a_mismatch(real: Real, tiny_image: Path, firmware: str):
    text = seeded(TINY, COUNTER)
    if firmware != "BIOS":
        put(real, efi.make(tiny_image, KEPT / "test-guests"))
        for old, new in (("alpine", "windows.2k22.virtio"), ("u1.nano", "u1.medium"), ("[sys]", "[sys, data]")):
            text = text.replace(old, new)
        text += empty_disk("data")
    result = real("up", "--no-checkpoint", real.file("m.yaml", text))
    assert result.code == 0, result.err
    wait_for(real, 3, 0)
    base = taken(real, "one")
    for turn in range(50):
        before = length(real)
        back = real("snapshot", "restore", "web", "one", "--yes")
        assert back.code == 0, (turn, back.err)
        deadline = time.monotonic() + patience(40)
        while not (after := since_the_drop(counts(real, before), base)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert after, (turn, base, counts(real, before))
    wait_for(real, base[1] + 4, before)
    assert "MISMATCH" not in real("logs", "web").out
    assert (f"COUNT {base[1] + 4} TPM" in real("logs", "web").out[before:]) is (firmware != "BIOS")


def begun(real: Real, delay: float, *words: str) -> subprocess.Popen[bytes]:
    """A command that has run for `delay` seconds."""
    argv = [*real.host.enter, sys.executable, "-m", "hikube_local", *words]
    child = subprocess.Popen(argv, env=real.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    return child


def kill(real: Real, program: str) -> None:
    for pid in real.processes():
        with contextlib.suppress(OSError):
            if program in os.readlink(f"/proc/{pid}/exe"):
                killed(pid)


@pytest.mark.full
def test_qemu_killed_in_the_middle_of_a_checkpoint(counting: Real):
    """The machine is off then, as after a power cut: one `up` brings it back, with what its disk had."""
    real = counting
    for delay in (0.35, 0.55, 0.8):
        last = counts(real)[-1]
        child = begun(real, delay, "snapshot", "create", "web", f"q{int(delay * 100)}")
        kill(real, "/qemu-system")
        child.wait()
        healed = real("up", "--no-checkpoint", real.home / "files" / "m.yaml")
        assert healed.code == 0, healed.err
        wait_for(real, 2, 0)
        assert on_disk(real) >= last
    assert "MISMATCH" not in real("logs", "web").out
    assert real("snapshot", "create", "web", "after").code == 0
    assert real("snapshot", "restore", "web", "after", "--yes").code == 0


@pytest.mark.parametrize("who", ["us", pytest.param("libvirtd", marks=pytest.mark.full)])
def test_a_kill_in_the_middle_is_healed(counting: Real, who: str):
    """At several moments: afterwards one `up` brings the machine back, and no count is lost on its disk."""
    real = counting
    for delay in (0.35, 0.55, 0.8):
        last = counts(real)[-1]  # first: what the guest counts meanwhile comes behind `before`, and is no less
        before = length(real)
        child = begun(real, delay, "snapshot", "create", "web", f"k{int(delay * 100)}")
        if who == "us":
            child.kill()
        else:
            kill(real, "/libvirtd")
        child.wait()
        healed = real("up", "--no-checkpoint", real.home / "files" / "m.yaml")
        assert healed.code == 0, healed.err
        found = wait_for(real, last + 2, before)
        assert found[0] >= last, "no count is lost"
    assert "MISMATCH" not in real("logs", "web").out
    taken = real("snapshot", "create", "web", "after")
    assert taken.code == 0, taken.err
    assert real("snapshot", "restore", "web", "after", "--yes").code == 0


@pytest.mark.parametrize(
    "points",
    [
        pytest.param([("rename", 2), ("rename", 4)], id="sample"),
        pytest.param(
            [("rename", n) for n in (1, 3, 5, 6, 7)] + [("unlink", n) for n in (1, 2, 3)],
            id="all",
            marks=pytest.mark.full,
        ),
    ],
)
def test_a_way_back_that_is_killed_is_gone_to_its_end(counting: Real, points: list[tuple[str, int]]):
    """Killed at its system calls that rename or remove (strace): one `up` brings the machine up, whole, and the way back
    can be gone again."""
    real = counting
    base = taken(real, "a")
    wait_for(real, base[1] + 3, 0)
    killed = 0
    for call, when in points:
        killed += killed_at(real, call, when, "snapshot", "restore", "web", "a", "--yes") in KILLED
        before = length(real)
        healed = real("up", "--no-checkpoint", real.home / "files" / "m.yaml")
        assert healed.code == 0, (call, when, healed.err)
        assert wait_for(real, 2, before), (call, when)
        back_to(real, "a", base)
    assert killed >= len(points) / 2
    assert "MISMATCH" not in real("logs", "web").out


@pytest.mark.full
@pytest.mark.parametrize("program", ["/qemu-system", "/libvirtd"])
def test_a_way_back_under_which_the_machine_dies_is_healed(counting: Real, program: str):
    real = counting
    base = taken(real, "a")
    wait_for(real, base[1] + 3, 0)
    for delay in (0.4, 0.6, 0.9, 1.3):
        child = begun(real, delay, "snapshot", "restore", "web", "a", "--yes")
        kill(real, program)
        child.wait()
        before = length(real)
        healed = real("up", "--no-checkpoint", real.home / "files" / "m.yaml")
        assert healed.code == 0, (delay, healed.err)
        assert wait_for(real, 2, before), delay
        back_to(real, "a", base)
    assert "MISMATCH" not in real("logs", "web").out
