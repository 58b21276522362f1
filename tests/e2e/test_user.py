"""The same for an ordinary user: a throw-away one, with the wheel in its home, python3-libvirt and nothing else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from hikube_local.backends.qemu import helpers
from tests.e2e.conftest import TINY, AsUser, Host, ours

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
    os.kill(helpers.pid_of(user.runtime / "libvirtd.lock"), signal.SIGKILL)
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
