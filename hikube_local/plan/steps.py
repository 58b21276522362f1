"""What is to be done, as values: desired and observed states, and the steps between them."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from pathlib import Path

from hikube_local.api.objects import Key
from hikube_local.records import dataclass
from hikube_local.render.growth import Capacity


class Verb(StrEnum):
    """The steps that backends know how to perform."""

    RECORD = "record"
    IMPORT = "import"
    GROW = "grow"
    NETWORK = "network"
    SEED = "seed"
    DEFINE = "define"
    START = "start"
    PLUG = "plug"
    RESIZE = "resize"
    FORWARDS = "forwards"
    STOP = "stop"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do to one object, and why, in words for people. `verb`: one of Verb, or the backend's own."""

    verb: str
    key: Key
    why: str = ""


class RunState(StrEnum):
    """What a machine is doing, whoever runs it."""

    ABSENT = "absent"
    SHUTOFF = "shutoff"
    CRASHED = "crashed"
    RUNNING = "running"
    PAUSED = "paused"
    FAILED = "failed"  # QEMU stopped it for an error of its own: it cannot go on


@dataclass(frozen=True, slots=True)
class Forward:
    """A way in from the host: `port` of the guest at host address and port."""

    port: int
    address: str
    host_port: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class DiskObserved:
    """A disk as it lies there. Sizes in bytes; `problem` says why it cannot be used."""

    exists: bool = False
    size: int = 0
    actual_size: int = 0
    format: str = ""
    base: str = ""
    generation: int = 0
    problem: str = ""
    importing: bool = False


@dataclass(frozen=True, slots=True)
class MachineDesired:
    """What the machine's object comes to on this host."""

    definition: str
    seed: str | None
    forwards: frozenset[Forward] = frozenset()
    cold: str = ""  # the definition without the disks that come and go while it runs
    hot: frozenset[str] = frozenset()  # their names
    shape: str = ""  # the definition without those disks and whatever its size
    capacity: Capacity = Capacity()


@dataclass(frozen=True, slots=True)
class MachineObserved:
    """A machine as it is."""

    state: RunState = RunState.ABSENT
    definition: str = ""
    live_definition: str = ""  # without the disks that come and go while it runs
    seed: str | None = None
    forwards: frozenset[Forward] = frozenset()
    network: bool = False
    folder: bool = False
    generation: int = 0
    started: float | None = None
    hot: frozenset[str] = frozenset()  # disks that came while it runs
    renamed: bool = False  # it runs under a UUID that the next start changes: libvirt takes no other till then
    stale: bool = False  # it runs as another than is defined
    live_shape: str = ""
    capacity: Capacity = Capacity()  # as it runs
    most: Capacity = Capacity()  # that it can be given while it runs


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a command said for this once. `grace`: seconds that a guest has to shut down; `pace`: the simulator's; `warm`:
    where states after a first boot are kept, from which a machine may start; None: it boots, unless its annotation says otherwise."""

    exact: bool = False
    pull: bool = False
    offline: bool = False
    restart: bool = False
    pace: float = 0.0
    grace: float = 30.0
    force: bool = False
    dry: bool = False
    warm: Path | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """The steps, and what waits for a restart."""

    steps: tuple[Step, ...] = ()
    restart_required: bool = False
    unknown: tuple[str, ...] = field(default=())
