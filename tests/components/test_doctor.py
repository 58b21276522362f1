"""doctor on a host that lacks what it names: each program hidden, in a mount namespace of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from hikube_local.host.doctor import DRIVERS, TOOLS, driver
from tests.conftest import Program
from tests.growth import patience

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hiding programs takes a mount namespace of root's")


def test_all_that_is_missing_is_named_at_once(hikube: Program):
    """Not one after the other: whoever meets a fresh host installs once."""
    paths = {name: shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin") for name in TOOLS if name != "unshare"}
    hidden = " && ".join(f"mount --bind /dev/null {os.path.realpath(p)}" for p in paths.values() if p)
    words = [
        "unshare",
        "-m",
        "sh",
        "-c",
        f'{hidden} && exec "$@"',
        "sh",
        sys.executable,
        "-m",
        "hikube_local",
        "doctor",
    ]
    done = subprocess.run(
        words, env=hikube.env, cwd=hikube.folder, capture_output=True, text=True, timeout=patience(60)
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    for name in paths:
        assert f"FAIL  {name}: not installed" in done.stdout, (name, done.stdout)
    assert "this host cannot run machines yet" in done.stdout


def test_libvirts_driver_for_qemu_is_asked_for(monkeypatch, tmp_path):
    """On Debian 13 its daemon comes without."""
    assert driver().ok
    folder = tmp_path / "lib" / "x86_64-linux-gnu" / "libvirt" / "connection-driver"
    folder.mkdir(parents=True)
    monkeypatch.setattr("hikube_local.host.doctor.DRIVERS", [d.replace("/usr", str(tmp_path)) for d in DRIVERS])
    assert not driver().ok and driver().needed and "libvirt-daemon-driver-qemu" in driver().fix
    (folder / "libvirt_driver_qemu.so").touch()
    assert driver().ok
