"""The same for an ordinary user: a throw-away one, with the wheel in its home, python3-libvirt and nothing else."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from hikube_local.backends.qemu.network import helpers
from tests.e2e.conftest import TINY, AsUser, Host, empty_disk, killed, ours, second
from tests.growth import patience

pytestmark = pytest.mark.e2e


def test_a_user_gets_machines_without_privileges(user: AsUser, host: Host):
    before = host.facts()
    path = user.user_home / "m.yaml"
    path.write_text(TINY)
    os.chmod(path, 0o644)
    result = user("up", path)
    assert result.code == 0, result.err
    where = user.access(80)
    assert where.endswith(":10080")  # a user may not bind 80 here: told, with the setting that would allow it
    assert "ip_unprivileged_port_start" in result.err
    assert "hello from" in (host.http(where) or "")
    assert user.status()["addresses"][0]["type"] == "InternalIP"
    names = set()
    for pid in ours(user.runtime):
        status = Path(f"/proc/{pid}/status").read_text()
        name = status.split("\n")[0].split("\t")[1]
        if name in ("libvirtd", "tini") or name.startswith("qemu"):
            names.add(name)
            assert "CapEff:\t0000000000000000" in status, name
    assert "libvirtd" in names and any(n.startswith("qemu") for n in names)
    assert "nothing changed" in user("up", path).err
    # A killed libvirtd comes back with its machine.
    killed(*helpers.holders(user.runtime / "libvirtd.lock"))
    assert user("up", path).code == 0
    assert "hello from" in (host.http(where) or "")
    assert host.facts() == before
    assert user("stop", "web").code == 0
    assert user("start", "web", "--wait").code == 0
    assert "hello from" in (host.http(where) or "")
    state = user.user_home / ".local" / "state" / "hikube-local"
    assert state.stat().st_mode & 0o777 == 0o700
    assert user("down", "--disks", "--yes").code == 0
    assert ours(user.runtime) == []


def test_without_namespaces_each_machine_is_alone_and_that_is_said(user: AsUser, host: Host):
    """As on Ubuntu 24.04 with its AppArmor setting: no namespace may be made inside the one that this test confines to."""
    proved = user.user_home / ".cache" / "hikube-local" / "namespace.json"
    proved.unlink(missing_ok=True)
    stop = "echo 0 > /proc/sys/user/max_user_namespaces && exec sleep infinity"
    make = ["unshare", "-U", "--map-current-user", "--keep-caps", "sh", "-c", stop]
    become = ["setpriv", f"--reuid={user.name}", f"--regid={user.name}", "--clear-groups"]
    jail = subprocess.Popen([*host.enter, *become, *make], stdin=subprocess.DEVNULL)
    path = user.user_home / "alone.yaml"

    def up(text: str):
        path.write_text(text)
        os.chmod(path, 0o644)
        return user("up", path)

    try:
        deadline = time.monotonic() + patience(5)
        while not os.readlink(f"/proc/{jail.pid}/exe").endswith("/sleep"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        user.confine = ["nsenter", "-t", str(jail.pid), "-U", "--preserve-credentials"]
        doctor = user("doctor", "-o", "json").json
        assert not next(c for c in doctor["checks"] if c["name"] == "network namespace")["ok"]
        result = up(TINY)
        assert result.code == 0, result.err
        assert "HK518" in result.err and "isolated" in result.err
        where = user.access(80)
        assert "hello from" in (host.http(where) or "")
        assert host.http(f"{where.split(':')[0]}:18080", 2) is None
        assert "nothing changed" in up(TINY).err
        assert up(TINY.replace("[22, 80]", "[8080]")).code == 0
        assert "hello from" in (host.http(user.access(8080)) or "")
        assert host.http(where, 2) is None
        assert up(TINY.replace("external: true", "external: false")).code == 0
        assert user.status()["access"] == []
        request = user("port-forward", "web", "80", "--stdio", input="GET / HTTP/1.0\r\n\r\n")
        assert "hello from" in request.out
        assert "nothing changed" in up(TINY.replace("external: true", "external: false")).err
        refused = user("network", "exec", "--", "true")
        assert refused.code == 1 and "HK806" in refused.err
        assert "HK518" in user("describe", "vm/web").out
        killed(*helpers.holders(user.runtime / "libvirtd.lock"))
        assert user.status()["printableStatus"] == "Unknown"  # a look starts nothing
        assert user("wait", "vm/web", "--for=condition=Ready").code == 0
        assert user.status()["printableStatus"] == "Running"
        assert user("down", "--disks", "--yes", "--force").code == 0
        assert ours(user.runtime) == []
    finally:
        user("down", "-A", "--disks", "--yes", "--force")
        user.confine = []
        jail.kill()
        jail.wait()


SHUT = """#!/bin/sh
# As where AppArmor takes the capabilities of a user namespace away: one may be made, and nothing can be done in it.
case "$*" in *--map-user=*|-n*) exec /usr/bin/unshare "$@";; esac
echo "unshare: write failed /proc/self/uid_map: Operation not permitted" >&2
exit 1
"""


def test_rootlesskit_opens_the_door_that_unshare_finds_shut(user: AsUser, host: Host):
    """The whole tenant network through rootlesskit, with libvirtd and QEMU as the user, without a capability."""
    before = host.facts()
    proved = user.user_home / ".cache" / "hikube-local" / "namespace.json"
    proved.unlink(missing_ok=True)
    shut = user.user_home / "shut"
    shut.mkdir()
    (shut / "unshare").write_text(SHUT)
    os.chmod(shut, 0o755)
    os.chmod(shut / "unshare", 0o755)
    path = user.user_home / "two.yaml"
    path.write_text(TINY + "---\n" + second(TINY, "db").replace("external: true", "external: false"))
    os.chmod(path, 0o644)
    plain, user.env["PATH"] = user.env["PATH"], f"{shut}:{user.env['PATH']}"
    try:
        doctor = user("doctor", "-o", "json").json
        check = next(c for c in doctor["checks"] if c["name"] == "network namespace")
        assert check["ok"] and "rootlesskit" in check["detail"], check
        result = user("up", path)
        assert result.code == 0 and "HK518" not in result.err, result.err
        assert "hello from" in (host.http(user.access(80)) or "")
        uid = str(Path(f"/proc/{ours(user.runtime)[0]}").stat().st_uid)
        seen = {}
        for pid in ours(user.runtime):
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            seen[status["Name"]] = status
            if status["Name"].startswith(("libvirtd", "tini", "qemu", "virtlogd")):
                assert status["CapEff"] == "0" * 16, status["Name"]
                assert set(status["Uid"].split()) == {uid}, status["Name"]
        assert {"libvirtd", "rootlesskit", "dnsmasq"} <= set(seen)
        reached = user("network", "exec", "--", "curl", "-sf", "http://vm-instance-db.default.svc.cozy.local/")
        assert "hello from" in reached.out, reached.err
        # Each of them killed: the next command brings it back, by the same launcher.
        for name in ("rootlesskit", "sleep", "libvirtd", "dnsmasq", "slirp4netns"):
            for pid in ours(user.runtime):
                if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == name:
                    killed(pid)
                    break
            again = user("up", path)
            assert again.code == 0, (name, again.err)
            assert "hello from" in (host.http(user.access(80)) or ""), name
        assert user("down", "--disks", "--yes").code == 0
        assert ours(user.runtime) == []
        assert host.facts() == before
    finally:
        user("down", "-A", "--disks", "--yes", "--force")
        user.env["PATH"] = plain
        proved.unlink(missing_ok=True)


def test_checkpoints_firmware_variables_and_tpm_as_a_user(user: AsUser):
    """A blank disk under a Windows profile: it boots nothing, but has its own variables and TPM, kept with the state."""
    blank = f"""{empty_disk("empty")}---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {{name: win}}
spec: {{instanceType: u1.medium, instanceProfile: windows.2k22.virtio, disks: [empty]}}
"""
    path = user.user_home / "m.yaml"
    path.write_text(TINY)
    os.chmod(path, 0o644)
    try:
        assert user("up", path).code == 0
        made = user("snapshot", "create", "web", "one")
        assert made.code == 0 and "with memory" in made.err, made.err
        back = user("snapshot", "restore", "web", "one", "--yes")
        assert back.code == 0, back.err
        assert "hello from" in user("port-forward", "web", "80", "--stdio", input="GET / HTTP/1.0\r\n\r\n").out
        state = user.user_home / ".local" / "state" / "hikube-local"
        memory = next(state.glob("checkpoints/default/web/one/memory"))
        assert memory.stat().st_mode & 0o777 == 0o600
        path.write_text(TINY + blank)
        result = user("up", path)
        assert result.code == 1 and "HK901" in result.err, result.err
        assert next(state.glob("machines/default/win/vars.fd")).stat().st_mode & 0o077 == 0
        assert [p.name for p in state.glob("tpm/*/tpm2/*.permall")] == ["tpm2-00.permall"]
        assert user("down", "-A", "--disks", "--yes", "--force").code == 0
        assert not list(state.glob("tpm/*")) and not list(state.glob("checkpoints/*/*"))
        assert ours(user.runtime) == []
    finally:
        user("down", "-A", "--disks", "--yes", "--force")
