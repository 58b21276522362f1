"""Each promise on each backend: the simulator, one that nobody but this test knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hikube_local.backends import registry
from hikube_local.cli.main import run
from hikube_local.errors import UsageError
from tests.promises import Promises
from tests.simulator.test_contract import SIMULATED


class TestSimulator(Promises):
    backend = "simulator"

    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HIKUBE_LOCAL_HOME", str(tmp_path / "home"))

    @pytest.fixture
    def text(self) -> str:
        return SIMULATED


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_MODULES", dict(registry._MODULES))
    registry.register("toy", "tests.backends.toy")
    yield


class TestToy(TestSimulator):
    backend = "toy"

    @pytest.fixture(autouse=True)
    def registered(self, toy: None) -> None:
        """Nothing else makes it known."""


def test_the_command_line_works_with_a_backend_that_it_does_not_know(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HIKUBE_LOCAL_HOME", str(tmp_path / "home"))
    (tmp_path / "m.yaml").write_text(SIMULATED)

    def says(*words: str, code: int = 0) -> str:
        assert run(list(words)) == code, capsys.readouterr().err
        captured = capsys.readouterr()
        return captured.out + captured.err

    assert "applying" not in says("plan", str(tmp_path / "m.yaml"), "--backend", "toy")
    assert "vminstance/web: apply" in says("up", str(tmp_path / "m.yaml"), "--backend", "toy")
    assert "Running" in says("get", "vm", "web")
    assert '"spec"' in says("logs", "web")
    says("pause", "web")
    assert "Paused" in says("get", "vm", "web")
    says("unpause", "web")
    for words, noun in ((("console", "web"), "a serial console"), (("snapshot", "create", "web"), "snapshots")):
        told = says(*words, code=1)
        assert "HK510" in told and f"web uses the backend toy, which does not support {noun}" in told
    says("restart", "web")
    says("down", "--disks", "--yes")
    assert "web" not in says("get")


def test_a_backend_that_nobody_knows_is_told():
    with pytest.raises(UsageError, match="no backend 'nobody'"):
        registry.make("nobody", None, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "size", "code"), [("Bad_Name", "1Gi", "HK301"), ("../../x", "1Gi", "HK301"), ("good", "much", "HK308")]
)
def test_a_disk_that_an_upload_would_make_is_judged_as_a_manifests(hikube, name, size, code):
    file = hikube.file("disk.img", "x")
    result = hikube("image-upload", "vmdisk", name, "--image-path", file, "--size", size)
    assert result.code == 2 and code in result.err, result.err
    assert hikube("get", "vmdisk").out == ""


def test_every_source_of_a_manifest_is_a_content_of_its_own():
    """One that is forgotten in `VMDiskSpec.content` would be an empty disk, or another one's."""
    from hikube_local.api.objects import DISK, Source
    from hikube_local.api.sources import Blank
    from hikube_local.manifests.models import read_spec

    values = {"http": {"url": "https://x/y"}, "upload": {}}
    own = [name for name in Source.names() if name != "pvc"]  # another name of an image or a disk
    specs = [read_spec(DISK, {"source": {name: values.get(name, {"name": "n"})}}) for name in own]
    assert len({type(s.content) for s in specs} - {Blank}) == len(own)


@pytest.mark.parametrize("words", [["start"], ["stop"], ["restart"], ["pause"]])
def test_what_carries_a_machine_is_brought_back_by_a_command_and_by_no_look(words, tmp_path, monkeypatch, capsys):
    """HK610: one way back for the plan, for whoever is followed and for power; it heals nothing that needs locks."""
    from hikube_local.backends.simulator import Simulator
    from hikube_local.errors import HikubeError

    monkeypatch.setenv("HIKUBE_LOCAL_HOME", str(tmp_path / "home"))
    (tmp_path / "m.yaml").write_text(SIMULATED)
    assert run(["up", str(tmp_path / "m.yaml"), "--backend", "simulator"]) == 0
    ended, real = [True], Simulator.observe_machine

    def observe(self, obj):
        if ended:
            raise HikubeError("HK610", "it has ended")
        return real(self, obj)

    monkeypatch.setattr(Simulator, "observe_machine", observe)
    monkeypatch.setattr(Simulator, "refresh", lambda self, obj, emit: ended.clear())
    capsys.readouterr()
    assert run(["get", "vm", "web", "--no-refresh"]) == 0
    assert ended and "Unknown" in capsys.readouterr().out
    assert run([*words, "web"]) == 0
    assert not ended
