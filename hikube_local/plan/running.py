"""Whether a machine is to run: decided here and nowhere else, from its run strategy and what was asked of it."""

from __future__ import annotations

from hikube_local.api.objects import Object, RunStrategy
from hikube_local.plan.steps import MachineObserved, RunState
from hikube_local.store.records import Intent


def comes_back(obj: Object) -> bool:
    """Whether a machine that ends by itself is started again, and one that was stopped runs again with the next `up`."""
    return obj.instance.strategy is RunStrategy.ALWAYS


def stays_off(obj: Object, power: str) -> bool:
    """Whether nothing but a command starts it. `power`: what was asked for last, "start", "stop" or nothing."""
    return power == "stop" or (obj.instance.strategy is RunStrategy.HALTED and power != "start")


def applied(obj: Object, power: str) -> str:
    """What was asked for, once the manifest is applied again: one that says whether the machine runs ends it."""
    return "" if obj.instance.strategy in (RunStrategy.ALWAYS, RunStrategy.HALTED) else power


def expected_up(obj: Object, power: str) -> bool:
    """Whether one that is off is on its way up: what its status says of it."""
    return comes_back(obj) and not stays_off(obj, power)


def wants_to_run(obj: Object, seen: MachineObserved, intent: Intent) -> bool | None:
    """Whether the machine should run now; None leaves it as it is."""
    if stays_off(obj, intent.power):
        return False
    if intent.power == "start" or comes_back(obj):
        return True
    strategy = obj.instance.strategy
    if strategy is RunStrategy.MANUAL:
        return None
    if not intent.started_before and seen.started is None:
        return True
    if strategy is RunStrategy.RERUN_ON_FAILURE and seen.state is RunState.CRASHED:
        return True
    return None
