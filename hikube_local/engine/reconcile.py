"""The loop: observe, plan, perform one step, observe again, until nothing is left to do; then follow until ready."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import field, replace
from functools import partial
from typing import Any, TypeVar

from hikube_local.api.objects import DISK, INSTANCE, Key, Object
from hikube_local.api.sources import FromUpload
from hikube_local.backends.capabilities import OnThisHost
from hikube_local.backends.protocol import Backend
from hikube_local.engine.status import boot
from hikube_local.engine.together import Together
from hikube_local.errors import ExitCode, HikubeError, unexpected
from hikube_local.events import Emit, Event, EventType
from hikube_local.locks import locked
from hikube_local.log import STEPS
from hikube_local.paths import Layout
from hikube_local.plan.planner import upload_words
from hikube_local.plan.running import applied
from hikube_local.plan.steps import Planned, RunOptions, RunState, Step, Verb
from hikube_local.readiness.stages import Result, Stage, Trouble, Verdict
from hikube_local.records import dataclass
from hikube_local.store.db import Store
from hikube_local.store.records import Intent
from hikube_local.text import timestamp

MOST_STEPS = 40
_UNWRITTEN = (EventType.PROGRESS, EventType.WAITING, EventType.UNCHANGED)  # nothing happened to the object
Looked = TypeVar("Looked")
_WORDS: dict[str, str] = {
    Verb.IMPORT: "importing",
    Verb.GROW: "growing",
    Verb.NETWORK: "configuring the tenant network",
    Verb.SEED: "writing the cloud-init seed",
    Verb.DEFINE: "defining",
    Verb.START: "starting",
    Verb.PLUG: "attaching disks",
    Verb.RESIZE: "giving it more vCPUs and memory",
    Verb.FORWARDS: "opening ports",
    Verb.STOP: "stopping",
    Verb.DELETE: "deleting",
}


# What became of an object, by the first of these that was among its steps.
_ENDED = (
    (Verb.DELETE, "deleted"),
    (Verb.START, "started"),
    (Verb.STOP, "stopped"),
    (Verb.IMPORT, "imported"),
    (Verb.GROW, "grown"),
    (None, "updated"),
)


@dataclass(slots=True)
class Done:
    """What became of one object."""

    key: Key
    steps: list[Step] = field(default_factory=list)
    error: HikubeError | None = None
    restart_required: bool = False
    waits: bool = False  # for an upload: nothing failed
    verdict: Verdict | None = None

    @property
    def changed(self) -> bool:
        return any(s.verb != Verb.RECORD for s in self.steps)

    @property
    def exit_code(self) -> ExitCode:
        if self.error:
            return self.error.exit_code
        if self.verdict is None or self.verdict.result in (Result.READY, Result.NO_SIGNAL):
            return ExitCode.DONE
        return ExitCode.TIMEOUT if self.verdict.result is Result.TIMEOUT else ExitCode.FAILED


class Reconciler:
    """Brings what carries the objects of the store to what they say."""

    def __init__(
        self, layout: Layout, store: Store, backend: Callable[[str], Backend], emit: Emit, options: RunOptions
    ) -> None:
        self.layout, self.store, self.backend, self.options = layout, store, backend, options
        self._listener = emit
        self._work: Together | None = None

    def emit(self, event: Event) -> None:
        """Every event goes to the store and to the listener; after an interrupt it is where the work ends."""
        if self._work:
            self._work.heed()
        if event.type is EventType.PULSE:
            return
        if event.type not in _UNWRITTEN:
            # On a full disk the log has gaps, and what is told is what happened to the object.
            with contextlib.suppress(HikubeError):
                self.store.append(event)
        self._listener(event)

    def _say(self, type: EventType, obj: Object, message: str, **data: object) -> None:
        self.emit(Event(type, message, obj.ref, obj.namespace, data=dict(data)))

    def _failed(self, obj: Object, e: HikubeError) -> None:
        data = {"why": e.why, "fix": e.fix}
        self.emit(Event(EventType.FAILED, e.what, obj.ref, obj.namespace, code=e.code, data=data))

    def plan(self, obj: Object) -> Planned:
        """What would be done now; a look, which changes nothing."""
        return self.backend(obj.backend).plan(obj, self._intent(obj), self.options)

    def _intent(self, obj: Object) -> Intent:
        intent = self.store.intent(obj.key)
        if self.options.dry and obj.kind == INSTANCE:
            return replace(intent, power=applied(obj, intent.power))
        return intent

    def reconcile(self, keys: Iterable[Key], wait: bool = False, timeout: float | None = None) -> dict[Key, Done]:
        """Carry out what is missing for these objects: disks first, independent ones side by side."""
        self.layout.make()
        ordered = sorted(set(keys))
        with contextlib.ExitStack() as locks:
            for key in sorted({*ordered, *self._disks_of(ordered)}):
                path = self.layout.lock(*key)
                locks.enter_context(locked(path, partial(self._waiting, key)))
            futures: dict[Key, Future[Done]] = {}
            # Machines that go, then disks, then machines that come: whoever is waited for is submitted first.
            going = [k for k in ordered if k.kind == INSTANCE and (o := self.store.get(k)) and o.deletion]
            coming = [k for k in ordered if k.kind == INSTANCE and k not in going]
            # The locks stay held until whoever is at work has given up.
            hosts = {o.backend for k in going if (o := self.store.get(k))}
            try:
                with Together(self._listener) as self._work:
                    for key in [*going, *self._disks_in_order(ordered), *coming]:
                        futures[key] = self._work.submit(self._one, key, dict(futures))
            finally:  # once for all that went, also after an interrupt
                for name in sorted(hosts):
                    self._tidy(name)
            results = {key: future.result() for key, future in futures.items()}
        # The locks are free while we wait for the guests.
        waits = [(k, done) for k, done in results.items() if wait and k.kind == INSTANCE and not done.error]
        if waits:
            with Together(self._listener) as self._work:
                followed = [self._work.submit(self._follow, key, done, timeout) for key, done in waits]
            for future in followed:
                future.result()
        self._keep_status(results)
        return results

    def _tidy(self, name: str) -> None:
        """What the machines that went had together; they are gone, whatever becomes of this."""
        try:
            backend = self.backend(name)
            if isinstance(backend, OnThisHost):
                backend.tidy()
        except HikubeError as e:
            self._listener(Event(EventType.WARNING, e.what, code=e.code, data={"why": e.why, "fix": e.fix}))

    def _keep_status(self, results: dict[Key, Done]) -> None:
        """What became of the objects is status: whoever watches the store is told of it."""
        from hikube_local.engine.status import Statuses

        statuses = Statuses(self.store, self.backend)

        def keep(key: Key) -> None:
            try:
                if obj := self.store.get(key):
                    statuses.keep(obj)
            except Exception as e:  # what was done is done, whether or not it can be looked at this moment
                STEPS.debug("the status of %s was not kept: %s", key.ref, e)

        with Together(self._listener) as work:
            for key, done in results.items():
                if done.steps or done.error or (done.verdict and done.verdict.fresh):
                    work.submit(keep, key)

    def _disks_of(self, keys: Iterable[Key]) -> list[Key]:
        """The disks of these machines: nobody else changes them while their machine is worked on."""
        machines = [o for k in keys if k.kind == INSTANCE and (o := self.store.get(k))]
        return [key for o in machines for key in o.disk_keys]

    def _disks_in_order(self, keys: Iterable[Key]) -> list[Key]:
        """Copies after what they are a copy of."""
        left = [k for k in keys if k.kind == DISK]
        out: list[Key] = []
        while left:
            ready = [k for k in left if self._origin(k) not in left] or left
            out += ready
            left = [k for k in left if k not in ready]
        return out

    def _origin(self, key: Key) -> Key | None:
        obj = self.store.get(key) if key.kind == DISK else None
        return obj.origin if obj else None

    def _waiting(self, key: Key, who: str) -> None:
        message = f"waits for {who}, which is working on {key.ref}"
        self.emit(Event(EventType.WAITING, message, key.ref, key.namespace, code="HK609"))

    def _one(self, key: Key, others: dict[Key, Future[Done]]) -> Done:
        done = Done(key)
        obj = self.store.get(key)
        if obj is None:
            return done
        try:
            if key.kind == INSTANCE and not obj.deletion:
                if waits := self._await_disks(obj, others):
                    self._say(
                        EventType.HINT,
                        obj,
                        f"waits for its disk {waits.name}: {upload_words(waits)}, then run up again",
                    )
                    done.waits = True
                    return done
            elif key.kind == DISK and obj.deletion:
                self._await_machines(obj, others)
            elif (origin := self._origin(key)) in others and (error := others[origin].result().error):
                raise HikubeError("HK708", f"its source disk {origin.name} is missing: {error.what}")
            if key.kind == DISK and not obj.deletion and (waits := self._upload(obj)):
                about = "" if waits is obj else f"its source {waits.ref} needs an upload: "
                self._say(EventType.HINT, obj, f"waits for its content: {about}{upload_words(waits)}")
                done.waits = True
                if waits is not obj:
                    return done
            self._steps(obj, done)
        except Exception as e:
            # Each object by itself: what happens to one does not keep the others from their end.
            done.error = unexpected(e)
            self._failed(obj, done.error)
        self._keep_failure(obj, done)
        if not (done.error or done.changed or done.waits or obj.deletion):
            self._say(EventType.UNCHANGED, obj, "nothing to do")
        elif done.changed and not done.error:
            self._say(EventType.DONE, obj, next(w for v, w in _ENDED if v is None or v in {s.verb for s in done.steps}))
        return done

    def _keep_failure(self, obj: Object, done: Done) -> None:
        """Why a disk did not come about, or a machine could not be started, is told until it does, or can."""
        if obj.deletion or self.store.get(obj.key) is None:
            return
        failed = _told(done.error) if done.error else None
        seen = self.store.guest(obj.key)
        if seen.failed != failed or seen.got:
            with contextlib.suppress(HikubeError):
                self.store.keep(obj.key, failed=failed, got=None)

    def _upload(self, disk: Object) -> Object | None:
        """The disk whose upload this one waits for: itself, or what it is a copy of."""
        seen: set[Key] = set()
        here: Object | None = disk
        while here and here.key not in seen and not self.backend(here.backend).observe_disk(here).exists:
            if isinstance(here.disk.content, FromUpload):
                return here
            seen.add(here.key)
            origin = self._origin(here.key)
            here = self.store.get(origin) if origin else None
        return None

    def _await_machines(self, disk: Object, others: dict[Key, Future[Done]]) -> None:
        """A disk's data go only when the machine that used it is gone."""
        for key, future in others.items():
            if key.kind == INSTANCE and key.namespace == disk.namespace and (error := future.result().error):
                raise HikubeError("HK708", f"{disk.ref} is kept: vminstance/{key.name} is still there", why=error.what)

    def _await_disks(self, obj: Object, disks: dict[Key, Future[Done]]) -> Object | None:
        """Its disks are there, or the error that says why not; one that still waits for its upload is handed back."""
        waits: Object | None = None
        for ref in obj.instance.disks:
            key = Key(DISK, obj.namespace, ref.name)
            if key in disks and (error := disks[key].result().error):
                raise HikubeError("HK708", f"its disk {ref.name} is missing: {error.what}", fix=error.fix)
            disk = self.store.get(key)
            if disk is None or disk.deletion:
                raise HikubeError("HK402", f"its disk {ref.name} does not exist", fix=f"add a VMDisk named {ref.name}")
            if upload := self._upload(disk):
                waits = upload
                continue
            seen = self.backend(disk.backend).observe_disk(disk)
            if seen.problem or not seen.exists:
                why = seen.problem or "it was never imported"
                raise HikubeError(
                    "HK708",
                    f"its disk {ref.name} cannot be used: {why}",
                    fix=f"hikube-local describe vmdisk {ref.name}",
                )
        return waits

    def _steps(self, obj: Object, done: Done) -> None:
        backend = self.backend(obj.backend)
        options = self.options
        prepared = 0
        for _ in range(MOST_STEPS):
            fresh = self.store.get(obj.key)
            if fresh is None:
                return
            obj = fresh  # it may have been asked for anew, or deleted, meanwhile
            if obj.generation != prepared:
                backend.prepare(obj, options, self.emit)
                prepared = obj.generation
            planned = healed(backend, obj, self.emit, self.plan)
            done.restart_required = planned.restart_required
            if not planned.steps:
                return
            step = planned.steps[0]
            if step.verb == Verb.START and any(s.verb == Verb.START for s in done.steps):
                return  # it ended as soon as it was started: whoever follows it tells how
            if step.verb != Verb.RECORD:
                words = _WORDS.get(step.verb, step.verb)
                self._say(EventType.STEP, obj, f"{words}: {step.why}" if step.why else words, step=str(step.verb))
            STEPS.debug("%s in %s: %s: %s", obj.ref, obj.namespace, step.verb, step.why or "it is not so yet")
            backend.perform(step, obj, options, self._importing(obj) if step.verb == Verb.IMPORT else self.emit)
            done.steps.append(step)
        raise HikubeError("HK999", f"{obj.ref} does not settle", why=", ".join(s.verb for s in done.steps[-6:]))

    def _importing(self, obj: Object) -> Emit:
        """Each event, and how far the import is is kept for whoever looks."""

        def emit(event: Event) -> None:
            self.emit(event)
            if event.type is EventType.PROGRESS and event.data.get("total"):
                with contextlib.suppress(HikubeError):
                    self.store.keep(obj.key, got={**event.data, "time": event.time})

        return emit

    def _follow(self, key: Key, done: Done, timeout: float | None) -> None:
        obj = self.store.get(key)
        if obj is None or obj.deletion:
            return
        backend = self.backend(obj.backend)
        try:
            started = any(s.verb == Verb.START for s in done.steps)
            seen = healed(backend, obj, self.emit, backend.observe_machine)
            if seen.state is not RunState.RUNNING and not started:
                return
            begun = timestamp(seen.started) if seen.started is not None else ""
            done.verdict = backend.follow(obj, timeout, self._noting_stages(obj, begun))
            if done.verdict.result is Result.READY and done.verdict.fresh:
                self._note_stage(obj, begun, Stage.DONE)
        except Exception as e:
            done.error = unexpected(e)
            self._failed(obj, done.error)
            return
        v = done.verdict
        ok = v.result in (Result.READY, Result.NO_SIGNAL)
        data: dict[str, object] = {"seconds": round(v.seconds, 1), "result": str(v.result)}
        if v.trouble:
            data |= {"why": v.trouble.message, "fix": v.trouble.remedy}
        if v.lines or (v.trouble and v.trouble.lines):
            data["lines"] = list(v.trouble.lines if v.trouble and v.trouble.lines else v.lines)
        kind, code = EventType.READY if ok else EventType.FAILED, v.trouble.code if v.trouble else ""
        tell = self.emit if v.fresh else self._listener  # what was so before is no event
        tell(Event(kind, v.message, obj.ref, obj.namespace, str(v.stage), code=code, data=data))

    def _noting_stages(self, obj: Object, begun: str) -> Emit:
        """Each event, and when a stage of the boot began is kept for whoever looks."""

        def emit(event: Event) -> None:
            self.emit(event)
            if event.type is EventType.STAGE:
                self._note_stage(obj, begun, event.stage)

        return emit

    def _note_stage(self, obj: Object, begun: str, stage: str) -> None:
        with contextlib.suppress(HikubeError):
            self.store.change_status(obj.key, lambda kept: {**kept, "boot": boot(kept.get("boot") or {}, begun, stage)})


def _told(error: HikubeError) -> dict[str, Any]:
    """An error as a cause: code, message, and where there are any evidence and remedy."""
    return Trouble(error.code, error.what, (error.why,) if error.why else (), error.fix or "").as_json()


def healed(backend: Backend, obj: Object, emit: Emit, look: Callable[[Object], Looked]) -> Looked:
    """A look at an object by a command that changes something: what carries it (HK610) is brought back first.

    `refresh` does that and no more: what `prepare` heals it heals under the object's locks.
    """
    try:
        return look(obj)
    except HikubeError as e:
        if e.code != "HK610":
            raise
    backend.refresh(obj, emit)
    return look(obj)
