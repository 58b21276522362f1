"""Merges of layers that were cut short, on real qcow2 files; what carries the machines is left out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hikube_local.api.objects import Object, VMDiskSpec
from hikube_local.backends.protocol import Settings
from hikube_local.backends.qemu.checkpoints import operations
from hikube_local.backends.qemu.context import Context
from hikube_local.disks import layers
from hikube_local.errors import HikubeError
from hikube_local.events import Event
from hikube_local.manifests.models import read_spec
from hikube_local.paths import layout
from hikube_local.store.db import Store

SIZE = 4 << 20


class Killed(BaseException):
    """What no `except` of the program's takes for an error."""


class Disk:
    """A disk with a frozen layer that nobody needs, and a machine `a` on it that goes; `users`: other machines on it."""

    def __init__(self, users: tuple[str, ...] = ()) -> None:
        places = layout().make()
        self.store = Store(places)
        self.context = Context(places, self.store, Settings())
        disk = Object(kind="VMDisk", namespace="default", name="d", spec=VMDiskSpec(storage="1Gi"))
        machines = [self.user(name) for name in ("a", *users)]
        self.a = next(o for o in self.store.put([disk, *machines]) if o.name == "a")
        self.folder, self.machine = self.context.make_folder(disk), self.context.make_folder(self.a)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.folder / layers.FIRST, str(SIZE)], check=True)
        self.new("layer-a.qcow2")
        self.write(0xAA)
        self.store.mark_deleted([self.a.key])
        self.a = self.store.get(self.a.key) or self.a
        self.told: list[Event] = []

    @staticmethod
    def user(name: str) -> Object:
        spec = read_spec("VMInstance", {"disks": [{"name": "d"}]})
        return Object(kind="VMInstance", namespace="default", name=name, spec=spec)

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
        operations.before_machine(self.context, self.a, self.told.append)

    def settles(self) -> None:
        operations.settle(self.context, self.a, self.told.append, going=True)

    def names(self) -> list[str]:
        return sorted(p.name for p in self.folder.glob("*.qcow2"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIKUBE_LOCAL_HOME", str(tmp_path))


@pytest.fixture
def disk(home: None) -> Disk:
    return Disk()


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
            m.setattr(operations.merge, "room", lambda *_, e=error: (_ for _ in ()).throw(e))
            disk.goes()
        assert "were not merged" in disk.told[-1].message and disk.has(0xAA)
        assert disk.names() == [layers.FIRST, "layer-a.qcow2"] and not (disk.machine / "pending.json").exists()
    disk.goes()
    assert disk.names() == [layers.FIRST] and disk.has(0xAA)


def test_a_disk_that_another_machine_names_is_left_to_that_one(home):
    disk = Disk(users=("b",))
    disk.goes()
    assert disk.names() == [layers.FIRST, "layer-a.qcow2"] and disk.has(0xAA)
