"""Merges of layers that were cut short, on real qcow2 files; what carries the machines is left out."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from hikube_local.backends.qemu import checkpoints
from hikube_local.disks import layers
from hikube_local.errors import HikubeError
from hikube_local.events import Event

SIZE = 4 << 20


class Killed(BaseException):
    """What no `except` of the program's takes for an error."""


class Disk:
    """A disk with a frozen layer that nobody needs, and a machine `a` on it that goes; `users`: other machines on it."""

    def __init__(self, root: Path, users: tuple[str, ...] = ()) -> None:
        self.folder, self.machine = root / "disk", root / "machine"
        for folder in (self.folder, self.machine, root / "state" / "checkpoints" / "default"):
            folder.mkdir(parents=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.folder / layers.FIRST, str(SIZE)], check=True)
        self.new("layer-a.qcow2")
        self.write(0xAA)
        here = SimpleNamespace(disks=[SimpleNamespace(name="d")])
        self.a = SimpleNamespace(
            namespace="default", name="a", key="a", deletion=1.0, ref="vminstance/a", instance=here
        )
        others = [SimpleNamespace(key=name, name=name, instance=here) for name in users]
        stored = SimpleNamespace(deletion=None, disk=SimpleNamespace(optical=False))
        store = SimpleNamespace(
            get=lambda key: stored, objects=lambda *_: [self.a, *others], keep=lambda *_, **__: None
        )
        layout = SimpleNamespace(disk=lambda *_: self.folder, state=root / "state")
        self.world = SimpleNamespace(
            layout=layout, store=store, folder=lambda _: self.machine, domain=lambda _: None, uuid=lambda _: ""
        )
        self.told: list[Event] = []

    def new(self, name: str) -> None:
        under = layers.read(self.folder).active
        layers.make(self.folder, name, under, SIZE)
        layers.switch(self.folder, name, under)

    def io(self, command: str) -> str:
        path = layers.active(self.folder)
        return subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, path], capture_output=True, text=True).stdout

    def write(self, pattern: int) -> None:
        assert "wrote" in self.io(f"write -P {pattern} 0 64k")

    def has(self, pattern: int) -> bool:
        said = self.io(f"read -P {pattern} 0 64k")
        return "read 65536" in said and "failed" not in said

    def goes(self) -> None:
        checkpoints.before_machine(self.world, self.a, self.told.append)  # type: ignore[arg-type]

    def settles(self) -> None:
        checkpoints.settle(self.world, self.a, self.told.append, going=True)  # type: ignore[arg-type]

    def names(self) -> list[str]:
        return sorted(p.name for p in self.folder.glob("*.qcow2"))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    made = Disk(tmp_path)
    made.a.key = ("VMInstance", "default", "a")
    return made


def cut_at(monkeypatch, name: str) -> None:
    """The program dies where it would remove the file of this name."""
    real = Path.unlink

    def unlink(self: Path, *words, **kw):
        if self.name == name:
            raise Killed
        return real(self, *words, **kw)

    monkeypatch.setattr(Path, "unlink", unlink)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_what_the_next_machine_wrote_is_not_overwritten_when_a_merge_is_settled_late(disk, monkeypatch, checkpoint):
    with monkeypatch.context() as m:
        cut_at(m, "layer-a.qcow2")
        with pytest.raises(Killed):
            disk.goes()
    assert layers.read(disk.folder).active == layers.FIRST and (disk.machine / "pending.json").exists()
    disk.write(0xBB)  # another machine
    if checkpoint:
        disk.new("layer-b.qcow2")
    disk.settles()
    assert disk.has(0xBB)
    assert "layer-a.qcow2" not in disk.names() and not (disk.machine / "pending.json").exists()


def test_what_the_next_machine_wrote_before_the_names_are_others_goes_along(disk, monkeypatch):
    with monkeypatch.context() as m:
        m.setattr(layers, "merged", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            disk.goes()
    assert layers.read(disk.folder).active == "layer-a.qcow2"
    disk.write(0xBB)
    disk.settles()
    assert disk.has(0xBB) and disk.names() == [layers.FIRST]


def test_a_merge_that_fails_keeps_no_machine_from_going(disk, monkeypatch):
    """For want of space, or as the file system will have it: it is said, and the content is where it was."""
    for error in (HikubeError("HK604", "no space"), OSError(28, "No space left on device")):
        with monkeypatch.context() as m:
            m.setattr(checkpoints.merge, "room", lambda *_, e=error: (_ for _ in ()).throw(e))
            disk.goes()
        assert "stay unmerged" in disk.told[-1].message and disk.has(0xAA)
        assert disk.names() == [layers.FIRST, "layer-a.qcow2"] and not (disk.machine / "pending.json").exists()
    disk.goes()
    assert disk.names() == [layers.FIRST] and disk.has(0xAA)


def test_a_disk_that_another_machine_names_is_left_to_that_one(tmp_path):
    disk = Disk(tmp_path, users=("b",))
    disk.goes()
    assert disk.names() == [layers.FIRST, "layer-a.qcow2"] and disk.has(0xAA)
