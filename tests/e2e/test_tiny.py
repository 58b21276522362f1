"""Tiny real machines: the contract, the network, trouble that is recognised, and bad days."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hikube_local.backends.qemu.network import helpers
from tests.contract import Contract
from tests.e2e.conftest import TINY, Host, Real, killed, second, seeded
from tests.forms import valid
from tests.growth import patience

pytestmark = pytest.mark.e2e


class TestReal(Contract):
    @pytest.fixture
    def program(self, real: Real) -> Real:
        return real

    @pytest.fixture
    def manifest(self) -> str:
        return TINY


def up(real: Real, text: str = TINY, *words: object):
    return real("up", real.file("m.yaml", text), *words)


def test_ports_are_open_as_declared_and_closed_otherwise(real: Real, host: Host):
    before = host.facts()
    result = up(real)
    assert result.code == 0, result.err
    assert "hello from" in (host.http(real.access(80)) or "")
    address = real.access(80).split(":")[0]
    assert host.http(f"{address}:8080", 2) is None
    assert host.http("127.0.0.1:80", 2) is None
    assert up(real, TINY.replace("[22, 80]", "[8080]")).code == 0
    assert "hello from" in (host.http(real.access(8080)) or "")
    assert host.http(f"{address}:80", 2) is None
    assert up(real, TINY.replace("external: true", "external: false")).code == 0
    assert real.status()["access"] == []
    assert host.http(f"{address}:8080", 2) is None
    # The host itself was never touched.
    assert host.facts() == before
    assert real("down").code == 0
    assert real.processes() == []


def test_port_forward_reaches_a_closed_machine(real: Real, host: Host):
    assert up(real, TINY.replace("external: true", "external: false")).code == 0
    words = [*host.enter, sys.executable, "-m", "hikube_local", "port-forward", "web", ":80"]
    process = subprocess.Popen(words, env=real.env, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        port = re.search(r"127\.0\.0\.1:(\d+) -> 80", line)[1]
        assert "hello from" in (host.http(f"127.0.0.1:{port}") or "")
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        finally:
            process.kill()


@pytest.mark.full
def test_machines_of_a_tenant_see_one_another_and_others_only_listed_ports(real: Real, host: Host):
    # A static busybox has no resolver of libc's: nslookup has its own.
    look = (
        "ip_of() { case $1 in [0-9]*) echo $1;; *) nslookup $1 | awk '/^Address/ && !/:53/ {print $NF}' | tail -1;; esac; }\n"
        "get() { (printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 1) | nc -w 3 $(ip_of ${1%:*}) ${1#*:} 2>&1 | grep -q hello; }\n"
        'try() { get $1 && echo "$1 open" || echo "$1 shut"; }\n'
        "for h in vm-instance-a:80 vm-instance-far.other.svc.cozy.local:80; do for i in 1 2 3 4 5 6 7 8 9; do get $h && break; sleep 1; done; done\n"
        "try vm-instance-a:80; try vm-instance-a.default.svc.cozy.local:8080; try vm-instance-far.other.svc.cozy.local:80\n"
        "try vm-instance-far.other.svc.cozy.local:8080; try 10.77.0.2:9999; cat /etc/resolv.conf; ip link show | grep mtu | tail -1; echo LOOKED"
    )
    closed = second(TINY, "a").replace("external: true", "external: false")
    far = second(TINY, "far").replace("name: far", "namespace: other, name: far").replace("[22, 80]", "[80]")
    # A service on the host's own loopback, which no guest may reach.
    web = subprocess.Popen(
        [*host.enter, "python3", "-m", "http.server", "9999", "--bind", "127.0.0.1", "--directory", "/var/empty"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        result = up(real, f"{closed}---\n{far}---\n{seeded(second(TINY, 'b'), look)}")
        assert result.code == 0, result.err
        log = real("logs", "b").out
        for line in (
            "vm-instance-a:80 open",
            "vm-instance-a.default.svc.cozy.local:8080 open",
            "vm-instance-far.other.svc.cozy.local:80 open",
            "vm-instance-far.other.svc.cozy.local:8080 shut",
            "10.77.0.2:9999 shut",
        ):
            assert line in log, log[-1500:]
        assert "search default.svc.cozy.local svc.cozy.local cozy.local" in log
        assert "mtu 1400" in log
        # Two machines that want the same ports are the normal case.
        assert real.access(80, "b") != real.access(80, "a") if real.status("a")["access"] else True
    finally:
        web.kill()
        web.wait()


def test_forwards_survive_a_reboot_and_what_died_comes_back(real: Real, host: Host):
    assert up(real).code == 0
    where = real.access(80)
    real("virsh", "reset", "default_vm-instance-web")
    deadline = time.monotonic() + patience(120)
    while host.http(where, 1) is None:
        assert time.monotonic() < deadline
    for lock in ("libvirtd", "slirp", "ns"):
        pid = helpers.pid_of(real.runtime / f"{lock}.lock")
        killed(pid)
        if lock == "libvirtd":
            assert "hello from" in (host.http(where) or ""), "a machine does without libvirtd"
        assert up(real).code == 0
        assert real.status()["printableStatus"] == "Running"
        assert "hello from" in (host.http(real.access(80)) or ""), lock
    dns = next(real.runtime.glob("dnsmasq-*.lock"))
    killed(helpers.pid_of(dns))
    assert up(real).code == 0
    assert helpers.pid_of(dns)
    assert real.access(80) == where


def test_a_port_that_is_taken_is_named_and_moves(real: Real, host: Host):
    holder = subprocess.Popen(
        [*host.enter, "python3", "-m", "http.server", "80", "--bind", "0.0.0.0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + patience(5)
        while host.http("127.0.0.1:80", 1) is None:
            assert time.monotonic() < deadline
        result = up(real)
        assert result.code == 0
        assert real.access(80).endswith(":10080")
        assert "HK507" in result.err and "python3" in result.err
        assert "hello from" in (host.http(real.access(80)) or "")
    finally:
        holder.kill()
        holder.wait()


def test_an_empty_system_disk_boots_nothing(real: Real):
    result = up(
        real,
        TINY.replace('source: {http: {url: "http://tiny.invalid/tiny.qcow2"}}', "source: {}"),
        "--timeout",
        "60s",
    )
    assert result.code == 1
    assert "HK901" in result.err or "nothing to boot from" in result.err
    assert "No bootable device" in result.err
    assert "timed out" not in result.err  # known from what the firmware says, not waited for


@pytest.mark.full
def test_a_kernel_panic_is_recognised(real: Real):
    result = up(real, seeded(TINY, "sleep 1; echo c > /proc/sysrq-trigger; sleep 60"), "--timeout", "60s")
    assert result.code == 1
    assert "the kernel panicked" in result.err and "Kernel panic - not syncing" in result.err


@pytest.mark.full
def test_a_time_out_tells_the_stage_and_the_last_lines(real: Real):
    result = up(real, seeded(TINY, "echo I am stuck here; sleep 600"), "--timeout", "40s")
    assert result.code == 3
    assert "timed out after 40 s" in result.err and "I am stuck here" in result.err


@pytest.mark.full
def test_a_guest_that_powers_itself_off_is_told(real: Real):
    result = up(real, seeded(TINY + "  runStrategy: Once\n", "sleep 1; poweroff -f"), "--timeout", "60s")
    assert result.code == 1
    assert "powered itself off" in result.err
    # Under Always it comes back, and back again: a loop is told as one, and not as a time-out.
    assert real("down", "--force").code == 0
    loop = up(real, seeded(TINY, "sleep 1; poweroff -f"), "--timeout", "200s")
    assert loop.code == 1 and "HK912" in loop.err and "boot 4 times" in loop.err


# What stops a guest: the panic and the lack of memory are real, the prompts are as boot loader and initramfs write them.
STOPS = {
    "the kernel panics": (
        "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger",
        "HK903",
        "sysrq triggered crash",
    ),
    "memory runs out": ("(tail /dev/zero) & sleep 600", "HK905", "tail"),
    "no root file system": (r"printf '\n(initramfs) ' > /dev/ttyS0; sleep 600", "HK904", "(initramfs)"),
    "no boot loader's files": (r"printf '\ngrub rescue> ' > /dev/ttyS0; sleep 600", "HK902", "grub rescue>"),
    "a file system that is not there": (
        "echo 'You are in emergency mode. After logging in, type journalctl' > /dev/ttyS0; sleep 600",
        "HK904",
        "You are in emergency mode",
    ),
}


@pytest.mark.full
@pytest.mark.parametrize("what", STOPS)
def test_a_guest_that_stops_is_told_as_soon_as_it_is_certain(real: Real, what: str):
    """Not at the time-out, which is ten minutes: the cause, the line that shows it, and what to do."""
    script, code, shown = STOPS[what]
    result = up(real, seeded(TINY, script), "--timeout", "10m")
    assert result.code == 1 and code in result.err and "HK907" not in result.err, result.err
    assert shown in result.err.partition("FAILED")[2] and "fix:" in result.err, result.err


@pytest.mark.full
def test_escape_sequences_of_a_guest_never_reach_the_terminal(real: Real):
    assert up(real, seeded(TINY, r"printf '\033]0;owned\007\033[2J\033]52;c;aGk=\007marker\n'")).code == 0
    for words in (("logs", "web"), ("describe", "web")):
        result = real(*words)
        assert "\x1b" not in result.out and "\x07" not in result.out
    assert "marker" in real("logs", "web").out


def test_logs_of_the_boot_before(real: Real):
    assert up(real, seeded(TINY, "echo boot-$(cat /proc/sys/kernel/random/boot_id)")).code == 0
    first = re.search(r"boot-[0-9a-f-]{36}", real("logs", "web").out)[0]
    assert real("restart", "web", "--force", "--wait").code == 0
    now = real("logs", "web").out
    assert first not in now and "boot-" in now
    assert first in real("logs", "web", "-p").out
    assert "SeaBIOS" in real("logs", "web", "--firmware").out


def test_the_console_takes_what_is_typed(real: Real, host: Host):
    assert up(real).code == 0
    words = [*host.enter, sys.executable, "-m", "hikube_local", "console", "web"]
    process = subprocess.Popen(words, env=real.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    seen: list[bytes] = []
    reader = threading.Thread(
        target=lambda: seen.extend(iter(lambda: os.read(process.stdout.fileno(), 4096), b"")), daemon=True
    )
    reader.start()
    try:
        process.stdin.write(b"\necho typed-$((40+2))\n")
        process.stdin.flush()
        deadline = time.monotonic() + patience(15)
        while b"typed-42" not in b"".join(seen):
            assert time.monotonic() < deadline, b"".join(seen)[-300:]
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()


def test_a_picture_of_the_screen(real: Real, tmp_path: Path):
    assert up(real).code == 0
    assert real("screenshot", "web", tmp_path / "s.png").code == 0
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    rows = valid("top", real("top", "-o", "json").json)
    assert rows[0]["memory"] > 1 << 20


@pytest.mark.full
def test_killed_in_the_middle_the_next_up_finishes(real: Real, host: Host):
    """A sample of moments; the sweep over all steps runs on the simulator."""
    path = real.file("m.yaml", TINY)
    for delay in (0.25, 0.45, 0.7, 1.0):
        process = subprocess.Popen(
            [*host.enter, sys.executable, "-m", "hikube_local", "up", str(path)],
            env=real.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(delay)
        process.kill()
        process.wait()
        assert real("get", "-A").code == 0
        result = real("up", path)
        assert result.code == 0, result.err
        assert "hello from" in (host.http(real.access(80)) or "")
        assert "nothing changed" in real("up", path).err
        domains = real("virsh", "list", "--all", "--name").out.split()
        assert domains == ["default_vm-instance-web"]
        assert real("down", "--disks", "--yes", "--force").code == 0
        assert real.processes() == []


@pytest.mark.full
def test_two_state_roots_at_once(real: Real, host: Host, tiny_image: Path, tmp_path: Path):
    from tests.e2e.conftest import TINY_URL, stock

    other = Real(tmp_path / "other" / "deeper", host)
    stock(other.home, TINY_URL, tiny_image)
    try:
        assert up(real).code == 0
        assert up(other).code == 0
        assert real.access(80) != other.access(80)
        uuid = real.status()["instanceID"]
        assert uuid == other.status()["instanceID"]
        assert uuid in (host.http(real.access(80)) or "") and uuid in (host.http(other.access(80)) or "")
        assert real("down", "--force").code == 0
        assert "hello from" in (host.http(other.access(80)) or "")
    finally:
        other.close()


def test_a_disk_too_small_for_its_image_fails_alone(real: Real):
    small = second(TINY, "small").replace("storage: 1Gi", "storage: 1Mi")
    result = up(real, f"{TINY}---\n{small}")
    assert result.code == 1
    assert "larger than the reported available storage" in result.err
    assert real.status("web")["printableStatus"] == "Running"
    assert real.status("small")["printableStatus"] != "Running"


def test_a_way_out_that_does_not_come_up_is_told_and_keeps_nobody_from_removing(real: Real, tmp_path: Path):
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "slirp4netns").write_text("#!/bin/sh\necho no luck today >&2\nexit 1\n")
    os.chmod(broken / "slirp4netns", 0o755)
    env = {"PATH": f"{broken}:{os.environ['PATH']}"}
    path = real.file("m.yaml", TINY)
    failed = real("up", path, env=env)
    assert failed.code == 1 and "no luck today" in failed.err and "HK803" in failed.err
    assert real("down", "--disks", "--yes", env=env).code == 0
    assert real.processes() == []


def test_a_tmp_of_its_own_stays_the_hosts(real: Real, host: Host):
    """systemd mounts /tmp, shared: what slirp4netns' sandbox mounts there must not show on the host."""
    host.run("mount", "--bind", "/tmp", "/tmp")
    host.run("mount", "--make-shared", "/tmp")
    try:
        before = host.run("cat", "/proc/self/mountinfo").stdout
        assert real("up", real.file("m.yaml", TINY)).code == 0
        assert "hello from" in (host.http(real.access(80)) or "")
        status = Path(f"/proc/{helpers.pid_of(real.runtime / 'slirp.lock')}/status").read_text()
        assert "CapEff:\t0000000000000400" in status and "Seccomp:\t2" in status
        assert host.run("cat", "/proc/self/mountinfo").stdout == before
        assert real("down", "--force").code == 0
    finally:
        host.run("umount", "-l", "/tmp", check=False)


def test_a_user_added_on_the_host_takes_nothing_from_libvirt(real: Real):
    """useradd renames a new /etc/passwd into place, and a mount on the old one goes with it."""
    path = real.file("m.yaml", TINY)
    assert real("up", path).code == 0
    name = f"hkp{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", name], check=True)
    try:
        killed(*helpers.holders(real.runtime / "libvirtd.lock"))  # tini and libvirtd
        again = real("up", path)
    finally:
        subprocess.run(["userdel", "--force", name], check=False, capture_output=True)
    assert again.code == 0 and real.status()["printableStatus"] == "Running", again.err


def test_data_survive_down_and_up(real: Real):
    script = "mkdir -p /d; mount /dev/vda1 /d && cat /d/kept 2>/dev/null; echo kept-data > /d/kept; sync; umount /d; echo DONE"
    assert up(real, seeded(TINY, script)).code == 0
    assert "kept-data" not in real("logs", "web").out
    assert real("down", "--force").code == 0
    assert up(real, seeded(TINY, script)).code == 0
    assert "kept-data" in real("logs", "web").out


def test_secrets_are_for_their_owner(real: Real):
    assert up(real, seeded(TINY, "echo s3cr3t > /tmp/x")).code == 0
    state = real.home / "state"
    for path in state.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0 or path.suffix in (".pub",), path
    assert "s3cr3t" not in real("events").out
    with contextlib.suppress(FileNotFoundError):
        assert b"s3cr3t" not in (real.runtime / "log" / "libvirtd.log").read_bytes()


@pytest.mark.full
def test_a_guest_that_gives_no_sign_is_running_without_a_signal(real: Real, tmp_path: Path):
    """A boot sector that halts, as silent as an installer on its screen: after a minute that is said, and is no failure."""
    image = tmp_path / "silent.raw"
    image.write_bytes((b"\xfa\xf4\xeb\xfd" + bytes(506) + b"\x55\xaa").ljust(1 << 20, b"\0"))
    from tests.e2e.conftest import stock

    stock(real.home, "http://tiny.invalid/silent.raw", image)
    result = up(real, TINY.replace("tiny.qcow2", "silent.raw"))
    assert result.code == 0
    assert "Running, no readiness signal" in result.err and "vnc web" in result.err
    assert re.search(r"no console output for 20 s in firmware; (its CPU is idle|this host is busy)", result.err)
