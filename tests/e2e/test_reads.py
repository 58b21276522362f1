"""Reads never write, with real machines: one that runs, one that is stopped, and a checkpoint that was cut short."""

from __future__ import annotations

from pathlib import Path

import pytest

from hikube_local.backends.qemu.context import PENDING
from hikube_local.backends.qemu.network import helpers
from hikube_local.files import write_json
from tests import reads
from tests.e2e.conftest import TINY, Host, Real, killed, second

pytestmark = pytest.mark.e2e
# What QEMU itself writes while it runs.
ALIVE = ("console.log", "firmware.log", "disk.qcow2", ".log")


def kept(real: Real) -> dict[str, tuple]:
    """The state root's files; of those that QEMU or a log grows in, only that they are the same ones."""
    found = reads.content([real.home / "state", real.home / "cache" / "images"])
    return {name: (row[0], row[3]) if name.endswith(ALIVE) else row for name, row in found.items()}


def standing(real: Real, host: Host) -> tuple:
    """Processes and the host's network, to be compared."""
    return sorted(real.processes()), host.facts()


def test_a_look_leaves_files_guests_libvirt_and_the_network_as_they_were(real: Real, host: Host, tmp_path: Path):
    pair = f"{TINY}---\n{second(TINY, 'idle')}"
    path = real.file("m.yaml", pair)
    assert real("up", path).code == 0
    told = real("stop", "idle", "--debug")
    assert told.code == 0 and "libvirt: default_vm-instance-idle.shutdown (" in told.err
    looks(real, host, tmp_path, path)
    # As a kill leaves a checkpoint that had just begun: the next `up` undoes it, a look does not.
    pending = real.home / "state" / "machines" / "default" / "web" / PENDING
    row = {"verb": "create", "name": "half", "old": {"sys": "disk.qcow2"}, "new": {"sys": "layer-0badcafe.qcow2"}}
    write_json(pending, row)
    looks(real, host, tmp_path, path, reads.LOOKS[:7])
    assert pending.exists()
    # libvirt was killed: a look says so and starts nothing.
    killed(*helpers.holders(real.runtime / "libvirtd.lock"))
    before, files = standing(real, host), kept(real)
    shown = real("get", "vm", "web")
    assert "Unknown" in shown.out and shown.code == 0
    assert "hikube-local up starts it again" in real("describe", "vm", "web").out
    assert (standing(real, host), kept(real)) == (before, files)
    assert real("up", path).code == 0 and not pending.exists()
    assert "Running" in real("get", "vm", "web").out


def looks(real: Real, host: Host, tmp_path: Path, manifest: Path, every: tuple = reads.LOOKS) -> None:
    before, files = standing(real, host), kept(real)
    for words in every:
        trace = tmp_path / "trace"
        real.confine = [*reads.TRACE, "-o", str(trace)]
        result = real(*(str(manifest) if w == "FILE" else w for w in words))
        real.confine = []
        below = [real.home / "state", real.home / "cache", real.runtime]
        wrote = list(reads.writes(trace, below))
        assert wrote == [], (words, result.err, wrote)
        assert kept(real) == files, words
    assert standing(real, host) == before
