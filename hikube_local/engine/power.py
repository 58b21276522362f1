"""Machines switched on and off, frozen and let go on. What is asked for is kept first: a kill in between leaves it so."""

from __future__ import annotations

from hikube_local.api.objects import Key, Object
from hikube_local.backends.capabilities import Pauses, Switches
from hikube_local.engine.reconcile import Done, healed
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, ignore
from hikube_local.plan.steps import MachineObserved, RunOptions, RunState
from hikube_local.records import dataclass


@dataclass(frozen=True, slots=True)
class Wait:
    """Whether to wait until machines are ready, and how many seconds (None: the usual)."""

    ready: bool = False
    timeout: float | None = None


# What is kept of what was asked for: a restart is a boot to be ended, and one to come.
_KEPT = {"start": "start", "stop": "stop", "restart": "start"}


def ask(session: Session, machines: list[Object], verb: str) -> None:
    """Keep that they are to start, stop or restart; whoever reconciles them carries it out, or what carries them is told."""
    # All are looked at before one is asked for.
    power = _KEPT[verb]  # a verb that is none starts nothing
    session.may_be_changed(obj.key for obj in machines)
    session.writes()
    boots = [_observed(session, obj).started if verb == "restart" else None for obj in machines]
    for obj, boot in zip(machines, boots, strict=True):
        if teller := session.able(obj, Switches):
            if teller.switch(obj, verb):
                session.store.keep(obj.key, power=verb)
            continue
        session.store.keep(obj.key, power=power, end_boot=boot)


def start(
    session: Session, machines: list[Object], options: RunOptions, emit: Emit, wait: Wait = Wait()
) -> dict[Key, Done]:
    """They run, also where their manifest does not start them."""
    ask(session, machines, "start")
    return _reconcile(session, machines, options, emit, wait)


def stop(session: Session, machines: list[Object], options: RunOptions, emit: Emit) -> dict[Key, Done]:
    """They are off until somebody starts them, or applies a manifest that says they run."""
    ask(session, machines, "stop")
    return _reconcile(session, machines, options, emit, Wait())


def restart(
    session: Session, machines: list[Object], options: RunOptions, emit: Emit, wait: Wait = Wait()
) -> dict[Key, Done]:
    """The boot that they are in ends, and another one begins: kept as one for both halves."""
    ask(session, machines, "restart")
    return _reconcile(session, machines, options, emit, wait)


def freeze(session: Session, obj: Object, action: str) -> bool:
    """`pause` or `unpause` a running machine; False where it is so already, HK805 where it does not run."""
    if action not in ("pause", "unpause"):
        raise ValueError(action)
    state = _observed(session, obj).state
    if state not in (RunState.RUNNING, RunState.PAUSED):
        raise HikubeError("HK805", f"{obj.name} is not running", fix=f"hikube-local start {obj.name}")
    if (state is RunState.PAUSED) == (action == "pause"):
        return False
    backend = session.require(obj, Pauses)
    session.may_be_changed([obj.key])
    session.writes()
    (backend.pause if action == "pause" else backend.unpause)(obj)
    return True


def _observed(session: Session, obj: Object) -> MachineObserved:
    """The machine as it is; what carries it is brought back where it has ended."""
    backend = session.of(obj)
    return healed(backend, obj, ignore, backend.observe_machine)


def _reconcile(
    session: Session, machines: list[Object], options: RunOptions, emit: Emit, wait: Wait
) -> dict[Key, Done]:
    keys = [o.key for o in machines]
    return session.reconciler(emit, options).reconcile(keys, wait=wait.ready, timeout=wait.timeout)
