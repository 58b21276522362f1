"""A disk's own layers: the active one that a machine writes to, and frozen ones that checkpoints stand on.

`layers.json` in the disk's folder says which is which; without it there is one layer, disk.qcow2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from pathlib import Path

from hikube_local import files
from hikube_local.errors import HikubeError
from hikube_local.records import dataclass
from hikube_local.run import Limits, run

FIRST = "disk.qcow2"
FILE = "layers.json"


@dataclass(frozen=True, slots=True)
class Layers:
    """Names of files: the active one, and for each that is not the first the one below it."""

    active: str = FIRST
    below: dict[str, str] = field(default_factory=dict)

    def chain(self, top: str) -> list[str]:
        """`top` and what it stands on, from the top."""
        out = [top]
        while (name := self.below.get(out[-1])) and name not in out:
            out.append(name)
        return out

    def lone(self, frozen: Iterable[str]) -> list[tuple[str, str]]:
        """(lower, upper) where the lower one is nobody's but the upper one's: no checkpoint stands on it (`frozen`)."""
        kept = {self.active, *frozen}
        found = []
        for lower in dict.fromkeys(self.below.values()):
            above = [k for k, v in self.below.items() if v == lower]
            if lower not in kept and len(above) == 1:
                found.append((lower, above[0]))
        return found


def read(folder: Path) -> Layers:
    """HK708 for a note that cannot be read: to take the first layer then would write into a frozen one."""
    row = files.read_json(folder / FILE)
    if isinstance(row, dict) and isinstance(row.get("active"), str) and isinstance(row.get("below"), dict):
        return Layers(row["active"], {str(k): str(v) for k, v in row["below"].items()})
    if row is not None or (folder / FILE).exists():
        raise HikubeError("HK708", f"{folder / FILE} cannot be read", "it says which layer of the disk is the newest")
    return Layers()


def active(folder: Path) -> Path:
    return folder / read(folder).active


def below(folder: Path) -> list[Path]:
    """Own layers under the active one, from the top."""
    layers = read(folder)
    return [folder / name for name in layers.chain(layers.active)[1:]]


def make(folder: Path, name: str, under: str, size: int) -> None:
    """A new empty layer of `size` bytes on `under` (by its name, so that it holds wherever the folder is seen)."""
    target = folder / name
    with files.beside(target) as temporary:
        words: list[str | Path] = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", under]
        run([*words, temporary, str(size)], limits=Limits())


def switch(folder: Path, name: str, under: str) -> None:
    """`name` on `under` is the active layer from now on."""
    layers = read(folder)
    if layers.active != name:
        files.write_json(folder / FILE, {"active": name, "below": layers.below | {name: under}})


def merged(folder: Path, lower: str, upper: str) -> None:
    """All of `upper` lies in `lower` now, and what stood on it stands there."""
    have = read(folder)
    below = {k: lower if v == upper else v for k, v in have.below.items() if k != upper}
    files.write_json(folder / FILE, {"active": lower if have.active == upper else have.active, "below": below})


def sweep(folder: Path, frozen: Iterable[str]) -> None:
    """Remove layers that neither the active one nor a checkpoint's (`frozen`) stands on."""
    layers = read(folder)
    wanted = {n for top in (layers.active, *frozen) for n in layers.chain(top)}
    gone = [n for n in layers.below if n not in wanted]
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    if gone:
        kept = {k: v for k, v in layers.below.items() if k not in gone}
        files.write_json(folder / FILE, {"active": layers.active, "below": kept})
