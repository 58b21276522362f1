"""What docs/security.md promises of real guests; and a root's first hour: doctor first, then a machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hikube_local.backends.qemu.machine import limits
from hikube_local.host import qemu_ids
from tests.conftest import ROOT
from tests.e2e.conftest import TINY, Host, Real, second, seeded

pytestmark = pytest.mark.e2e

METADATA, LOOPBACK = (
    "169.254.169.254",
    "10.0.2.2",
)  # a cloud's metadata service; the host's loopback as slirp4netns names it
LOOK = f"""\
get() {{ (printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 1) | nc -w 2 $1 $2 2>&1 | grep -q secret; }}
see() {{ get $2 8765 && echo "$1 open" || echo "$1 shut"; }}
see metadata {METADATA}; see loopback {LOOPBACK}; see alias 127.77.0.9; echo LOOKED
(while :; do sleep 2; see later {METADATA}; done) &
"""


@pytest.fixture
def secrets(host: Host, tmp_path: Path) -> Iterator[None]:
    """A server on every address of the host, its link-local one and its loopback among them."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "index.html").write_text("secret")
    words = [*host.enter, sys.executable, "-m", "http.server", "8765", "-d", str(tmp_path / "www")]
    host.run("ip", "addr", "add", f"{METADATA}/32", "dev", "lo")
    server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.kill()
        server.wait()
        host.run("ip", "addr", "del", f"{METADATA}/32", "dev", "lo")


def test_doctor_then_a_machine_that_sees_nothing_of_the_host(real: Real, host: Host, secrets: None):
    """U1: the first command makes no folder that the next one stumbles over. A4: nothing link-local, no loopback."""
    assert "folders" in real("doctor").out
    assert "secret" in (host.http(f"{METADATA}:8765") or "")
    result = real("up", real.file("m.yaml", seeded(TINY, LOOK)))
    assert result.code == 0, result.err
    seen = real("logs", "web").out
    assert "LOOKED" in seen
    for what in ("metadata", "loopback", "alias"):
        assert f"{what} shut" in seen and f"{what} open" not in seen, seen[-1500:]
    # The image is root's, and QEMU, which runs as another user, has not made it its own (A8).
    for image in (real.home / "cache" / "images").glob("*.qcow2"):
        assert (image.stat().st_uid, image.stat().st_mode & 0o222) == (0, 0), image
    # Asked for, it is open, without a restart; and then it is no difference any more.
    config = real.home / "config.yaml"
    config.write_text("linkLocal: true\n")
    started = real.status()["instanceID"]
    opened = real("up", real.home / "files" / "m.yaml")
    assert opened.code == 0, opened.err
    real.wait_for(lambda: "later open" in real("logs", "web").out, "the link-local address to open")
    assert real.status()["instanceID"] == started


def test_the_user_of_one_machines_qemu_reads_no_disk_and_no_seed_of_another(real: Real):
    """A8: whoever breaks out of one guest has that guest's files, and no more."""
    both = seeded(TINY, "true") + "---\n" + seeded(second(TINY, "other"), "true")
    assert real("up", real.file("m.yaml", both)).code == 0
    running = {}
    for pid in real.processes():
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if words[0].endswith("qemu-system-x86_64"):
            name = next(w for w in words if w.startswith("guest=")).split(",")[0].rpartition("-")[2]
            running[name] = (pid, os.stat(f"/proc/{pid}").st_uid)
    users = {user for _, user in running.values()}
    assert len(users) == 2 and not users & {0, qemu_ids.shared()[0]}, running
    for pid, _ in running.values():  # what runs away takes neither the host nor a neighbour down
        status = dict(
            row.split(":\t", 1) for row in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in row
        )
        assert (status["CapEff"].strip("0"), status["Seccomp"], status["NoNewPrivs"]) == ("", "2", "1"), status
        table = {r[:26].strip(): r[26:].split()[0] for r in Path(f"/proc/{pid}/limits").read_text().splitlines()}
        assert 0 < int(table["Max address space"]) < 16 << 30 and table["Max core file size"] == "0", table
        assert int(table["Max processes"]) == limits.THREADS
        assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == int(limits.EXPENDABLE)
    # Tried: a QEMU that wants 64 GiB does not get them, whatever the host has, and goes on.
    greedy = ("--hmp", "object_add memory-backend-ram,id=greedy,size=64G,reserve=off")
    wants = real("virsh", "qemu-monitor-command", "default_vm-instance-web", *greedy)
    assert "annot" in wants.out and "memory" in wants.out, (wants.out, wants.err)
    modest = real(
        "virsh", "qemu-monitor-command", "default_vm-instance-web", *(w.replace("64G", "64M") for w in greedy)
    )
    assert modest.code == 0 and "annot" not in modest.out, (modest.out, modest.err)  # it is the limit that says no
    assert real.status("web")["printableStatus"] == "Running"
    for name, (pid, user) in running.items():
        enter = ["nsenter", "-t", str(pid), "-m", "setpriv", "--reuid", str(user), "--clear-groups"]
        enter += ["--regid", str(qemu_ids.shared()[1]), "cat"]
        for owner in running:
            state, disk = real.runtime / "state", "sys" if owner == "web" else "other-sys"
            for path in (state / f"machines/default/{owner}/seed.iso", state / f"disks/default/{disk}/disk.qcow2"):
                read = subprocess.run([*enter, str(path)], capture_output=True)
                assert (read.returncode == 0) is (owner == name), (name, path, read.stderr)


@pytest.mark.full
def test_machines_and_checkpoints_of_the_version_before_go_on(real: Real, tmp_path: Path):
    """Made by what landed last, carried on by this checkout: running machine, memory and all."""
    before = "c24fceb"
    archive = subprocess.run(["git", "-C", ROOT, "archive", before], capture_output=True)
    if archive.returncode:
        pytest.skip(f"commit {before} is not in this clone")
    old = tmp_path / "old"
    old.mkdir()
    subprocess.run(["tar", "-x", "-C", old], input=archive.stdout, check=True)
    path = real.file("m.yaml", TINY)
    env = {"PYTHONPATH": str(old)}
    assert real("up", path, env=env).code == 0
    assert real("snapshot", "create", "web", "old", env=env).code == 0
    was = json.loads(real("get", "vm", "web", "-o", "json", env=env).out)["status"]
    now = real.status()
    assert (now["instanceID"], now["addresses"]) == (was["instanceID"], was["addresses"])
    assert {c["type"]: c["status"] for c in now["conditions"]}["Ready"] == "True"
    again = real("up", path)
    assert again.code == 0 and "defining" not in again.err and "starting" not in again.err, again.err
    assert "hello from" in (real.host.http(real.access(80)) or "")
    back = real("snapshot", "restore", "web", "old", "--yes")
    assert back.code == 0, back.err
    real.wait_for(lambda: "hello from" in (real.host.http(real.access(80)) or ""), "the page after the way back")
    assert real("down").code == 0
    assert real("up", path).code == 0
    assert real("down", "-A", "--disks", "--yes").code == 0
