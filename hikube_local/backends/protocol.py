"""What carries objects: the small life of one that the engine needs. What else a backend can do is in `capabilities`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Protocol

from hikube_local.api.objects import Object
from hikube_local.events import Emit
from hikube_local.images.settings import Settings as ImageSettings
from hikube_local.plan.steps import DiskObserved, MachineObserved, Planned, RunOptions, Step
from hikube_local.readiness.stages import Progress, Trouble, Verdict
from hikube_local.records import dataclass
from hikube_local.source.finding import Finding
from hikube_local.store.records import Intent


@dataclass(frozen=True, slots=True)
class Settings:
    """How a backend is to behave; each takes what concerns it.

    `networks`: further networks that stand on a bridge of the host's. `link_local`: guests reach the host's link-local
    networks. `throwaway`: the machines are never to come back, so nothing is written for safety. `oem`: SMBIOS strings
    (type 11) for the guest. `stretch`: how many times as long as usual is waited for a guest. `accelerator`: kvm or tcg for every machine that says
    nothing itself, empty for what the host can do.
    """

    images: ImageSettings = field(default_factory=ImageSettings)
    networks: Mapping[str, str] = field(default_factory=dict)
    link_local: bool = False
    throwaway: bool = False
    oem: tuple[str, ...] = ()
    stretch: float | None = None
    accelerator: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """A machine as `get` and `describe` show it."""

    observed: MachineObserved
    ready: bool = False  # the guest has come up: what `up` waits for
    failed: bool = False  # its boot came to a bad end
    progress: Progress | None = None
    cloud_init: bool | None = None
    trouble: Trouble | None = None  # why it does not come up, or does not go on
    agent: bool = False  # whether the guest's agent is connected
    accelerator: str = ""
    accelerator_by: str = ""  # who overruled the host's own verdict
    addresses: list[dict[str, str]] = field(default_factory=list)
    access: list[dict[str, Any]] = field(default_factory=list)
    differences: list[Finding] = field(default_factory=list)
    instance_id: str = ""
    restart_required: bool = False
    host_restarted: bool = False  # it ran when the host went down
    details: dict[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """The life of an object. `prepare`, `perform`, `follow`, `refresh` and `discard` write; everything else only looks.

    A step is the backend's own matter; the engine shows its verb and its reason, and knows START, RECORD and DELETE.
    """

    @property
    def name(self) -> str: ...

    def prepare(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        """Before the first plan, under the object's locks: what a kill cut short is brought to an end, and what must stay
        the same is chosen."""
        ...

    def plan(self, obj: Object, intent: Intent, options: RunOptions) -> Planned:
        """What is missing between the object and what is there; only its first step is ever carried out."""
        ...

    def perform(self, step: Step, obj: Object, options: RunOptions, emit: Emit) -> None: ...

    def follow(self, obj: Object, timeout: float | None, emit: Emit) -> Verdict:
        """Tell a started machine's boot until it is ready or has failed; `timeout` in seconds, None for the usual."""
        ...

    def observe_disk(self, obj: Object) -> DiskObserved: ...

    def observe_machine(self, obj: Object) -> MachineObserved:
        """HK610 where what carries it has ended and nobody may bring it back in a look."""
        ...

    def view(self, obj: Object) -> View: ...

    def refresh(self, obj: Object, emit: Emit) -> None:
        """Bring back what carries a machine where it has ended (HK610), and what follows from a running guest to what the
        guest does now."""
        ...

    def discard(self, obj: Object) -> None:
        """What could not be deleted in order goes by force: its files, its rows."""
        ...
