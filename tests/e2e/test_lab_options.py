"""The options of `test`, with the tiny guest: it has no agent and no sshd, and says of its cloud-init what it likes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import TINY, TINY_URL, Real, ours, second, seeded, stock
from tests.growth import patience

pytestmark = pytest.mark.e2e

ENDS = 'echo "Cloud-init v. 22.4 finished at now, Up 3 seconds" > /dev/ttyS0'
GOOD = seeded(TINY, ENDS)
HASTE = ["--timeout-factor", "0.2"]  # how long ssh is tried for is stretched by it, too


def emptied(real: Real) -> bool:
    return list((real.home / "state" / "lab").iterdir()) == [] and ours(real.runtime.parent / "x") == []


@pytest.mark.full
def test_a_guest_that_cannot_be_entered_does_not_pass_unseen(real: Real):
    """Its console says that all is well. That is no proof, and it is said what would be one."""
    path = real.file("m.yaml", GOOD)
    unseen = real("test", path, *HASTE, "--no-warm")
    assert unseen.code == 1, unseen.out + unseen.err
    assert "cannot check what cloud-init did" in unseen.out and "--trust-console" in unseen.out
    trusted = real("test", path, *HASTE, "--no-warm", "--trust-console", "--timings")
    assert trusted.code == 0, trusted.out + trusted.err
    assert "access: none: " in trusted.out and "only the console was read" in trusted.out
    where = trusted.out.partition("where the time went:")[2]
    assert re.search(r"boot loader +\d+\.\d s", where)
    assert emptied(real)


@pytest.mark.full
def test_several_machines_and_several_images_are_tried_at_once(real: Real, tiny_image: Path):
    stock(real.home, "http://tiny.invalid/other.qcow2", tiny_image)
    two = GOOD + "---\n" + seeded(second(TINY, "db"), ENDS)
    words = ["--image", TINY_URL, "--image", "http://tiny.invalid/other.qcow2", "--trust-console", "--no-warm"]
    result = real("test", real.file("m.yaml", two), *HASTE, *words)
    assert result.code == 0, result.out + result.err
    rows = [line.split("|")[1:3] for line in result.out.splitlines() if line.startswith("| ") and "passed" in line]
    assert sorted((n.strip(), r.strip()) for n, r in rows) == sorted(
        (f"{name} on {url}", "passed")
        for name in ("web", "db")
        for url in (TINY_URL, "http://tiny.invalid/other.qcow2")
    )
    assert emptied(real)


def test_kept_machines_are_entered_and_ended_with_the_words_that_were_printed(real: Real):
    result = real("test", real.file("m.yaml", GOOD), *HASTE, "--trust-console", "--keep")
    assert result.code == 0, result.err
    home = re.search(r"kept: HIKUBE_LOCAL_HOME=(\S+) hikube-local ssh web -n default", result.err)
    end = re.search(r"remove: HIKUBE_LOCAL_HOME=(\S+) hikube-local (purge -A --disks)", result.err)
    assert home and end and home[1] == end[1]
    inside = {"HIKUBE_LOCAL_HOME": home[1]}
    (row,) = real("get", "vm", "-o", "json", env=inside).json["items"]
    assert row["status"]["printableStatus"] == "Running"
    assert real("get", "vm", "-A", "-o", "json").json["items"] == []
    assert real(*end[2].split(), "--yes", env=inside).code == 0
    assert real("purge", "-A", "--disks", "--yes").code == 0
    assert not (real.home / "state" / "lab").exists() or emptied(real)


def test_deadlines_are_stretched_by_the_factor(real: Real):
    """By the option and by the variable, which `up` follows too; nonsense is refused."""
    path = real.file("m.yaml", seeded(TINY, "sleep 1000"))
    short = real("test", path, "--timeout", "100s", "--timeout-factor", "0.05")
    assert short.code == 3 and "timed out after 5 s" in short.out, short.out + short.err
    again = real("test", path, "--timeout", "100s", env={"HIKUBE_LOCAL_TIMEOUT_FACTOR": "0.04"})
    assert again.code == 3 and "timed out after 4 s" in again.out, again.out + again.err
    assert real("test", path, "--timeout-factor", "0").code == 2
    assert real("test", path, "--timeout", "5x").code == 2
    nonsense = real("up", path, env={"HIKUBE_LOCAL_TIMEOUT_FACTOR": "soon"})
    assert nonsense.code == 2 and "HIKUBE_LOCAL_TIMEOUT_FACTOR is 'soon'" in nonsense.err


@pytest.mark.full
def test_watching_tries_again_on_every_save(real: Real, tmp_path: Path):
    path = real.file("m.yaml", GOOD)
    words = [*real.host.enter, sys.executable, "-m", "hikube_local", "test", str(path), *HASTE, "--trust-console"]
    out = (tmp_path / "out").open("wb")
    child = subprocess.Popen([*words, "--watch"], env=real.env, stdout=out, stderr=subprocess.STDOUT)

    def until(what: str, times: int) -> str:
        deadline = time.monotonic() + patience(120)
        while (text := (tmp_path / "out").read_text()).count(what) < times:
            assert time.monotonic() < deadline and child.poll() is None, text
            time.sleep(0.2)
        return text

    try:
        until("waiting for a file", 1)
        path.write_text(path.read_text() + "# saved\n")
        assert "resumed from the state after cloud-init" in until("waiting for a file", 2), (
            "nothing relevant has changed"
        )
        path.write_text("kind: [\n")
        assert "nothing was changed" in until("waiting for a file", 3) or "error[" in until("waiting for a file", 3)
        child.send_signal(signal.SIGINT)
        assert child.wait(30) in (130, -signal.SIGINT)
    finally:
        child.kill()
        child.wait()
        out.close()
    assert emptied(real)


def test_the_json_and_the_table_for_ci_say_the_same(real: Real, tmp_path: Path):
    summary = tmp_path / "summary.md"
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    result = real("test", real.file("m.yaml", GOOD), *HASTE, "--no-warm", "-o", "json", env=env)
    (row,) = json.loads(result.out)
    assert result.code == 1 and row["result"] == "failed" and "| web | failed |" in summary.read_text()
    assert "::error file=" in result.err and row["cause"] in result.err
