"""What the layers share: a state root of its own, the command line as a subprocess or in this process."""

from __future__ import annotations

import compileall
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.growth import patience

ROOT = Path(__file__).parent.parent
# Tests compare English sentences, whatever their reader speaks.
ENGLISH = {"LANG": "C.UTF-8", "LC_ALL": "", "LC_MESSAGES": "", "LANGUAGE": ""}
os.environ |= ENGLISH
# Else each command of a test compiles all of the program anew: a tenth of a second, thousands of times.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
EXAMPLES = ROOT / "examples"


@dataclass
class Result:
    """What a run of the program gave."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines()]


def said(words: tuple, done: subprocess.CompletedProcess) -> Result:
    """The result, and all of it in what pytest shows of a test that fails: an assertion shortens its operands."""
    print(f"$ hikube-local {' '.join(map(str, words))}\n{done.stdout}{done.stderr}[{done.returncode}]")
    return Result(done.returncode, done.stdout, done.stderr)


class Program:
    """hikube-local in a state root of its own."""

    LONG = 120.0  # seconds of a fast machine that a command may take (patience)

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "files"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("HIKUBE_LOCAL")}
        self.env |= {"HIKUBE_LOCAL_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
        self.env |= ENGLISH
        # Servers of tests stand on this host.
        self.env["HIKUBE_LOCAL_ALLOW_INNER"] = "true"
        self.confine: list[str] = []  # words before the program's own

    def __call__(
        self, *words: object, input: str | None = None, timeout: float = 0.0, env: dict | None = None
    ) -> Result:
        env = {**self.env, **(env or {})}
        argv = [*self.before(env), "-m", "hikube_local", *map(str, words)]
        limit = patience(timeout or self.LONG)
        done = subprocess.run(
            argv, input=input, capture_output=True, text=True, timeout=limit, env=env, cwd=self.folder
        )
        return said(words, done)

    def before(self, env: dict[str, str]) -> list[str]:
        """The interpreter, and what stands before it."""
        return [*self.confine, sys.executable]

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(textwrap.dedent(text))
        return path


@pytest.fixture
def hikube(tmp_path: Path) -> Program:
    """The program with an empty state root; nothing real is started by it."""
    return Program(tmp_path / "home")


PAIR = """\
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata:
  name: sys
spec:
  source:
    image:
      name: debian-12
  storage: 5Gi
  storageClass: local
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata:
  name: web
  labels:
    app: web
spec:
  external: true
  externalPorts: [22, 80]
  instanceType: u1.medium
  instanceProfile: ubuntu
  disks:
    - sys
  cloudInit: |
    #cloud-config
    hostname: web
"""


@pytest.fixture
def pair(hikube: Program) -> Path:
    """A manifest with one disk and one machine."""
    return hikube.file("pair.yaml", PAIR)


def instance(**spec) -> str:
    """A VMInstance document named web."""
    return json.dumps(
        {"apiVersion": "apps.cozystack.io/v1alpha1", "kind": "VMInstance", "metadata": {"name": "web"}, "spec": spec}
    )


def disk(**spec) -> str:
    return json.dumps(
        {"apiVersion": "apps.cozystack.io/v1alpha1", "kind": "VMDisk", "metadata": {"name": "sys"}, "spec": spec}
    )


# What takes longest under emulation, first: with two workers nobody is left waiting for it at the end.
LONG = (
    "gallery",
    "crashes",
    "debian",
    "checkpoints",
    "tiny",
    "network",
    "contract",
    "lab",
    "lab_options",
    "user",
    "three_tier",
)
LONG += ("disks", "firmware", "strategies", "fetch")


def pytest_configure(config):
    """Ctrl-C reaches what tests start: a background job and pytest-xdist's workers ignore it, and hand that down."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):  # so that no look of a test is the one that writes bytecode
        compileall.compile_dir(ROOT / "hikube_local", quiet=2)


def pytest_collection_modifyitems(items):
    order = {f"test_{name}.py": at for at, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_addoption(parser):
    parser.addoption("--golden", action="store_true", help="write the golden files anew")
