"""Real guests, in a network and mount namespace without an uplink that the tests make themselves."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hikube_local.catalogue import data
from hikube_local.events import ignore
from hikube_local.images import build, intake
from hikube_local.images.cache import Cache
from tests import wheel
from tests.conftest import Program
from tests.growth import patience
from tests.guests import tiny

# Kept between runs, since the image takes a minute and a half to build; the same place that root's `make up` uses.
KEPT = Path(os.environ.get("HIKUBE_LOCAL_TEST_CACHE", "/var/cache/hikube-local"))
TINY_URL = "http://tiny.invalid/tiny.qcow2"


class Host:
    """A namespace that plays the host: a loopback and nothing else."""

    def __init__(self) -> None:
        make = "ip link set lo up && exec sleep infinity"
        self.process = subprocess.Popen(
            ["unshare", "-n", "-m", "--propagation", "private", "sh", "-c", make], stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + patience(5)
        while "sleep" not in self._exe():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _exe(self) -> str:
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/{self.process.pid}/exe")
        return ""

    @property
    def enter(self) -> list[str]:
        return ["nsenter", "-t", str(self.process.pid), "-n", "-m", "--wd=/"]

    def run(self, *words: object, check: bool = True, **kw) -> subprocess.CompletedProcess:
        kw.setdefault("timeout", 60)
        return subprocess.run([*self.enter, *map(str, words)], capture_output=True, text=True, check=check, **kw)

    def http(self, where: str, timeout: int = 5) -> str | None:
        """The page at ADDRESS:PORT, or None when nobody answers."""
        done = self.run("curl", "-s", "-m", timeout, "--noproxy", "*", f"http://{where}/", check=False)
        return done.stdout if done.returncode == 0 else None

    def facts(self) -> str:
        """Interfaces, routes, firewall and mounts, to be compared."""
        parts = [
            self.run(*w, check=False).stdout
            for w in (("ip", "-br", "link"), ("ip", "-br", "addr"), ("ip", "route"), ("nft", "list", "ruleset"))
        ]
        # A bridge's operational state follows its ports': it is no setting.
        return re.sub(r"^(\S+) +(UNKNOWN|UP|DOWN) +", r"\1 ", "\n".join(parts), flags=re.M)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Real(Program):
    """The program on such a host; everything it started is ended at the end."""

    LONG = 400.0

    def __init__(self, home: Path, host: Host) -> None:
        super().__init__(home)
        self.host = host

    def before(self, env: dict[str, str]) -> list[str]:
        return [*self.host.enter, *self.confine, sys.executable]

    def status(self, name: str = "web") -> dict:
        return self("get", "vm", name, "-o", "json").json["status"]

    def access(self, port: int, name: str = "web") -> str:
        row = next(a for a in self.status(name)["access"] if a["port"] == port)
        return f"{row['address']}:{row['hostPort']}"

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 120) -> None:
        """Until `condition` holds; `seconds` are those of a fast machine (patience)."""
        deadline = time.monotonic() + patience(seconds)
        while True:
            begin = time.monotonic()
            if condition():
                return
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            # A look with our own program takes as much of a processor as the guest that it waits for.
            time.sleep(max(0.5, 3 * (time.monotonic() - begin)))

    def processes(self) -> list[int]:
        """Every process that belongs to this state root's sandbox."""
        return ours(self.runtime)

    @property
    def runtime(self) -> Path:
        from hikube_local.paths import layout

        return layout({"HIKUBE_LOCAL_HOME": str(self.home)}).runtime

    def close(self) -> None:
        self("down", "-A", "--force")
        left = self.processes()
        killed(*left)
        shutil.rmtree(self.runtime, ignore_errors=True)
        assert not left, "processes were left over"


def ours(runtime: Path) -> list[int]:
    """Live processes whose standard input is a lock below `runtime`, or whose words name it."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{entry}/cmdline").read_bytes()
            stdin = os.readlink(f"/proc/{entry}/fd/0")
            if words and (
                stdin.startswith(str(runtime)) or (str(runtime).encode() in words and b"hikube_local" not in words)
            ):
                found.append(int(entry))
    return found


def killed(*pids: int) -> None:
    """Killed, and gone: one that is only on its way out is still seen by what looks."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                assert select.select([fd], [], [], patience(20))[0], f"process {pid} does not end"
            finally:
                os.close(fd)


@pytest.fixture(scope="session")
def debian() -> Path:
    """The Debian 12 image of our own recipe."""
    return built("debian-12")


def built(recipe: str) -> Path:
    cache = Cache(KEPT / "images", 0o711)
    return cache.path(build.build(cache, recipe, ignore).digest)


@pytest.fixture(scope="session")
def tiny_image(debian: Path) -> Path:
    return tiny.make(debian, KEPT / "test-guests")


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("real guests need root for the namespace that plays the host (make test uses sudo)")
    made = Host()
    yield made
    made.close()


def stock(home: Path, key: str, image: Path) -> None:
    """Lay an image into a state root's cache, as if it had been fetched from `key`."""
    cache = Cache(home / "cache" / "images", 0o711)
    cache.make()
    copy = cache.folder / "partial" / image.name
    subprocess.run(["cp", "--reflink=auto", image, copy], check=True)
    intake.adopt(cache, copy, key, key)


def stock_recipe(home: Path, image: Path, name: str = "debian-12") -> None:
    recipe = build.recipes()[name]
    stock(home, f"recipe:{recipe.name}:{recipe.digest}", image)


def vendor_url() -> str:
    return data.images()["debian-12"].url


TINY = f"""\
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata: {{name: sys}}
spec: {{storage: 1Gi, source: {{http: {{url: "{TINY_URL}"}}}}}}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {{name: web}}
spec:
  external: true
  externalPorts: [22, 80]
  instanceType: u1.nano
  instanceProfile: alpine
  disks: [sys]
"""


def empty_disk(name: str, storage: str = "1Gi") -> str:
    """A document more: a VMDisk without a source."""
    head = "---\napiVersion: apps.cozystack.io/v1alpha1\nkind: VMDisk\n"
    return f"{head}metadata: {{name: {name}}}\nspec: {{storage: {storage}, storageClass: local}}\n"


def seeded(text: str, script: str) -> str:
    """The tiny machine with a shell script as its user-data."""
    body = "".join(f"    {line}\n" for line in script.splitlines())
    return f"{text}  cloudInit: |\n    #!/bin/sh\n{body}"


def second(text: str, name: str, **changes: str) -> str:
    """The tiny pair under another name."""
    return (
        text.replace("name: sys}", f"name: {name}-sys}}")
        .replace("name: web}", f"name: {name}}}")
        .replace("[sys]", f"[{name}-sys]")
    )


@pytest.fixture
def real(host: Host, tiny_image: Path, tmp_path: Path) -> Iterator[Real]:
    """A state root of its own on the shared host, with the tiny image at hand."""
    program = Real(tmp_path / "home", host)
    os.chmod(tmp_path, 0o700)
    stock(program.home, TINY_URL, tiny_image)
    yield program
    program.close()


DEBIAN_DISK = """\
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata: {name: sys}
spec: {storage: 4Gi, storageClass: local, source: {image: {name: debian-12}}}
---
"""
# A Debian guest of its own; what its user-data says comes behind.
DEBIAN = f"""\
{DEBIAN_DISK}apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {{name: web}}
spec:
  instanceType: u1.small
  disks: [sys]
  cloudInit: |
    #cloud-config
"""


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

    def before(self, env: dict[str, str]) -> list[str]:
        become = ["setpriv", f"--reuid={self.name}", f"--regid={self.name}", "--clear-groups", "env", "-i"]
        become += [f"{k}={v}" for k, v in env.items()]
        return [*self.host.enter, *become, *self.confine, "/usr/bin/python3"]

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
        killed(*ours(program.runtime))
        shutil.rmtree(program.run_dir, ignore_errors=True)
        subprocess.run(["userdel", "--remove", "--force", name], check=False, capture_output=True)


class Lan:
    """A bridge of the host's with an address and a DHCP server, and a neighbour on it; ended also when it was half made."""

    def __init__(self, host: Host) -> None:
        self.host, self.name = host, "br0"
        self.started: list[subprocess.Popen] = []

    @property
    def inside(self) -> list[str]:
        return ["nsenter", "-t", str(self.started[0].pid), "-n"]

    def make(self, folder: Path) -> None:
        host = self.host
        host.run("ip", "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0")
        host.run("ip", "addr", "add", "192.168.77.1/24", "dev", "br0")
        host.run("ip", "link", "set", "br0", "up")
        neighbour = subprocess.Popen([*host.enter, "unshare", "-n", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        self.started.append(neighbour)
        deadline = time.monotonic() + patience(5)
        while not os.readlink(f"/proc/{neighbour.pid}/exe").endswith("/sleep"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        host.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "eth0", "netns", neighbour.pid)
        host.run("ip", "link", "set", "lan0", "master", "br0", "up")
        for words in ("ip link set lo up", "ip addr add 192.168.77.2/24 dev eth0", "ip link set eth0 up"):
            subprocess.run([*self.inside, *words.split()], check=True)
        words = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--interface=br0", "--bind-interfaces", "--port=0"]
        words += ["--dhcp-range=192.168.77.50,192.168.77.99,1h", f"--dhcp-leasefile={folder}/leases", "--user=root"]
        log = open(folder / "dnsmasq.log", "wb")  # noqa: SIM115 (as long as the process)
        self.started.append(subprocess.Popen([*host.enter, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def close(self) -> None:
        for process in reversed(self.started):
            process.kill()
            process.wait()
        for name in ("br0", "lan0"):
            self.host.run("ip", "link", "del", name, check=False)


@pytest.fixture
def lan(host: Host, tmp_path: Path) -> Iterator[Lan]:
    made = Lan(host)
    try:
        made.make(tmp_path)
        yield made
    finally:
        made.close()
