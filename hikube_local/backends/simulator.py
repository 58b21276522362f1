"""A backend with no machine at all: state is a function of start time, pace and now.

The annotation `hikube.local/simulate: "stage=STAGE,outcome=OUTCOME,after=SECONDS"` makes an object fail.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

from hikube_local.api import names
from hikube_local.api.objects import INSTANCE, Object
from hikube_local.api.shapes import plain_spec
from hikube_local.backends import hostplan
from hikube_local.backends.capabilities import Pauses, Reboots
from hikube_local.backends.protocol import Settings, View
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.paths import Layout
from hikube_local.plan.steps import (
    DiskObserved,
    Forward,
    MachineDesired,
    MachineObserved,
    Planned,
    RunOptions,
    RunState,
    Step,
    Verb,
)
from hikube_local.readiness.stages import WORDS, Progress, Result, Stage, Trouble, Verdict
from hikube_local.records import dataclass
from hikube_local.render import growth, seed
from hikube_local.render.growth import Capacity
from hikube_local.render.machine import storage_bytes
from hikube_local.render.sizing import requested
from hikube_local.source.finding import difference
from hikube_local.store.db import Store, scope
from hikube_local.store.records import Intent

ANNOTATION = "hikube.local/simulate"
STAGES = ("import", "disk", *(s for s in Stage if s is not Stage.DONE))
OUTCOMES = ("fail", "hang", "panic", "slow", "exit")
# How long each stage takes, in parts of a whole boot.
_SHARE = {
    Stage.FIRMWARE: 0.05,
    Stage.BOOTLOADER: 0.05,
    Stage.KERNEL: 0.15,
    Stage.INIT: 0.15,
    Stage.NETWORK: 0.05,
    Stage.CLOUD_INIT_LOCAL: 0.1,
    Stage.CLOUD_INIT: 0.2,
    Stage.CLOUD_CONFIG: 0.1,
    Stage.CLOUD_FINAL: 0.15,
}


PATIENCE = 300.0  # seconds, as for a real machine under KVM


@dataclass(frozen=True, slots=True)
class Script:
    """What the annotation says."""

    stage: str = ""
    outcome: str = ""
    after: float = 0.0


def script(obj: Object) -> Script:
    """The annotation, read; a malformed one is an error."""
    text = obj.annotations.get(ANNOTATION, "")
    if not text:
        return Script()
    try:
        pairs = dict(part.strip().split("=", 1) for part in text.split(","))
        result = Script(pairs.pop("stage"), pairs.pop("outcome"), float(pairs.pop("after", 0)))
    except (ValueError, KeyError):
        result, pairs = Script("?"), {}
    if pairs or result.stage not in STAGES or result.outcome not in OUTCOMES:
        raise HikubeError(
            "HK304",
            f"{obj.ref}: the annotation {ANNOTATION} is {text[:80]!r}",
            why=f"stage is one of {', '.join(STAGES)}; outcome one of {', '.join(OUTCOMES)}",
            fix='write "stage=kernel,outcome=panic,after=1"',
        )
    return result


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the simulated guest is now."""

    progress: Progress
    outcome: str = ""  # "", fail, hang, panic or exit


class Simulator(Pauses, Reboots):
    """Takes the same steps as a real backend and keeps them as numbers in the store."""

    name = "simulator"

    def __init__(
        self, store: Store, now: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.store = store
        self.now = now
        self.sleep = sleep

    def _state(self, obj: Object) -> dict[str, Any]:
        return dict(self.store.allocation(scope(obj.key)).get("sim", {}))

    def _change(self, obj: Object, **values: Any) -> None:
        def change(own: dict[str, Any], _: Any) -> dict[str, Any]:
            state = {k: v for k, v in {**own.get("sim", {}), **values}.items() if v is not None}
            return {**own, "sim": state}

        self.store.allocate(scope(obj.key), change)

    # reading

    def observe_disk(self, obj: Object) -> DiskObserved:
        state = self._state(obj)
        if "imported" not in state:
            return DiskObserved()
        plan = script(obj)
        if plan.stage in ("import", "disk") and plan.outcome != "slow":
            done = self.now() - state["imported"] < plan.after
            problem = "" if done else f"the simulated {plan.stage} failed ({plan.outcome})"
            return DiskObserved(True, state["size"], 0, "qcow2", generation=state["generation"], problem=problem)
        busy = self.now() - state["imported"] < (plan.after if plan.outcome == "slow" else 0)
        return DiskObserved(True, state["size"], 196608, "qcow2", generation=state["generation"], importing=busy)

    def observe_machine(self, obj: Object) -> MachineObserved:
        s = self._state(obj)
        run = RunState.ABSENT
        if "definition" in s:
            run = RunState.SHUTOFF
        if "started" in s:
            run = RunState.PAUSED if s.get("paused") else RunState.RUNNING
            if self._moment(obj, s).outcome == "exit":
                run = RunState.SHUTOFF
        return MachineObserved(
            state=run,
            definition=s.get("definition", ""),
            live_definition=s.get("live", ""),
            seed=s.get("seed"),
            forwards=frozenset(Forward(*f) for f in s.get("forwards", [])),
            network=bool(s.get("network")),
            folder="generation" in s,
            generation=s.get("generation", 0),
            started=s.get("started"),
            live_shape=s.get("shape", ""),
            capacity=Capacity(*s.get("capacity", ())),
            most=Capacity(*s.get("most", ())),
        )

    def prepare(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        """Nothing is chosen here."""

    def refresh(self, obj: Object, emit: Emit) -> None:
        """A simulated guest does nothing by itself."""

    def plan(self, obj: Object, intent: Intent, options: RunOptions) -> Planned:
        return hostplan.plan(self, obj, intent, options)

    def desired(self, obj: Object, options: RunOptions, seen: MachineObserved) -> MachineDesired:
        return self._wanted(obj)

    def _wanted(self, obj: Object) -> MachineDesired:
        spec = plain_spec(obj.spec)
        # What a restart is needed for; ports, keys and running are not part of the machine's definition.
        fixed = {k: spec.get(k) for k in ("instanceType", "instanceProfile", "disks", "resources", "cpuModel", "gpus")}
        digest = _digest(fixed)
        shape = _digest(fixed | {"instanceType": "", "resources": {}})
        size = requested(obj.instance)
        content = seed.seed(obj, names.firmware_uuid(obj.namespace, obj.name, obj.instance.cloudInitSeed))
        address = "127.77.0." + str(1 + hashlib.sha256("/".join(obj.key).encode()).digest()[0] % 254)
        forwards = frozenset(Forward(p, address, p) for p in obj.instance.ports)
        capacity = Capacity(size.vcpus, size.memory)
        return MachineDesired(digest, content.digest if content else None, forwards, shape=shape, capacity=capacity)

    def moment(self, obj: Object) -> Moment:
        """Where the guest is, by the clock alone."""
        return self._moment(obj, self._state(obj))

    def _moment(self, obj: Object, s: dict[str, Any]) -> Moment:
        if "started" not in s:  # stopped since the caller looked
            return Moment(Progress(Stage.FIRMWARE), "exit")
        # A clock that was set back does not make it wait for the old time.
        elapsed = max(0.0, (s["paused"] if s.get("paused") else self.now()) - s["started"])
        plan = script(obj)
        begin = 0.0
        for stage, share in _SHARE.items():
            length = share * s.get("pace", 0.0)
            if plan.stage == stage:
                if plan.outcome == "slow":
                    length += plan.after
                else:
                    if elapsed >= begin + plan.after:
                        return Moment(Progress(stage), plan.outcome)
                    return Moment(Progress(stage))
            if elapsed < begin + length:
                return Moment(Progress(stage))
            begin += length
        return Moment(Progress(Stage.DONE))

    def view(self, obj: Object) -> View:
        seen = self.observe_machine(obj)
        on = seen.state in (RunState.RUNNING, RunState.PAUSED)
        moment = self.moment(obj) if on else None
        cloud_init = None
        if moment and obj.instance.has_seed:
            if moment.progress.stage is Stage.DONE:
                cloud_init = True
            elif moment.outcome == "fail" and moment.progress.stage.startswith("cloud"):
                cloud_init = False
        access = [
            {"port": f.port, "protocol": "TCP", "address": f.address, "hostPort": f.host_port}
            for f in sorted(seen.forwards, key=lambda f: f.port)
        ]
        addresses = [{"type": "Hostname", "address": names.fqdn(obj.namespace, obj.name)}]
        if on and access:
            addresses.insert(0, {"type": "ExternalIP", "address": str(access[0]["address"])})
        want = self._wanted(obj)
        return View(
            observed=seen,
            ready=cloud_init is not None or bool(moment and moment.progress.stage is Stage.DONE),
            failed=cloud_init is None and bool(moment and moment.outcome in ("fail", "panic")),
            progress=moment.progress if moment else None,
            cloud_init=cloud_init,
            trouble=self._trouble(obj, moment) if moment and moment.outcome in ("fail", "panic") else None,
            accelerator="none",
            addresses=addresses,
            access=access if on else [],
            differences=[difference("HK510", "simulated: nothing runs")],
            instance_id=names.firmware_uuid(obj.namespace, obj.name, obj.instance.cloudInitSeed),
            restart_required=on and seen.live_definition != want.definition,
        )

    def _trouble(self, obj: Object, moment: Moment) -> Trouble:
        stage = moment.progress.stage
        if moment.outcome == "panic":
            return Trouble(
                "HK903", f"the simulated kernel panicked in stage {stage}", remedy=f"see the annotation {ANNOTATION}"
            )
        if stage.startswith("cloud"):
            return Trouble(
                "HK906", f"the simulated cloud-init failed in stage {stage}", remedy=f"see the annotation {ANNOTATION}"
            )
        return Trouble(
            "HK901" if stage is Stage.FIRMWARE else "HK910",
            f"the simulated boot failed in stage {stage}",
            remedy=f"see the annotation {ANNOTATION}",
        )

    # doing

    def perform(self, step: Step, obj: Object, options: RunOptions, emit: Emit) -> None:
        if obj.kind != INSTANCE:
            self._disk(step, obj)
            return
        want = self._wanted(obj)
        match step.verb:
            case Verb.RECORD:
                self._change(obj, generation=obj.generation)
            case Verb.SEED:
                self._change(obj, seed=want.seed)
            case Verb.NETWORK:
                self._change(obj, network=True)
            case Verb.DEFINE:
                self._change(obj, definition=want.definition)
            case Verb.START:
                most = list(astuple(growth.room(requested(obj.instance))))
                self._change(obj, started=self.now(), pace=options.pace, paused=None, most=most)
                self._run_as(obj, want)
                self.store.keep(obj.key, started_before=True)
            case Verb.RESIZE:
                self._run_as(obj, want)
            case Verb.FORWARDS:
                pairs = sorted((f.port, f.address, f.host_port) for f in want.forwards)
                self._change(obj, forwards=pairs)
            case Verb.STOP:
                self._change(obj, started=None, live=None, paused=None, forwards=None, network=None)
            case Verb.DELETE:
                self.store.forget(obj.key)
            case _:
                raise AssertionError(step)

    def _run_as(self, obj: Object, want: MachineDesired) -> None:
        self._change(obj, live=want.definition, shape=want.shape, capacity=list(astuple(want.capacity)))

    def _disk(self, step: Step, obj: Object) -> None:
        plan = script(obj)
        match step.verb:
            case Verb.IMPORT:
                if plan.stage == "import" and plan.outcome in ("fail", "exit", "panic") and not plan.after:
                    raise HikubeError(
                        "HK701", f"{obj.ref}: the simulated import failed", fix=f"see the annotation {ANNOTATION}"
                    )
                self._change(obj, imported=self.now(), size=storage_bytes(obj), generation=obj.generation)
            case Verb.GROW:
                self._change(obj, size=storage_bytes(obj))
            case Verb.RECORD:
                self._change(obj, generation=obj.generation)
            case Verb.DELETE:
                self.store.forget(obj.key)
            case _:
                raise AssertionError(step)

    def follow(self, obj: Object, timeout: float | None, emit: Emit) -> Verdict:
        """Tell the stages as they pass, and how it ended."""
        begin = self.now()
        last: Progress | None = None
        while True:
            seen = self.observe_machine(obj)
            moment = self.moment(obj) if seen.started is not None else None
            spent = self.now() - begin
            stage = moment.progress.stage if moment else Stage.FIRMWARE
            if moment is None or moment.outcome == "exit":
                return Verdict(
                    Result.GONE,
                    stage,
                    "the machine stopped",
                    Trouble("HK910", "the simulated machine stopped"),
                    seconds=spent,
                )
            if moment.progress != last:
                last = moment.progress
                if stage is not Stage.DONE:
                    emit(Event(EventType.STAGE, WORDS[stage], obj.ref, obj.namespace, stage=str(stage)))
            if stage is Stage.DONE:
                done = True if obj.instance.has_seed else None
                fresh = self.store.guest(obj.key).up != seen.started
                if fresh:
                    self.store.keep(obj.key, up=seen.started)
                return Verdict(Result.READY, stage, "ready", cloud_init=done, seconds=spent, fresh=fresh)
            if moment.outcome in ("fail", "panic"):
                trouble = self._trouble(obj, moment)
                failed = trouble.code == "HK906"
                result = Result.CLOUD_INIT_FAILED if failed else Result.FAILED
                return Verdict(
                    result, stage, trouble.message, trouble, cloud_init=False if failed else None, seconds=spent
                )
            if spent >= (PATIENCE if timeout is None else timeout):
                return Verdict(Result.TIMEOUT, stage, f"timed out in stage {WORDS[stage]}", seconds=spent)
            self.sleep(0.02)

    def pause(self, obj: Object) -> None:
        self._change(obj, paused=self.now())

    def unpause(self, obj: Object) -> None:
        self._change(obj, paused=None)

    def soft_reboot(self, obj: Object) -> None:
        if self.observe_machine(obj).state is not RunState.RUNNING:
            raise HikubeError("HK805", f"{obj.name} is not running", fix=f"hikube-local start {obj.name}")

    def discard(self, obj: Object) -> None:
        self.store.forget(obj.key)


def make(layout: Layout, store: Store, settings: Settings) -> Simulator:
    return Simulator(store)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
