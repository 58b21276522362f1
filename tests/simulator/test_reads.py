"""Reads never write, on the simulator: with machines that run, boot, are stopped, half made and gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hikube_local.paths import layout
from hikube_local.store.db import Store
from tests import reads
from tests.conftest import Program

FULL = pytest.mark.full
STATES = (
    "running",
    "of an earlier version",
    *(pytest.param(s, marks=FULL) for s in ("nothing", "stopped", "half made", "being deleted", "lost store")),
)
FAILS = '{hikube.local/simulate: "stage=import,outcome=fail"}'


def arrange(hikube: Program, state: str, pair: Path) -> None:
    if state == "of an earlier version":
        archive = Path(__file__).parent / "roots" / "c24fceb.tar.gz"
        subprocess.run(["tar", "-xzf", archive, "-C", hikube.home], check=True)
        return
    if state == "nothing":
        return
    if state == "half made":
        text = pair.read_text().replace("  name: sys\n", f"  name: sys\n  annotations: {FAILS}\n", 1)
        assert hikube("up", "--backend", "simulator", hikube.file("broken.yaml", text)).code == 1
        return
    assert hikube("up", "--backend", "simulator", pair).code == 0
    if state == "stopped":
        assert hikube("stop", "web").code == 0
    if state == "being deleted":
        Store(layout(hikube.env)).mark_deleted([("VMInstance", "default", "web")])
    if state == "lost store":
        layout(hikube.env).store.unlink()


@pytest.mark.parametrize("state", STATES)
def test_a_look_leaves_every_file_as_it_was(hikube: Program, pair: Path, tmp_path: Path, state: str):
    arrange(hikube, state, pair)
    folders = [p for p in (hikube.home,) if p.exists()]
    before = reads.content(folders)
    for words in reads.LOOKS:
        given = [str(pair) if w == "FILE" else w for w in words]
        extra = ["--backend", "simulator"] if words[0] in ("up", "plan") and state != "of an earlier version" else []
        trace = tmp_path / "trace"
        hikube.confine = [*reads.TRACE, "-o", str(trace)]
        hikube(*given, *extra)
        assert list(reads.writes(trace, [hikube.home / d for d in ("state", "cache", "run", "config.yaml")])) == [], (
            words
        )
        assert reads.content(folders) == before, words


@pytest.mark.parametrize(
    "words", [("get", "vm"), ("describe", "vm/web"), ("events",), ("get", "vm,vmdisk", "-o", "json")]
)
def test_a_look_loads_nothing_that_takes_longer_than_the_look(hikube: Program, pair: Path, words: tuple[str, ...]):
    """A shell's prompt and a `watch` in a terminal ask each second."""
    assert hikube("up", "--backend", "simulator", pair).code == 0
    argv = [sys.executable, "-X", "importtime", "-m", "hikube_local", *words]
    told = subprocess.run(argv, env=hikube.env, capture_output=True, text=True, check=True).stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.splitlines()}
    assert "hikube_local" in loaded
    assert not loaded & {"pydantic_core", "requests", "aiohttp", "libvirt", "jinja2", "rich", "cryptography"}


@pytest.mark.parametrize("verb", ["validate", "plan"])
def test_what_judges_manifests_loads_the_core_of_pydantic_alone(hikube: Program, pair: Path, verb: str):
    """Its models take as long to load as everything else of a short command; an image's download and a guest's parts are none
    of a judgement's business."""
    argv = [sys.executable, "-X", "importtime", "-m", "hikube_local", verb, str(pair)]
    told = subprocess.run(argv, env=hikube.env, capture_output=True, text=True, check=True).stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.splitlines()}
    assert "pydantic_core" in loaded
    assert not loaded & {"pydantic", "requests", "aiohttp", "jinja2", "rich", "cryptography", "pycdlib"}
