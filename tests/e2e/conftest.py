"""Real guests, in a network and mount namespace without an uplink that the tests make themselves."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hikube_local.catalogue import data
from hikube_local.events import ignore
from hikube_local.images import build
from hikube_local.images.cache import Cache
from tests.conftest import Program, Result
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
        deadline = time.monotonic() + 5
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
        return "\n".join(parts)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Real(Program):
    """The program on such a host; everything it started is ended at the end."""

    def __init__(self, home: Path, host: Host) -> None:
        super().__init__(home)
        self.host = host

    def __call__(
        self, *words: object, input: str | None = None, timeout: float = 400, env: dict | None = None
    ) -> Result:
        argv = [*self.host.enter, sys.executable, "-m", "hikube_local", *map(str, words)]
        done = subprocess.run(
            argv, input=input, capture_output=True, text=True, timeout=timeout, env={**self.env, **(env or {})}
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def status(self, name: str = "web") -> dict:
        return self("get", "vm", name, "-o", "json").json["status"]

    def access(self, port: int, name: str = "web") -> str:
        row = next(a for a in self.status(name)["access"] if a["port"] == port)
        return f"{row['address']}:{row['hostPort']}"

    def processes(self) -> list[int]:
        """Every process that belongs to this state root's carrier."""
        return ours(self.runtime)

    @property
    def runtime(self) -> Path:
        from hikube_local.paths import layout

        return layout({"HIKUBE_LOCAL_HOME": str(self.home)}).runtime

    def close(self) -> None:
        self("down", "-A", "--force")
        left = self.processes()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
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


@pytest.fixture(scope="session")
def debian() -> Path:
    """The Debian 12 image of our own recipe."""
    cache = Cache(KEPT / "images", 0o711)
    return cache.path(build.build(cache, "debian-12", ignore).digest)


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
    cache.adopt(copy, key, key)


def stock_recipe(home: Path, image: Path) -> None:
    recipe = build.recipes()["debian-12"]
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
