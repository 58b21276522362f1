"""`test` in a tenant, and `sweep`: whatever ends a run, nothing of it stays. Nobody can log in to the simulator's machines."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import Program
from tests.endpoint import BASE, disk
from tests.growth import patience
from tests.tenant import MANIFEST, Elsewhere

LABELS = {"hikube.local/run": "abc", "hikube.local/owner": "somebody-else"}
QUICK = ("--timeout", "2s")


def there(elsewhere: Elsewhere) -> list[str]:
    found = [elsewhere.endpoint("GET", f"{BASE}/{kind}").json()["items"] for kind in ("vminstances", "vmdisks")]
    return [item["metadata"]["name"] for items in found for item in items]


def journals(elsewhere: Elsewhere) -> list[Path]:
    return sorted((elsewhere.here.home / "state" / "contexts" / "prod").rglob("runs/*"))


def outliving(elsewhere: Elsewhere) -> list[int]:
    """The processes that outlive runs of this state root."""
    found, home = [], f"HIKUBE_LOCAL_HOME={elsewhere.here.home}\0".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if b"--when-closed" in (entry / "cmdline").read_bytes() and home in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def gone(elsewhere: Elsewhere) -> None:
    deadline = time.monotonic() + patience(60)
    while left := (there(elsewhere), journals(elsewhere), outliving(elsewhere)):
        if not any(left):
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


@pytest.fixture(autouse=True)
def outlived(elsewhere: Elsewhere) -> Iterator[None]:
    """What outlives a run ends a moment after it."""
    yield
    deadline = time.monotonic() + patience(60)
    while outliving(elsewhere) and time.monotonic() < deadline:
        time.sleep(0.1)


def start(elsewhere: Elsewhere, *words: object) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "hikube_local", "--context", "prod", *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        argv, env=elsewhere.here.env, stdout=pipe, stderr=pipe, text=True, cwd=elsewhere.here.folder
    )


def test_a_test_makes_copies_and_takes_them_away(elsewhere: Elsewhere):
    path = elsewhere.here.file("m.yaml", MANIFEST)
    assert elsewhere.endpoint("POST", f"{BASE}/vmdisks", disk("mine")).status_code == 201
    running = start(elsewhere, "test", path, *QUICK, "-o", "json")
    seen: set[str] = set()
    while running.poll() is None:
        seen |= set(there(elsewhere))
    out, err = running.communicate()
    assert out, err
    (report,) = json.loads(out)
    assert running.returncode == 1 and report["machine"] == "web" and "nobody could log in" in report["cause"], err
    assert any(name.startswith("t-") and name.endswith("-web") for name in seen), seen
    assert "1 machine, 1 vCPUs" in err and "at most 1 minutes" in err and "context prod: " in err
    assert there(elsewhere) == ["mine"]
    elsewhere.endpoint("DELETE", f"{BASE}/vmdisks/mine")
    gone(elsewhere)
    assert "t-" not in (elsewhere.here.home / "state" / "contexts" / "prod" / "ssh" / "known_hosts").read_text()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("#cloud-config\\n{}", "#cloud-config\\nusers: [{name: me}]"), "HK410"),
        (("u1.nano", "u1.8xlarge"), "A confirmation is needed"),
        (("debian-12", "no-such-image"), "HK408"),
        (("metadata: {name: ", "metadata: {namespace: other, name: "), "HK406"),
        (("", "", "--image", "no-such-image"), "HK408"),
        (("", "", "--watch"), "HK825"),
    ],
)
def test_nothing_is_made_of_what_is_refused(elsewhere: Elsewhere, changed: tuple[str, ...], said: str):
    path = elsewhere.here.file("m.yaml", MANIFEST.replace(*changed[:2]))
    done = elsewhere("test", path, *QUICK, *changed[2:])
    assert done.code == 2 and said in done.err, done.err
    assert there(elsewhere) == [] and journals(elsewhere) == []


def test_what_is_kept_stays_until_it_is_swept(elsewhere: Elsewhere):
    path = elsewhere.here.file("m.yaml", MANIFEST)
    done = elsewhere("test", path, *QUICK, "--keep")
    run = done.err.split("sweep --run ")[1].split()[0]
    assert set(there(elsewhere)) == {f"t-{run}-web", f"t-{run}-sys"}
    (key,) = (p for p in journals(elsewhere) if p.name == f"{run}.key")
    spec = elsewhere.endpoint("GET", f"{BASE}/vminstances/t-{run}-web").json()["spec"]
    assert key.with_name(f"{run}.key.pub").read_text().strip() in spec["sshKeys"] and f"ssh -i {key}" in done.err
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    own = elsewhere.here.home / "state" / "contexts" / "prod" / "ssh" / "id_ed25519"
    assert not own.exists()  # a test gets in by a key of its run alone
    assert elsewhere("sweep").code == 0 and len(there(elsewhere)) == 2  # its time is not over
    listed = elsewhere("sweep", "--list").out
    assert f"{run}  vminstance/t-{run}-web, of " in listed and len(listed.splitlines()) == 2
    assert elsewhere("sweep", "--run", run).code == 0
    gone(elsewhere)
    assert "nothing to remove" in elsewhere("sweep").err


def test_a_kept_run_whose_objects_others_took_away_goes_with_the_next_sweep(elsewhere: Elsewhere):
    path = elsewhere.here.file("m.yaml", MANIFEST)
    done = elsewhere("test", path, *QUICK, "--keep")
    run = done.err.split("sweep --run ")[1].split()[0]
    assert any(p.name == f"{run}.key" for p in journals(elsewhere))
    for kind, name in (("vminstances", "web"), ("vmdisks", "sys")):
        elsewhere.endpoint("DELETE", f"{BASE}/{kind}/t-{run}-{name}")
    deadline = time.monotonic() + patience(20)
    while there(elsewhere):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert elsewhere("sweep").code == 0
    gone(elsewhere)


def test_a_key_without_a_run_goes_with_the_next_sweep(elsewhere: Elsewhere):
    """A kill between the key and the journal."""
    folder = elsewhere.here.home / "state" / "contexts" / "prod" / "runs"
    folder.mkdir(parents=True)
    for name in ("abc123.key", "abc123.key.pub", ".partial-abc123.key"):
        (folder / name).write_text("x")
        os.utime(folder / name, (1, 1))
    young = folder / "def456.key"  # of a run that just begins
    young.write_text("x")
    assert elsewhere("test", elsewhere.here.file("m.yaml", MANIFEST), *QUICK).code == 1
    assert young in journals(elsewhere)
    young.unlink()
    gone(elsewhere)


def test_keys_are_made_side_by_side(elsewhere: Elsewhere, tmp_path: Path):
    from hikube_local.access import keys

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(keys.pair, [tmp_path / f"{n}.key" for n in range(6)]))
    assert len({keys.public_of(path) for path in made}) == 6


def test_any_machine_sweeps_what_is_past_its_time_and_nothing_else(elsewhere: Elsewhere, tmp_path_factory):
    def made(name: str, expires: float, labels: dict = LABELS) -> None:
        body = disk(name)
        # The mark of what was made from some machine with this program.
        notes = {"hikube.local/expires": str(int(expires)), "hikube.local/applied": "{}"}
        body["metadata"] |= {"labels": labels, "annotations": notes}
        assert elsewhere.endpoint("POST", f"{BASE}/vmdisks", body).status_code == 201

    made("old", time.time() - 500)
    made("young", time.time() + 900, LABELS | {"hikube.local/run": "abd"})
    made("odd", 0, {})
    other = Program(tmp_path_factory.mktemp("other"))
    made_there = ("context", "create", "prod", "--kubeconfig", elsewhere.kubeconfig, "--kube-context", "tenant")
    assert other(*made_there).code == 0
    done = other("--context", "prod", "sweep")
    assert done.code == 0 and set(there(elsewhere)) == {"young", "odd"}, done.err
    assert other("sweep").code == 2  # here there are no runs of that kind


def test_quotas_are_of_the_copies_and_of_what_is_made(odd):
    """A copy has no public address; compare makes nothing."""
    elsewhere, _ = odd
    path = elsewhere.here.file("m.yaml", MANIFEST)
    elsewhere.quotas = [{"metadata": {"name": "q"}, "status": {"hard": {"services.loadbalancers": "0", "pods": "1"}}}]
    assert "HK409" in elsewhere("validate", path).out
    assert "HK409" not in elsewhere("test", path, *QUICK).err
    elsewhere.quotas[0]["status"]["hard"]["pods"] = "0"
    for words in (("test", path, *QUICK), ("up", path), ("up", path, "-o", "json")):
        done = elsewhere(*words)
        assert done.code == 2 and "HK409" in done.err, words
    compared = elsewhere("compare", path)
    assert "HK409" not in compared.err and "HK804" in compared.err


def test_what_only_the_tenant_has_can_be_taken_down_by_its_file(odd):
    elsewhere, _ = odd
    path = elsewhere.here.file("m.yaml", MANIFEST)
    assert elsewhere("up", path).code == 0
    elsewhere.options = [{"metadata": {"name": "image"}, "spec": {"items": [{"value": "golden"}]}}]
    assert elsewhere("up", path).code == 0  # the disk that is there is not made again
    for words in (("get", "-f", path), ("plan", path, "-o", "json"), ("down", path, "--disks", "--yes")):
        done = elsewhere(*words)
        assert done.code in (0, 4), (words, done.err)
    golden = elsewhere.here.file("g.yaml", MANIFEST.replace("debian-12", "golden"))
    assert elsewhere("plan", golden, "-o", "json").code in (0, 4)


def test_a_run_that_is_killed_while_the_api_is_away_is_outlived(odd):
    elsewhere, days = odd
    running = start(elsewhere, "test", elsewhere.here.file("m.yaml", MANIFEST), "--timeout", "5m")
    deadline = time.monotonic() + patience(60)
    while len(there(elsewhere)) < 2:
        assert time.monotonic() < deadline and running.poll() is None, running.communicate()
        time.sleep(0.05)
    days += ["cut"] * 8
    running.kill()
    running.communicate()
    gone(elsewhere)


def test_an_odd_object_keeps_nobody_from_sweeping(elsewhere: Elsewhere):
    """Our label, and not made from any machine of ours."""
    body = disk("odd")
    body["metadata"] |= {"labels": LABELS, "annotations": {"hikube.local/expires": "1"}}
    assert elsewhere.endpoint("POST", f"{BASE}/vmdisks", body).status_code == 201
    done = elsewhere("test", elsewhere.here.file("m.yaml", MANIFEST), *QUICK)
    assert done.code == 1 and "nobody could log in" in done.out
    assert elsewhere("sweep").code == 0 and there(elsewhere) == ["odd"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_leaves_nothing(elsewhere: Elsewhere, how: signal.Signals):
    """Killed, it is outlived by a process of its own."""
    running = start(elsewhere, "test", elsewhere.here.file("m.yaml", MANIFEST), "--timeout", "5m")
    deadline = time.monotonic() + patience(60)
    while len(there(elsewhere)) < 2:
        assert time.monotonic() < deadline and running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(how)
    running.communicate(timeout=patience(60))
    gone(elsewhere)


@pytest.mark.parametrize("nth", [3, 6, *(pytest.param(n, marks=pytest.mark.full) for n in (1, 2, 4, 5, *range(7, 24)))])
def test_killed_at_any_request_the_sweep_leaves_nothing(odd, nth: int):
    """Both are killed, the run and the process that outlives it, as by a power cut."""
    elsewhere, _ = odd
    path = elsewhere.here.file("m.yaml", MANIFEST)
    elsewhere.asked.clear()
    running = start(elsewhere, "test", path, *QUICK)
    deadline = time.monotonic() + patience(60)
    while len(elsewhere.asked) < nth and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    for pid in _family(running.pid):
        os.kill(pid, signal.SIGKILL)
    running.communicate()
    done = elsewhere("sweep")
    assert done.code == 0, done.err
    gone(elsewhere)


def _family(pid: int) -> list[int]:
    """A process and its children, the parent last: it does not see them end."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found.append(int(entry.name))
    return [*found, pid]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_writes_that_meet_others_in_the_middle_of_a_test_are_worked_out_anew(odd, method: str):
    """The API says of each that it was not carried out (409): twice it is tried again, and nothing stays."""
    elsewhere, _ = odd
    path = elsewhere.here.file("m.yaml", MANIFEST)
    elsewhere.conflicts = {method: 2}
    done = elsewhere("test", path, *QUICK)
    assert done.code == 1 and "nobody could log in" in done.out and "HK826" not in done.err, done.err
    assert elsewhere.conflicts == {method: 0}
    gone(elsewhere)
    elsewhere.conflicts = {"POST": 9}  # for ever: told, and nothing was made
    done = elsewhere("test", path, *QUICK)
    assert done.code == 1 and "the object has been modified" in done.out + done.err, done
    gone(elsewhere)


def test_what_stays_is_told_with_an_exit_code_of_its_own(odd):
    elsewhere, _ = odd
    path = elsewhere.here.file("m.yaml", MANIFEST)
    elsewhere.kept = "vmdisks"
    done = elsewhere("test", path, *QUICK)
    assert done.code == 5 and "[HK826]" in done.err and "still in the tenant: vmdisk/t-" in done.err, done.err
    assert "FAILED" in done.out  # the report is not lost
    swept = elsewhere("sweep", timeout=patience(60))
    assert swept.code == 5
    elsewhere.kept = ""
    assert elsewhere("sweep").code == 0
    gone(elsewhere)
