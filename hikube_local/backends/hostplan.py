"""The plan of backends whose machines take the steps of `plan`: record, seed, network, definition, start, ports."""

from __future__ import annotations

from typing import Protocol

from hikube_local.api.objects import DISK, Object
from hikube_local.plan.planner import plan_disk, plan_machine
from hikube_local.plan.steps import DiskObserved, MachineDesired, MachineObserved, Planned, RunOptions
from hikube_local.store.records import Intent


class Compares(Protocol):
    """What such a backend looks up for the plan; reads only."""

    def observe_disk(self, obj: Object) -> DiskObserved: ...

    def observe_machine(self, obj: Object) -> MachineObserved: ...

    def desired(self, obj: Object, options: RunOptions, seen: MachineObserved) -> MachineDesired:
        """What is compared with what was seen; what nothing was seen of need not be worked out."""
        ...


def plan(backend: Compares, obj: Object, intent: Intent, options: RunOptions) -> Planned:
    if obj.kind == DISK:
        return plan_disk(obj, backend.observe_disk(obj))
    seen = backend.observe_machine(obj)
    return plan_machine(obj, backend.desired(obj, options, seen), seen, intent, options.restart)
