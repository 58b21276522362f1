"""In place of the reconciler where another machine carries the objects: it reconciles, and this tells how it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hikube_local.api.objects import INSTANCE, Key
from hikube_local.backends.remote.backend import CREATE, UPDATE
from hikube_local.backends.remote.recorder import Recorder, Seat
from hikube_local.engine.reconcile import Done
from hikube_local.errors import HikubeError, unexpected
from hikube_local.events import Emit, Event, EventType
from hikube_local.plan.running import expected_up
from hikube_local.plan.steps import Planned, RunOptions, Step, Verb
from hikube_local.readiness import cloudinit
from hikube_local.readiness.console import Console
from hikube_local.readiness.stages import WORDS, Result, Stage, Trouble, Verdict
from hikube_local.store.records import Intent

if TYPE_CHECKING:
    from hikube_local.api.objects import Object
    from hikube_local.engine.elsewhere import Elsewhere

EVERY = 1.0  # seconds between two questions of who waits
PATIENCE = 600.0  # seconds for a machine to become ready, where nothing is said
LEAVING = 300.0  # seconds for an object to be gone
STOPPING = 300.0  # seconds for a machine to be off
_SENT = {
    CREATE: "created",
    UPDATE: "updated",
    "start": "asked to start",
    "stop": "asked to stop",
    "restart": "asked to restart",
}


class Following:
    """Asked for as Session.reconciler is."""

    def __init__(self, session: Elsewhere, emit: Emit, options: RunOptions) -> None:
        self.session, self.emit, self.options = session, emit, options

    def plan(self, obj: Object) -> Planned:
        return self.session.remote.plan(obj, Intent(), self.options)

    def _say(self, type: EventType, key: Key, message: str, **more: Any) -> None:
        self.emit(Event(type, message, key.ref, key.namespace, **more))

    def reconcile(self, keys: Iterable[Key], wait: bool = False, timeout: float | None = None) -> dict[Key, Done]:
        objects = self.session.store
        results = {key: Done(key) for key in sorted(set(keys))}
        for key, done in results.items():
            done.error = objects.failed.pop(key, None)
            step = objects.sent.pop(key, None)
            try:
                step = step or (None if done.error else self._started_again(key))
            except HikubeError as e:
                done.error = e
            if step and not done.error:
                done.steps = [step]
            if done.error:
                self._failed(key, done.error)
            elif step is None:
                self._say(EventType.UNCHANGED, key, "nothing to do")
            elif step.verb != Verb.DELETE:
                self._say(EventType.DONE, key, _SENT[step.verb])
        self._until([d for d in results.values() if _was(d, Verb.DELETE)], _is_gone, LEAVING, "deleted")
        self._until([d for d in results.values() if _was(d, "stop")], _is_off, STOPPING, "stopped")
        if self.session.context.kind == "ssh" and any(
            k.kind == INSTANCE and not _was(d, Verb.DELETE) for k, d in results.items()
        ):
            from hikube_local.engine import local_ports

            local_ports.start(self.session)
        if wait:
            self._ready(
                [d for key, d in results.items() if key.kind == INSTANCE and not d.error and not _was(d, Verb.DELETE)],
                timeout,
            )
        return results

    def _started_again(self, key: Key) -> Step | None:
        """A stop ends where a manifest says that the machine runs, as here."""
        obj = self.session.store.get(key) if key.kind == INSTANCE else None
        if (
            obj is None
            or not expected_up(obj, "")
            or self.session.remote.status(obj).get("printableStatus") != "Stopped"
        ):
            return None
        self.session.writes()
        return Step("start", key) if self.session.remote.switch(obj, "start") else None

    def _failed(self, key: Key, e: HikubeError) -> None:
        self._say(EventType.FAILED, key, e.what, code=e.code, data={"why": e.why, "fix": e.fix})

    def _until(self, waiting: list[Done], holds: Callable[[Elsewhere, Key], bool], most: float, word: str) -> None:
        """What was asked for is so when a look says it."""
        end = time.monotonic() + most
        while waiting:
            self.session.api.forget()
            for done in list(waiting):
                try:
                    so = holds(self.session, done.key)
                except HikubeError:  # the next look may say it
                    so = False
                if so:
                    waiting.remove(done)
                    self._say(EventType.DONE, done.key, word)
                elif time.monotonic() > end:
                    waiting.remove(done)
                    fix = f"hikube-local --context {self.session.context.name} get {done.key.ref}"
                    done.error = HikubeError("HK907", f"{done.key.ref} is not {word} yet", fix=fix)
                    self._failed(done.key, done.error)
            if waiting:
                time.sleep(EVERY)

    def _ready(self, waiting: list[Done], timeout: float | None) -> None:
        boots = {d.key: boot for d in waiting if d.steps and (boot := self._boot(d.key)) is not None}
        try:
            self._follow(waiting, timeout, boots)
        finally:
            for boot in boots.values():
                boot.recorder.close()

    def _boot(self, key: Key) -> Boot | None:
        """What its console tells of the boot that begins, where nothing else does."""
        obj = self.session.store.get(key)
        recorder = self.session.remote.record(obj) if obj else None
        return Boot(recorder, obj) if obj and recorder else None

    def _follow(self, waiting: list[Done], timeout: float | None, boots: dict[Key, Boot]) -> None:
        begin = time.monotonic()
        told: dict[Key, str] = {}
        first = True
        while waiting:
            self.session.api.forget()
            for done in list(waiting):
                spent = time.monotonic() - begin
                try:
                    verdict = self._verdict(done, spent, told, first and not done.steps, boots.get(done.key))
                except Exception as e:
                    done.error = unexpected(e)
                    self._failed(done.key, done.error)
                    waiting.remove(done)
                    continue
                if verdict is None and spent > (PATIENCE if timeout is None else timeout):
                    stage = Stage(told[done.key]) if told.get(done.key) in list(Stage) else None
                    what = f"timed out in stage {WORDS[stage]}" if stage else "timed out"
                    lines = tuple(boots[done.key].lines) if done.key in boots else ()
                    trouble = Trouble("HK907", what, lines, f"hikube-local logs {done.key.name}") if lines else None
                    verdict = Verdict(Result.TIMEOUT, stage or Stage.FIRMWARE, what, trouble, seconds=spent)
                if verdict:
                    waiting.remove(done)
                    done.verdict = verdict
                    self._tell(done, verdict)
            first = False
            if waiting:
                time.sleep(EVERY)

    def _verdict(
        self, done: Done, spent: float, told: dict[Key, str], before: bool, boot: Boot | None
    ) -> Verdict | None:
        obj = self.session.store.get(done.key)
        if obj is None:
            return Verdict(Result.GONE, Stage.FIRMWARE, "it was deleted meanwhile", seconds=spent)
        now = self.session.remote.status(obj)
        word, phase = str(now.get("printableStatus")), str(now.get("phase") or now.get("printableStatus"))
        cloud_init = {c["type"]: c["status"] for c in now["conditions"]}.get("CloudInitSucceeded")
        if boot is not None and boot.console.any_sign:
            phase = str(boot.console.progress.stage)
        stage = Stage(phase) if phase in list(Stage) else Stage.FIRMWARE
        if boot is not None and (now.get("ready") or boot.console.trouble):
            if verdict := boot.verdict(time.monotonic(), spent):
                return verdict
        elif now.get("ready"):
            done_before = {"True": True, "False": False}.get(str(cloud_init))
            return Verdict(Result.READY, Stage.DONE, "ready", cloud_init=done_before, seconds=spent, fresh=not before)
        if not done.steps and word == "Stopped" and obj.instance.strategy == "Halted":
            return Verdict(Result.NO_SIGNAL, stage, "it is stopped, as its manifest says", seconds=spent, fresh=False)
        cause = now.get("cause")
        if now.get("failed") or (cause and word in ("CrashLoopBackOff", "Stopped", "DataVolumeError")):
            trouble = Trouble.read(cause) if cause else Trouble("HK822", word)
            return Verdict(Result.FAILED, stage, trouble.message, trouble, seconds=spent)
        if told.get(done.key) != phase and phase != "done":
            told[done.key] = phase
            words = WORDS.get(stage, phase) if phase in list(Stage) else phase
            self._say(EventType.STAGE, done.key, words, stage=phase)
        return None

    def _tell(self, done: Done, v: Verdict) -> None:
        ok = v.result in (Result.READY, Result.NO_SIGNAL)
        data: dict[str, Any] = {"seconds": round(v.seconds, 1), "result": str(v.result)}
        if v.trouble:
            data |= {"why": v.trouble.message, "fix": v.trouble.remedy}
        kind = EventType.READY if ok else EventType.FAILED
        self._say(kind, done.key, v.message, stage=str(v.stage), code=v.trouble.code if v.trouble else "", data=data)


class Boot:
    """A boot in a tenant, by its console: what it says while it is read, and what is said of one that cannot be read on."""

    SILENCE = 30.0  # seconds after which a console that says nothing is one of an image without

    def __init__(self, recorder: Recorder, obj: Object) -> None:
        self.recorder, self.has_seed = recorder, obj.instance.has_seed
        self._runs_since: float | None = None

    @property
    def console(self) -> Console:
        return self.recorder.console

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.console.lines][-10:]

    def verdict(self, now: float, spent: float) -> Verdict | None:
        """Of a machine that runs. `now`: monotonic seconds; `spent`: those since it was asked for."""
        console, seat = self.console, self.recorder.seat
        if self._runs_since is None:
            self._runs_since = now
        if console.trouble:
            what = f"{console.trouble.message} (after {spent:.0f} s)"
            return Verdict(Result.FAILED, console.progress.stage, what, console.trouble, None, spent)
        if self.has_seed and console.finished and console.failures:
            trouble = cloudinit.trouble(cloudinit.CloudInit(True, False, "", ()), console.failures)
            return Verdict(Result.CLOUD_INIT_FAILED, Stage.DONE, trouble.message, trouble, False, spent)
        after = f"ready after {spent:.0f} s"
        if self.has_seed and console.finished:
            words = f"{after}: cloud-init is done (said on the console)"
            return Verdict(Result.READY, Stage.DONE, words, cloud_init=True, seconds=spent)
        if not self.has_seed and console.login:
            return Verdict(Result.READY, Stage.DONE, after, seconds=spent)
        quiet = not console.any_sign and now - self._runs_since > self.SILENCE
        unseen = {
            Seat.REFUSED: "it runs; your role may not read its console",
            Seat.LOST: "it runs; somebody else has its console, so the end of its boot was not seen",
        }.get(seat, "it runs; its console says nothing" if quiet else "")
        return Verdict(Result.READY, Stage.DONE, f"ready: {unseen}", seconds=spent) if unseen else None


def _was(done: Done, verb: str) -> bool:
    """Whether this is what was sent."""
    return any(step.verb == verb for step in done.steps)


def _is_gone(session: Elsewhere, key: Key) -> bool:
    return session.store.get(key) is None


def _is_off(session: Elsewhere, key: Key) -> bool:
    return session.store.status(key).get("printableStatus") in (None, "Stopped")
