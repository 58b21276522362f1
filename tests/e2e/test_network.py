"""The network: as closed, as open and as connected as on Hikube, cell by cell, for root and for an ordinary user."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest

from hikube_local.backends.qemu.network import helpers
from hikube_local.paths import layout
from tests.e2e.conftest import TINY, AsUser, Host, Lan, Real, killed, ours, second, seeded
from tests.growth import patience
from tests.guests.udpecho import PORT as UDP

pytestmark = pytest.mark.e2e

# Standard input: a JSON list of [protocol, host, port]; standard output: which of them answered.
TRY = """
import json, socket, subprocess, sys
def tcp(host, port):
    with socket.create_connection((host, port), 3) as s:
        s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        page = b""
        while block := s.recv(4096):
            page += block
        return b"hello" in page
def udp(host, port):
    with socket.socket(type=socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        s.sendto(b"ping", (host, port))
        return s.recv(10) == b"ping"
out = []
for protocol, host, port in json.loads(sys.argv[1]):
    try:
        out.append({"tcp": tcp, "udp": udp}[protocol](host, port))
    except OSError:
        out.append(False)
print(json.dumps(out))
"""


def name(machine: str, namespace: str = "default") -> str:
    return f"vm-instance-{machine}.{namespace}.svc.cozy.local"


def whole(text: str) -> str:
    return text.replace("externalPorts: [22, 80]", "externalMethod: WholeIP")


def closed(text: str) -> str:
    return text.replace("external: true", "external: false")


def in_namespace(text: str, machine: str, namespace: str) -> str:
    return text.replace(f"name: {machine}", f"namespace: {namespace}, name: {machine}")


def write(real: Real, text: str):
    path = (real.user_home if isinstance(real, AsUser) else real.folder) / "net.yaml"
    path.write_text(text)
    os.chmod(path, 0o644)
    return path


def from_host(host: Host, tries: list) -> list[bool]:
    return json.loads(host.run("python3", "-c", TRY, json.dumps(tries)).stdout)


def from_tenant(real: Real, namespace: str, tries: list) -> list[bool]:
    done = real("network", "exec", "-n", namespace, "--", "python3", "-c", TRY, json.dumps(tries))
    assert done.code == 0, done.err
    return json.loads(done.out)


# A guest's own look at the others: a static busybox has no resolver of libc's, nslookup has its own.
LOOK = """\
ip_of() { nslookup $1 | awk '/^Address/ && !/:53/ {print $NF}' | tail -1; }
get() { (printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 1) | nc -w 3 $1 $2 2>&1 | grep -q hello; }
try() { get $(ip_of $1) $2 && echo "$1:$2 open" || echo "$1:$2 shut"; }
pings() { ping -c 1 -W 2 $(ip_of $1) >/dev/null && echo "$1 pings" || echo "$1 silent"; }
"""


def matrix(real: Real, host: Host) -> None:
    before = host.facts()
    peers = ("ports", "whole", "shut")
    look = LOOK + "for i in 1 2 3 4 5 6 7 8 9; do get $(ip_of vm-instance-shut) 80 && break; sleep 2; done\n"
    look += "".join(f"try {name(m)} 80; try {name(m)} 8080; pings {name(m)}\n" for m in peers)
    text = "---\n".join(
        (
            second(TINY, "ports").replace("[22, 80]", "[80]"),
            whole(seeded(second(TINY, "whole"), "agent &\nsleep 1")),
            closed(second(TINY, "shut")),
        )
    )
    assert real("up", write(real, text)).code == 0
    probes = "---\n".join(
        (
            seeded(closed(second(TINY, "near")), look),
            in_namespace(in_namespace(seeded(closed(second(TINY, "far")), look), "far-sys", "other"), "far}", "other"),
        )
    )
    result = real("up", write(real, probes))
    assert result.code == 0, result.err
    near, far = real("logs", "near").out, real("logs", "-n", "other", "far").out

    # From a machine of the same namespace: every port, by name, and ping.
    for m in peers:
        for said in (f"{name(m)}:80 open", f"{name(m)}:8080 open", f"{name(m)} pings"):
            assert said in near, (said, near[-1500:])
    # From another namespace: what is open from outside.
    for said in (
        f"{name('ports')}:80 open",
        f"{name('ports')}:8080 shut",
        f"{name('ports')} pings",
        f"{name('whole')}:80 open",
        f"{name('whole')}:8080 open",
        f"{name('whole')} pings",
        f"{name('shut')}:80 shut",
        f"{name('shut')}:8080 shut",
        f"{name('shut')} silent",
    ):
        assert said in far, (said, far[-1500:])
    # The same as a pod of each tenant sees it; UDP too, and by IP.
    tries = [["udp", name(m), UDP] for m in peers] + [["tcp", name(m), 22] for m in peers]
    assert from_tenant(real, "default", tries) == [True] * 6
    assert from_tenant(real, "other", tries) == [False, True, False, False, True, False]
    address = {m: next(a["address"] for a in real.status(m)["addresses"] if a["type"] == "InternalIP") for m in peers}
    assert from_tenant(real, "default", [["tcp", address[m], 8080] for m in peers]) == [True] * 3
    assert from_tenant(real, "other", [["tcp", address[m], 8080] for m in peers]) == [False, True, False]

    # From the host: the listed ports at the machine's own address and nothing else.
    row = real.status("ports")["access"]
    assert [(r["port"], r["protocol"]) for r in row] == [(80, "TCP")]
    own = row[0]["address"]
    assert from_host(host, [["tcp", own, row[0]["hostPort"]], ["tcp", own, 8080], ["udp", own, UDP]]) == [
        True,
        False,
        False,
    ]
    # WholeIP: every port on which the guest listens, TCP and UDP.
    rows = real.status("whole")["access"]
    assert {(r["port"], r["protocol"]) for r in rows} == {(22, "TCP"), (80, "TCP"), (8080, "TCP"), (UDP, "UDP")}
    assert from_host(host, [[r["protocol"].lower(), r["address"], r["hostPort"]] for r in rows]) == [True] * 4
    # external: false: nothing but our own ways.
    assert real.status("shut")["access"] == []
    assert from_host(host, [["tcp", address[m], 80] for m in peers]) == [False] * 3
    request = real("port-forward", "shut", "80", "--stdio", input="GET / HTTP/1.0\r\n\r\n")
    assert "hello from" in request.out
    assert host.facts() == before
    wide = real("get", "vm", "-o", "wide").out
    assert "TAP" in wide and address["whole"] in wide and rows[0]["address"] in wide
    assert real("down", "-A", "--disks", "--yes", "--force").code == 0
    assert real.processes() == []
    assert host.facts() == before


def test_the_matrix_as_root(real: Real, host: Host):
    matrix(real, host)


@pytest.mark.full
def test_the_matrix_as_an_ordinary_user(user: AsUser, host: Host):
    matrix(user, host)


@pytest.mark.full
def test_edits_reach_a_running_machine(real: Real, host: Host):
    """Ports, method, external and ping, each while it runs; a port that the guest opens later with WholeIP."""
    other = in_namespace(in_namespace(closed(second(TINY, "o")), "o-sys", "other"), "o}", "other")
    assert real("up", write(real, f"{TINY}---\n{other}")).code == 0
    started = real("get", "vm/web", "-o", "json").json["status"]["instanceID"]
    ip = real.status()["addresses"][0]["address"]

    def ping() -> bool:
        return real("network", "exec", "-n", "other", "--", "busybox", "ping", "-c", "1", "-W", "2", ip).code == 0

    def now(text: str, access: set, seen: list[bool], pinged: bool) -> None:
        result = real("up", write(real, text))
        assert result.code == 0, result.err
        assert "starting" not in result.err
        assert {r["port"] for r in real.status()["access"]} == access
        assert from_tenant(real, "other", [["tcp", ip, 80], ["tcp", ip, 8080], ["udp", ip, UDP]]) == seen
        assert ping() is pinged

    now(TINY, {22, 80}, [True, False, False], True)
    now(TINY + "  externalAllowICMP: false\n", {22, 80}, [True, False, False], False)
    now(TINY.replace("[22, 80]", "[8080]"), {8080}, [False, True, False], True)
    now(closed(TINY), set(), [False, False, False], False)
    # No agent: TCP is tried from inside, of UDP the usual ports are open.
    result = real("up", write(real, whole(TINY)))
    assert result.code == 0
    rows = {(r["port"], r["protocol"]): f"{r['address']}:{r['hostPort']}" for r in real.status()["access"]}
    assert {(22, "TCP"), (80, "TCP"), (8080, "TCP"), (UDP, "UDP")} <= set(rows)
    where, port = rows[UDP, "UDP"].split(":")
    assert from_host(host, [["udp", where, int(port)]]) == [True]
    assert from_tenant(real, "other", [["tcp", ip, 8080], ["udp", ip, UDP]]) == [True, True]
    assert real.status()["instanceID"] == started


def test_a_guest_that_lies_harms_nobody(real: Real, host: Host):
    """It takes its neighbour's address, then its MAC, and says it is its neighbour to the DHCP server."""
    assert real("up", write(real, closed(second(TINY, "honest")))).code == 0
    honest = real.status("honest")
    ip = honest["addresses"][0]["address"]
    mac = real("virsh", "domiflist", "default_vm-instance-honest").out.split()[-1]
    lies = f"""\
NIC=eth0; [ -e /sys/class/net/enp1s0 ] && NIC=enp1s0
udhcpc -i $NIC -s /bin/true -q -n -t 2 -T 1 -x hostname:vm-instance-honest >/dev/null 2>&1
ip addr add {ip}/24 dev $NIC
arping -U -c 3 -I $NIC {ip} >/dev/null; arping -A -c 2 -I $NIC {ip} >/dev/null
echo LIED
(sleep 12; ip addr del {ip}/24 dev $NIC; ip link set $NIC down; ip link set $NIC address {mac}; ip link set $NIC up; ping -c 5 10.77.0.1 >/dev/null 2>&1; echo STOLE) &
"""
    result = real("up", write(real, seeded(closed(second(TINY, "liar")), lies)))
    assert result.code == 0 and "LIED" in real("logs", "liar").out
    uuid = honest["instanceID"]

    def page(host_name: str) -> str:
        done = real("network", "exec", "--", "curl", "-s", "-m", "4", f"http://{host_name}/")
        return done.out

    for _ in range(3):
        assert uuid in page(ip) and uuid in page(name("honest"))
    deadline = time.monotonic() + patience(60)
    while "STOLE" not in real("logs", "liar").out:
        assert time.monotonic() < deadline
        time.sleep(1)
    for _ in range(3):
        assert uuid in page(ip)


@pytest.mark.full
def test_the_range_is_free_of_the_hosts_routes(real: Real, host: Host):
    host.run("ip", "link", "add", "vpn0", "type", "bridge")
    try:
        host.run("ip", "addr", "add", "10.77.40.1/24", "dev", "vpn0")
        host.run("ip", "link", "set", "vpn0", "up")
        assert real("up", write(real, TINY)).code == 0
        assert real.status()["addresses"][0]["address"].startswith("10.78.")
        assert "hello from" in (host.http(real.access(80)) or "")
    finally:
        host.run("ip", "link", "del", "vpn0")


@pytest.mark.full
def test_a_machine_on_a_bridge_of_the_hosts(real: Real, host: Host, lan: Lan):
    """WholeIP as root: a neighbour of the whole LAN; PortList and external: false are a firewall there too."""
    before = host.facts()
    beside = closed(second(TINY, "beside"))
    text = f"{whole(TINY)}---\n{beside}"
    refused = real("up", write(real, text), "--bridge", "br9")
    assert refused.code == 1 and "HK811" in refused.err and "br0" in refused.err
    assert real("get", "-A").out == ""
    result = real("up", write(real, text), "--bridge", "br0")
    assert result.code == 0, result.err

    def address() -> str:
        return next((a["address"] for a in real.status()["addresses"] if a["type"] == "ExternalIP"), "")

    deadline = time.monotonic() + patience(30)
    while not address():
        assert time.monotonic() < deadline
        time.sleep(0.5)
    ip = address()
    assert ip.startswith("192.168.77.")

    def seen() -> list[bool]:
        tries = json.dumps([["tcp", ip, 80], ["tcp", ip, 8080], ["udp", ip, UDP]])
        done = subprocess.run([*lan.inside, "python3", "-c", TRY, tries], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def ping() -> bool:
        return (
            subprocess.call([*lan.inside, "busybox", "ping", "-c", "1", "-W", "2", ip], stdout=subprocess.DEVNULL) == 0
        )

    assert seen() == [True, True, True] and ping()
    assert "hello from" in (host.http(f"{ip}:8080") or "")
    # Its tenant finds it by name, at that address, through the host.
    assert ip in real("network", "exec", "--", "getent", "hosts", name("web")).out
    assert from_tenant(real, "default", [["tcp", name("web"), 80]]) == [True]
    # Edits of the running machine are a firewall on its wire.
    for changed, expected, pinged in (
        (TINY.replace("[22, 80]", "[80]"), [True, False, False], True),
        (TINY.replace("[22, 80]", "[8080]") + "  externalAllowICMP: false\n", [False, True, False], False),
        (closed(TINY), [False, False, False], False),
        (whole(TINY), [True, True, True], True),
    ):
        assert real("up", write(real, f"{changed}---\n{beside}")).code == 0
        assert (seen(), ping()) == (expected, pinged), changed
    assert real("down", "--force").code == 0
    assert real.processes() == []
    assert host.facts() == before


def test_network_exec_is_a_pod_of_the_tenant(real: Real):
    assert real("network", "exec", "--", "true").code == 1  # no network is up
    assert real("up", write(real, closed(TINY))).code == 0
    assert real("network", "exec", "--", "sh", "-c", "exit 7").code == 7
    links = real("network", "exec", "--", "ip", "-br", "addr").out
    assert "eth0" in links and "tap0" not in links
    assert "nameserver 10.77." in real("network", "exec", "--", "cat", "/etc/resolv.conf").out
    missing = real("network", "exec", "--", "no-such-program")
    assert missing.code == 1 and "HK601" in missing.err


# What Docker gives a container's root (moby, profiles/capabilities).
DOCKER = "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod"
DOCKER += " audit_write setfcap"


def test_root_in_a_container_is_told_what_it_lacks_and_works_with_it(real: Real, host: Host):
    def container(more: str) -> list[str]:
        given = ",".join(["-all", *(f"+{c}" for c in f"{DOCKER} {more}".split())])
        inside = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--uts", "--ipc", "--kill-child"]
        return [*inside, "setpriv", f"--bounding-set={given}", f"--inh-caps={given}"]

    path = write(real, TINY)
    for more, lacking in (("", "NET_ADMIN, SYS_PTRACE, SYS_ADMIN"), ("net_admin sys_ptrace", "SYS_ADMIN")):
        real.confine = container(more)
        refused = real("up", path)
        assert refused.code == 1 and f"lacks {lacking}" in refused.err and "--cap-add SYS_ADMIN" in refused.err
    # One container for both commands: its processes end with it.
    words = [sys.executable, "-m", "hikube_local"]
    script = f"{shlex.join([*words, 'up', str(path)])} && {shlex.join([*words, 'down', '--disks', '--yes'])}"
    argv = [*host.enter, *container("net_admin sys_ptrace sys_admin"), "sh", "-c", script]
    done = subprocess.run(argv, env=real.env, capture_output=True, text=True, timeout=patience(200))
    assert done.returncode == 0 and "ready after" in done.stderr, done.stderr
    real.confine = []
    assert real.processes() == []


def test_purge_ends_everything_also_what_is_damaged(real: Real, host: Host):
    before = host.facts()
    # A root that `test --keep` left, with its machine.
    kept = real.home / "state" / "lab" / "t123456"
    kept.mkdir(parents=True)
    (kept / "kept").touch()
    (kept / "cache").symlink_to(real.home / "cache")
    assert real("up", write(real, TINY), env={"HIKUBE_LOCAL_HOME": str(kept)}).code == 0
    of_test = layout({"HIKUBE_LOCAL_HOME": str(kept)}).runtime
    assert real("up", write(real, f"{TINY}---\n{second(TINY, 'b')}")).code == 0
    killed(*helpers.holders(real.runtime / "libvirtd.lock"))
    (real.home / "state" / "machines" / "default" / "web" / "object.json").write_text("{")
    listed = real("purge", "-A")
    assert listed.code == 2 and "qemu-system" in listed.out and "--yes" in listed.err
    assert len(real.processes()) > 3
    result = real("purge", "-A", "--yes")
    assert result.code == 0, result.err
    assert real.processes() == [] and ours(of_test) == []
    assert not real.runtime.exists() and not of_test.exists()
    assert list((kept / "state" / "disks" / "default").iterdir())  # data go only when asked
    assert [i["kind"] for i in real("get", "-A", "-o", "json").json["items"]] == ["VMDisk", "VMDisk"]
    assert host.facts() == before
    gone = real("purge", "-A", "--disks", "--yes")
    assert gone.code == 0 and "vmdisk default/sys" in gone.out
    assert not (real.home / "state").exists()


@pytest.mark.full
def test_a_guests_clock_is_put_right_after_the_host_slept(real: Real):
    assert real("up", write(real, seeded(TINY, "agent &\nsleep 1"))).code == 0
    assert "clock was set" not in real("logs", "web").out
    with sqlite3.connect(real.home / "state" / "store.sqlite") as store:
        name, body = store.execute("SELECT scope, body FROM allocations WHERE scope LIKE '%/web'").fetchone()
        row = json.loads(body)
        row["asleep"] -= 600  # as if the host had slept ten minutes since the start
        store.execute("UPDATE allocations SET body=? WHERE scope=?", (json.dumps(row), name))
    real("get", "vm", "web")
    assert "clock was set" not in real("logs", "web").out  # a look changes no guest
    real("wait", "vm/web", "--for=condition=Ready")
    assert "agent: the clock was set" in real("logs", "web").out


@pytest.mark.full
def test_further_networks_are_isolated_ones_with_a_nic_each(real: Real, host: Host):
    """A guest does not configure them by itself, as on Hikube; one that asks gets an address; two reach one another there."""
    other = "NIC=eth1; [ -e /sys/class/net/$NIC ] || NIC=enp2s0\nip link show $NIC | grep -q mtu && echo SECOND\nip addr show $NIC | grep -q 'inet ' && echo CONFIGURED\n"
    other += """printf '#!/bin/sh\n[ "$1" = bound ] && echo "LEASE $ip mtu=$mtu router=[$router] names=[$dns$search$domain]"\n' >/tmp/lease\n"""
    other += "chmod +x /tmp/lease; ip link set $NIC up; udhcpc -i $NIC -n -q -f -O mtu -O search -s /tmp/lease\n"
    a = seeded(
        closed(second(TINY, "a")) + "  networks: [{name: back}]\n",
        f"{other}ip addr add 192.168.5.1/24 dev $NIC; ip link set $NIC up",
    )
    look = f"{other}ip addr add 192.168.5.2/24 dev $NIC; ip link set $NIC up\nfor i in 1 2 3 4 5 6 7 8 9; do ping -c 1 -W 1 192.168.5.1 >/dev/null && echo REACHED && break; sleep 1; done"
    b = seeded(closed(second(TINY, "b")) + "  subnets: [{name: back}]\n", look)
    result = real("up", write(real, f"{a}---\n{b}"))
    assert result.code == 0 and "HK512" in result.err
    log = real("logs", "b").out
    assert "SECOND" in log and "REACHED" in log and "CONFIGURED" not in log
    leases = [re.search(r"LEASE (10\.\d+\.\d+\.\d+) (.*)", real("logs", name).out) for name in ("a", "b")]
    assert all(found and found[2].strip() == "mtu=1400 router=[] names=[]" for found in leases), log[-1500:]
    assert len({found[1] for found in leases}) == 2 and len({found[1].rpartition(".")[0] for found in leases}) == 1
    assert real("network", "exec", "--", "busybox", "ping", "-c", "1", "-W", "1", "192.168.5.1").code != 0

    def devices() -> set[str]:
        shown = host.run("nsenter", "-t", helpers.pid_of(real.runtime / "ns.lock"), "-n", "ip", "-br", "link")
        return {line.split()[0].partition("@")[0] for line in shown.stdout.splitlines()}

    before = devices()
    assert real("down", "a", "--force").code == 0
    assert len(before - devices()) == 2 and devices() < before, "its two taps went, and the bridges that b is on stayed"


@pytest.mark.full
def test_up_rebuilds_everything_after_a_reboot_of_the_host(real: Real, host: Host):
    """A reboot takes every process and the runtime folder; the state stays."""
    assert real("up", write(real, TINY)).code == 0
    where = real.access(80)
    killed(*real.processes())
    shutil.rmtree(real.runtime)
    assert real("get", "vm", "web", "-o", "json").json["status"]["printableStatus"] != "Running"
    assert real("up", write(real, TINY)).code == 0
    assert real.access(80) == where
    assert "hello from" in (host.http(where) or "")


@pytest.mark.full
def test_ipv6_inside_the_tenant_where_the_host_has_it(real: Real, host: Host):
    host.run("ip", "link", "add", "v6", "type", "bridge")
    try:
        host.run("ip", "-6", "addr", "add", "2001:db8::1/64", "dev", "v6", "nodad")
        host.run("ip", "link", "set", "v6", "up")
        script = "NIC=eth0; [ -e /sys/class/net/enp1s0 ] && NIC=enp1s0\nfor i in 1 2 3 4 5 6 7 8 9 10; do ip -6 addr show $NIC | grep -q fd77 && break; sleep 1; done; ip -6 addr show $NIC; ip -6 route"
        text = f"{seeded(closed(second(TINY, 'a')), script)}---\n{seeded(closed(second(TINY, 'b')), script)}"
        result = real("up", write(real, text))
        assert result.code == 0, result.err
        log = real("logs", "a").out
        found = re.search(r"inet6 (fd77:[0-9a-f:]+)/64", log)
        assert found and "default via fe80" in log, log[-1500:]
        assert real("network", "exec", "--", "true").code == 0
    finally:
        host.run("ip", "link", "del", "v6")


@pytest.mark.full
def test_a_namespace_that_went_is_not_taken_for_the_new_one(real: Real, host: Host):
    """The kernel gives the same inode again: rules, taps and helpers of the namespace before are those of nobody."""
    for n in range(3):
        assert real("up", write(real, TINY)).code == 0, n
        assert "hello from" in (host.http(real.access(80)) or ""), n
        assert real("down", "--force").code == 0
    assert real("up", write(real, TINY)).code == 0
    assert real("stop", "web", "--force").code == 0
    for lock in ("ns", "libvirtd"):  # nothing is left from which it could be taken up again, but slirp4netns lives
        killed(helpers.pid_of(real.runtime / f"{lock}.lock"))
    result = real("start", "web", "--wait")
    assert result.code == 0, result.err
    assert "hello from" in (host.http(real.access(80)) or "")
