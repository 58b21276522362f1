"""What a world that carries objects must be able to do; the simulator and QEMU are the two."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from hikube_local.api.objects import Object
from hikube_local.events import Emit
from hikube_local.plan.steps import DiskObserved, MachineDesired, MachineObserved, RunOptions, Step
from hikube_local.readiness.stages import Progress, Verdict


@dataclass(frozen=True, slots=True)
class View:
    """A machine as `get` and `describe` show it."""

    observed: MachineObserved
    ready: bool = False  # the guest has come up: what `up` waits for
    failed: bool = False  # its boot came to a bad end
    progress: Progress | None = None
    cloud_init: bool | None = None
    trouble: str = ""
    accelerator: str = ""
    addresses: list[dict[str, str]] = field(default_factory=list)
    access: list[dict[str, Any]] = field(default_factory=list)
    differences: list[dict[str, str]] = field(default_factory=list)
    instance_id: str = ""
    restart_required: bool = False
    details: dict[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """`prepare` heals and allocates, and `refresh` acts on what was seen of a guest: with `perform` they are what writes.

    `observe` reads what is true, `desired` what should be, `view` what is shown; `perform` carries out one step.
    """

    name: str

    def observe_disk(self, obj: Object) -> DiskObserved: ...

    def observe_machine(self, obj: Object) -> MachineObserved: ...

    def prepare(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        """Before the first plan: what a kill cut short is brought to an end, and what must stay the same is chosen."""
        ...

    def desired(self, obj: Object, options: RunOptions) -> MachineDesired: ...

    def perform(self, step: Step, obj: Object, options: RunOptions, emit: Emit) -> None: ...

    def follow(self, obj: Object, timeout: float | None, emit: Emit) -> Verdict: ...

    def view(self, obj: Object) -> View: ...

    def refresh(self, obj: Object, emit: Emit) -> None:
        """Bring what follows from a running guest to what the guest does now."""
        ...

    def power(self, obj: Object, action: str) -> None:
        """`pause` or `unpause` a running machine."""
        ...
