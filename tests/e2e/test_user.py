"""The same for an ordinary user: a throw-away one, with the wheel in its home, python3-libvirt and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hikube_local.backends.qemu import helpers
from tests import wheel
from tests.conftest import Result
from tests.e2e.conftest import TINY, TINY_URL, Host, Real, ours, stock

pytestmark = pytest.mark.e2e


class AsUser(Real):
    """The program as the throw-away user, on a host where /dev/net/tun may be opened, as on laptops."""

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self.user_home = Path("/home") / name
        super().__init__(self.user_home / "state-root", host)
        self.run_dir = Path(f"/run/{name}")
        self.env = {
            "HOME": str(self.user_home),
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(self.run_dir),
            "PYTHONPATH": str(self.user_home / "site"),
        }

    def __call__(
        self, *words: object, input: str | None = None, timeout: float = 400, env: dict | None = None
    ) -> Result:
        become = ["setpriv", f"--reuid={self.name}", f"--regid={self.name}", "--clear-groups", "env", "-i"]
        become += [f"{k}={v}" for k, v in {**self.env, **(env or {})}.items()]
        argv = [*self.host.enter, *become, "/usr/bin/python3", "-m", "hikube_local", *map(str, words)]
        done = subprocess.run(argv, input=input, capture_output=True, text=True, timeout=timeout)
        return Result(done.returncode, done.stdout, done.stderr)

    @property
    def runtime(self) -> Path:
        found = list((self.run_dir / "hikube-local").glob("*"))
        return found[0] if found else self.run_dir / "hikube-local" / "none"


@pytest.fixture(scope="module")
def user(host: Host, tiny_image: Path, tmp_path_factory) -> Iterator[AsUser]:
    name = f"hkt{os.getpid()}"
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True)
    program = AsUser(name, host)
    tun = Path(f"/run/{name}.tun")
    try:
        program.run_dir.mkdir(mode=0o700)
        wheel.install(tmp_path_factory.mktemp("wheel"), program.user_home / "site")
        cache = program.user_home / ".cache" / "hikube-local"
        stock(cache.parent / "stock", TINY_URL, tiny_image)
        cache.mkdir(parents=True)
        (cache.parent / "stock" / "cache" / "images").rename(cache / "images")
        subprocess.run(["chown", "-R", f"{name}:", program.user_home, program.run_dir], check=True)
        os.chmod(program.user_home, 0o700)
        # A device node that everybody may open, seen on this host alone.
        subprocess.run(["mknod", "-m", "0666", tun, "c", "10", "200"], check=True)
        host.run("mount", "--bind", tun, "/dev/net/tun")
        yield program
        program.close()
    finally:
        host.run("umount", "/dev/net/tun", check=False)
        tun.unlink(missing_ok=True)
        for pid in ours(program.runtime):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(program.run_dir, ignore_errors=True)
        time.sleep(0.2)
        subprocess.run(["userdel", "--remove", "--force", name], check=False, capture_output=True)


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
