"""A third backend, as somebody would add one: machines are files in a folder, and nothing of the house knows of it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from hikube_local import files
from hikube_local.api.objects import Object
from hikube_local.api.shapes import plain_spec
from hikube_local.backends.capabilities import Logs, Pauses
from hikube_local.backends.protocol import Settings, View
from hikube_local.events import Emit
from hikube_local.paths import Layout
from hikube_local.plan.running import wants_to_run
from hikube_local.plan.steps import DiskObserved, MachineObserved, Planned, RunOptions, RunState, Step, Verb
from hikube_local.readiness.stages import Progress, Result, Stage, Verdict
from hikube_local.render.machine import storage_bytes
from hikube_local.store.db import Store
from hikube_local.store.records import Intent

APPLY = "apply"  # a step of its own: no other backend has it


def make(layout: Layout, store: Store, settings: Settings) -> Toy:
    return Toy(layout, store)


class Toy(Logs, Pauses):
    """A life and a few capabilities."""

    name = "toy"

    def __init__(self, layout: Layout, store: Store) -> None:
        self.folder, self.store = layout.state / "toy", store

    def _path(self, obj: Object) -> Path:
        return self.folder / obj.kind / obj.namespace / f"{obj.name}.json"

    def _row(self, obj: Object) -> dict[str, Any]:
        return files.read_json(self._path(obj)) or {}

    def _write(self, obj: Object, **values: Any) -> None:
        files.make_folder(self._path(obj).parent)
        files.write_json(self._path(obj), {**self._row(obj), **values})

    def prepare(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        pass

    def plan(self, obj: Object, intent: Intent, options: RunOptions) -> Planned:
        row = self._row(obj)
        if obj.deletion:
            return Planned((Step(Verb.DELETE, obj.key, "its deletion was asked for"),))
        if row.get("spec") != plain_spec(obj.spec):
            return Planned((Step(APPLY, obj.key, "another manifest" if row else ""),))
        if obj.kind == "VMDisk":
            return Planned()
        seen = self.observe_machine(obj)
        run, on = wants_to_run(obj, seen, intent), seen.state is not RunState.SHUTOFF
        ended = on and intent.end_boot is not None and intent.end_boot == seen.started
        if on and (run is False or ended):
            return Planned((Step(Verb.STOP, obj.key),))
        return Planned((Step(Verb.START, obj.key),)) if run and not on else Planned()

    def perform(self, step: Step, obj: Object, options: RunOptions, emit: Emit) -> None:
        match step.verb:
            case "apply":
                self._write(obj, spec=plain_spec(obj.spec))
            case Verb.START:
                self._write(obj, started=time.time(), on=True, paused=False)
                self.store.keep(obj.key, started_before=True)
            case Verb.STOP:
                self._write(obj, on=False)
            case Verb.DELETE:
                self.discard(obj)

    def discard(self, obj: Object) -> None:
        self._path(obj).unlink(missing_ok=True)
        self.store.forget(obj.key)

    def follow(self, obj: Object, timeout: float | None, emit: Emit) -> Verdict:
        return Verdict(Result.READY, Stage.DONE, "ready", cloud_init=True if obj.instance.has_seed else None)

    def observe_disk(self, obj: Object) -> DiskObserved:
        return DiskObserved(True, storage_bytes(obj), 0, "toy") if self._row(obj) else DiskObserved()

    def observe_machine(self, obj: Object) -> MachineObserved:
        row = self._row(obj)
        if not row:
            return MachineObserved()
        state = RunState.PAUSED if row.get("paused") else RunState.RUNNING
        return MachineObserved(state if row.get("on") else RunState.SHUTOFF, started=row.get("started"))

    def view(self, obj: Object) -> View:
        seen = self.observe_machine(obj)
        return View(seen, ready=seen.state is RunState.RUNNING, progress=Progress(Stage.DONE))

    def refresh(self, obj: Object, emit: Emit) -> None:
        pass

    # Pauses, Logs

    def pause(self, obj: Object) -> None:
        self._write(obj, paused=True)

    def unpause(self, obj: Object) -> None:
        self._write(obj, paused=False)

    def log(self, obj: Object, name: str = "console") -> Said:
        return Said(json.dumps(self._row(obj)))


class Said:
    """All that such a machine ever says."""

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self, previous: bool, since: float | None, whole: bool = True) -> str:
        return self.text

    def more(self) -> Any:
        yield from ()

    def raw(self) -> bytes:
        return self.text.encode()

    def first_boot(self, most: int) -> bytes:
        return self.raw()[-most:]
