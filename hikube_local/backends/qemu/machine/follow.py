"""Waiting for a guest: console, firmware log and agent are watched, each stage is told as it comes, and trouble at once."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hikube_local.api.objects import Object
from hikube_local.backends.qemu import boot_marks, libvirt
from hikube_local.backends.qemu.agent import Agent
from hikube_local.backends.qemu.machine import stopped
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.host.facts import HostFacts
from hikube_local.plan.steps import RunState
from hikube_local.readiness import cloudinit, qemu
from hikube_local.readiness.console import Console, final_message
from hikube_local.readiness.stages import WORDS, Result, Stage, Trouble, Verdict
from hikube_local.records import dataclass
from hikube_local.userdata import whole

DEFAULT_TIMEOUT = 300.0
POLL = 0.1
ALIVE_EVERY = 1.0
# Each question costs the guest a tenth of a second under emulation: while its console tells where it is, few are asked.
ASK_EVERY, ASK_BLIND, ASK_AT_END = 5.0, 1.0, 0.3
NO_SIGN_AFTER = 60.0
SILENT_AFTER = 20.0
TOO_OFTEN = 3  # boots after the first one before anything is ready: a loop
SETTLE = 1.5  # seconds in which more lines about a trouble are awaited
STATUS_FILE = "/run/cloud-init/status.json"
LOG_FILE, LOG_END = "/var/log/cloud-init.log", 8192  # bytes of it that are looked at
ASK_PATIENCE = 3.0


def console_of(folder: Path, obj: Object) -> Console:
    """The console since the last start, read as far as it goes now."""
    rows = boot_marks.all(folder)
    row: dict[str, Any] = rows[-1] if rows else {}
    console = Console(final_message(obj.instance.cloudInit))
    for name, firmware in (("firmware", True), ("console", False)):
        read = 0
        for block in boot_marks.read(folder / f"{name}.log", row.get(name)):
            console.feed(block, firmware)
            read += len(block)
            if read > 8 << 20:
                break
    return console


def patience(facts: HostFacts) -> float:
    """Seconds that a machine is waited for by default, stretched by the accelerator's measured slowness, and as the user wants."""
    return DEFAULT_TIMEOUT * facts.patience


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched: the machine's logs in its folder, this host, its domain, and whether other commands know it."""

    folder: Path
    facts: HostFacts
    domain: Callable[[], Any | None]
    throwaway: bool = False
    qemu_log: Path | None = None  # what QEMU itself said
    kvm: bool = False


class Follower:
    """One wait for one machine."""

    def __init__(self, watch: Watch, obj: Object, emit: Emit, fresh: bool = True) -> None:
        """`fresh`: cloud-init was not yet seen to be done under this instance-id, so what it does once is still to come."""
        self.watch, self.obj, self.emit = watch, obj, emit
        folder = watch.folder
        rows = boot_marks.all(folder)
        row: dict[str, Any] = rows[-1] if rows else {}
        self.begin = row.get("time", time.time())
        self.console = Console(final_message(obj.instance.cloudInit))
        self.tails = {n: boot_marks.Tail(folder / f"{n}.log", row.get(n)) for n in ("firmware", "console")}
        self.agent: Agent | None = None
        self.connected = False
        self.cloud: cloudinit.CloudInit | None = None
        self.agent_blind = False
        self.busy = ""  # the command that cloud-init waited for when it was asked
        self.module = ""  # of cloud-init, by its log
        self._worked = (0.0, 0.0)  # when it gave the last sign, and the seconds that its processors had worked by then
        self.ending = whole.ending(obj.instance.cloudInit) if fresh else None
        self._done_since: float | None = None  # when cloud-init was done, before the guest goes down
        self._told = ""
        self._first = True  # nothing was waited for yet
        self._silence_told = False
        self._boots = 0  # of the guest's own, since this start

    @property
    def spent(self) -> float:
        """Seconds since the machine was started."""
        return max(0.0, time.time() - float(self.begin))

    def say(self, type: EventType, message: str, **fields: Any) -> None:
        self.emit(Event(type, message, self.obj.ref, self.obj.namespace, **fields))

    def run(self, timeout: float | None) -> Verdict:
        """Follow until ready, failed or timed out; `timeout` is literal, the default is stretched by the accelerator."""
        limit = timeout if timeout is not None else patience(self.watch.facts)
        if timeout is None and self.watch.facts.slowness > 1:
            self.say(EventType.PROGRESS, f"waiting at most {limit / 60:.0f} minutes (emulation is slower)")
        deadline = time.monotonic() + limit
        last_sign = time.monotonic()
        next_alive = next_ask = 0.0
        at_end = False
        trouble_since: float | None = None
        module = ""
        while True:
            now = time.monotonic()
            if self._read() or self.module != module:
                last_sign, self._silence_told, module = now, False, self.module
                self._worked = (now, self._cpu())
            if now >= next_alive:
                next_alive = now + ALIVE_EVERY
                state = self._state()
                if state is RunState.FAILED:
                    return self._broken()
                if state not in (RunState.RUNNING, RunState.PAUSED):
                    return self._gone()
            if now >= next_ask or self.console.finished is not at_end:
                at_end = self.console.finished
                self._ask()
                seen = self.connected and self.console.any_sign
                next_ask = now + (ASK_AT_END if at_end else ASK_EVERY if seen else ASK_BLIND)
            verdict = self._verdict()
            if verdict is None or not self._first:  # of one that is up already there is no stage to tell
                self._tell()
            if verdict:
                return verdict
            if self.console.again >= TOO_OFTEN:
                return self._loops()
            if self.console.trouble:
                trouble_since = trouble_since or now
                if now - trouble_since > SETTLE:
                    return self._failed(self.console.trouble)
            if now - last_sign > SILENT_AFTER and not self._silence_told and not at_end:
                self._silence_told = True
                self._silent()
            if (
                not self.console.any_sign
                and not self.connected
                and self.spent > NO_SIGN_AFTER * self.watch.facts.stretch
            ):
                what = f"Running, no readiness signal: no console output. Its screen: hikube-local vnc {self.obj.name}"
                return self._end(
                    Result.NO_SIGNAL,
                    what,
                    Trouble("HK909", what, (), f"hikube-local screenshot {self.obj.name} FILE.png"),
                )
            if now >= deadline:
                return self._timed_out(limit)
            self.say(EventType.PULSE, "")
            self._first = False
            time.sleep(POLL)

    def _read(self) -> bool:
        any_text = False
        for name, tail in self.tails.items():
            if block := tail.more():
                self.console.feed(block, name == "firmware")
                any_text = any_text or name == "console"
        if self.console.again != self._boots:
            # Another boot: what was known of the one before says nothing of it.
            self._boots = self.console.again
            self.cloud, self.connected, self.agent_blind, self.module = None, False, False, ""
        return any_text

    def _state(self) -> RunState:
        dom = self.watch.domain()
        if dom is None:
            return RunState.ABSENT
        if self.agent is None:
            self.agent = Agent(dom, self.watch.facts.effort)
            self._worked = (time.monotonic(), self._cpu())
        return libvirt.state(dom)[0]

    def _ask(self) -> None:
        """Where the agent's channel is connected, cloud-init's end is asked of it."""
        assert self.agent is not None
        if not self.connected:
            self.connected = self.agent.connected() and self.agent.call("guest-ping", timeout=3) is not None
        if self.connected and self.obj.instance.has_seed and not self.agent_blind:
            raw = self.agent.read(STATUS_FILE)
            if raw is None:
                self.agent_blind = self.console.finished
                return
            self.cloud = cloudinit.read(raw) or self.cloud
            if self.console.progress.stage.is_cloud_init:
                self.module = cloudinit.module(self.agent.read(LOG_FILE, LOG_END, end=True) or b"") or self.module

    def _cpu(self) -> float:
        """Seconds that the guest's processors have worked."""
        try:
            return self.agent.dom.info()[4] / 1e9 if self.agent else 0.0
        except libvirt.module().libvirtError:
            return 0.0

    def _busy(self) -> str:
        """What cloud-init waits for, asked of a guest whose agent runs commands; empty where that is not known."""
        if self.agent is None or not self.connected or not self.console.progress.stage.is_cloud_init:
            return ""
        with contextlib.suppress(HikubeError):
            code, out, _ = self.agent.run("ps -eo pid,ppid,etimes,args", ASK_PATIENCE)
            return cloudinit.busy_with(out.decode("utf-8", "replace")) if code == 0 else ""
        return ""

    def _silent(self) -> None:
        """Nothing has come for a while: where the guest is, and what it does."""
        self.busy = self._busy()
        then, worked = self._worked
        share = (self._cpu() - worked) / max(1.0, time.monotonic() - then)
        does = f"it runs {self.busy}" if self.busy else "its CPU is busy" if share > 0.3 else "its CPU is idle"
        if not self.busy and share <= 0.3 and (load := os.getloadavg()[0]) > 1.5 * self.watch.facts.cpus:
            does = f"this host is busy (load {load:.0f} on {self.watch.facts.cpus} processors)"
        what = f"no console output for {SILENT_AFTER:.0f} s in {self._words()}; {does}"
        if not self.watch.throwaway:  # no other command knows a machine of `test`
            what += f"; hikube-local screenshot {self.obj.name} FILE.png shows the screen"
        self.say(EventType.WARNING, what, code="HK908")

    def _words(self) -> str:
        p = self.console.progress
        detail = self.module if self.module and p.stage.is_cloud_init else p.detail
        return WORDS[p.stage] + (f": {detail}" if detail else "")

    def _tell(self) -> None:
        words = self._words()
        if words == self._told or self.console.progress.stage is Stage.DONE:
            return
        new_stage = words.split(":")[0] != self._told.split(":")[0]
        self._told = words
        kind = EventType.STAGE if new_stage else EventType.PROGRESS
        self.say(kind, f"{words} ({self.spent:.0f} s)", stage=str(self.console.progress.stage))

    def _verdict(self) -> Verdict | None:
        if not self.obj.instance.has_seed:
            if self.console.login or self.connected:
                return self._ready("")
            return None
        if self.cloud and self.cloud.done:
            self._read()  # the last lines before a guest goes down, or the first ones of its next boot
            if self.cloud is None or self._goes_down():
                return None
            if self.cloud.ok:
                return self._ready("cloud-init is done", cloud_init=True)
            return self._cloud_failed(self.cloud)
        if self.console.finished and (not self.connected or self.agent_blind):
            # Without an agent the console is all there is; with one, its answer is on its way.
            if self._goes_down():
                return None
            if self.console.failures:
                return self._cloud_failed(cloudinit.CloudInit(True, False, "", ()))
            return self._ready("cloud-init is done (said on the console)", cloud_init=True)
        if self.console.login and self._without_cloud_init():
            return self._ready("login prompt, no sign of cloud-init")
        return None

    def _goes_down(self) -> bool:
        """Whether the guest is about to reboot or to go off at the end of its cloud-init: it is ready when it is back."""
        if self.ending is None or self.console.again:
            return False
        if self._done_since is None:
            self._done_since = time.monotonic()
            what = f"cloud-init is done; waiting for the {self.ending.how} that {self.ending.why} asks for"
            self.say(EventType.PROGRESS, what)
        return time.monotonic() - self._done_since < self.ending.patience * self.watch.facts.effort

    def _ending_words(self) -> str:
        """What became of the end that the user-data asked for."""
        if self.ending is None or self._done_since is None:
            return ""
        if not self.console.again:
            return f"; no {self.ending.how} came, though {self.ending.why} asks for one"
        back = "rebooted" if self.ending.how == "reboot" else "powered itself off and was started again"
        return f"; the guest {back} at the end of cloud-init ({self.ending.why})"

    def _ready(self, why: str, cloud_init: bool | None = None) -> Verdict:
        """One that was up before anybody waited came up at a time that is not known."""
        words = "ready" if self._first else f"ready after {self.spent:.0f} s"
        words = (f"{words}: {why}" if why else words) + self._ending_words()
        end = self._end(Result.READY, words, cloud_init=cloud_init)
        return replace(end, fresh=not self._first)

    def _without_cloud_init(self) -> bool:
        """A login prompt long ago and still no word of cloud-init: the image has none."""
        if self.console.progress.stage.order >= Stage.CLOUD_INIT_LOCAL.order:
            return False
        self._login_at = getattr(self, "_login_at", time.monotonic())
        return time.monotonic() - self._login_at > 15 * self.watch.facts.effort

    def _cloud_failed(self, result: cloudinit.CloudInit) -> Verdict:
        trouble = cloudinit.trouble(result, self.console.failures)
        return self._end(Result.CLOUD_INIT_FAILED, trouble.message, trouble, cloud_init=False)

    def _failed(self, trouble: Trouble) -> Verdict:
        return self._end(Result.FAILED, f"{trouble.message} (after {self.spent:.0f} s)", trouble)

    def _gone(self) -> Verdict:
        self._read()
        if self.console.trouble:
            return self._failed(self.console.trouble)
        if self.ending is not None and self._done_since is not None and self.ending.how != "reboot":
            what = f"cloud-init is done, and the guest powered itself off, as {self.ending.why} says"
            return self._end(Result.READY, what, cloud_init=True)
        dom = self.watch.domain()
        state, clean = libvirt.state(dom) if dom else (RunState.ABSENT, False)
        what = (
            "the guest powered itself off"
            if clean
            else "the machine stopped"
            if state is not RunState.CRASHED
            else "QEMU exited"
        )
        trouble = Trouble(
            "HK910", f"{what} in {self._words()}", tuple(self.console.lines)[-8:], f"hikube-local logs {self.obj.name}"
        )
        return self._end(Result.GONE, trouble.message, trouble)

    def _broken(self) -> Verdict:
        """QEMU stopped the machine for an error of its own, which its log tells."""
        self._read()
        said = stopped.text(self.watch.qemu_log)
        what = f"QEMU stopped the machine in {self._words()}: {qemu.words(said)}"
        remedy = qemu.remedy(said, self.obj.name, self.watch.kvm)
        return self._failed(Trouble("HK913", what, qemu.evidence(said), remedy))

    def _loops(self) -> Verdict:
        what = f"the guest started to boot {self.console.again + 1} times and never became ready"
        remedy = (
            "under runStrategy Always a guest that powers itself off is started again, as on Hikube: look for "
            f"poweroff, power_state or a reboot in its user-data; hikube-local logs {self.obj.name}"
        )
        return self._failed(Trouble("HK912", what, tuple(self.console.lines)[-10:], remedy))

    def _timed_out(self, limit: float) -> Verdict:
        remedy = f"hikube-local logs {self.obj.name}; hikube-local console {self.obj.name}; a longer --timeout"
        busy = self._busy() or self.busy
        message = f"timed out after {limit:.0f} s in {self._words()}" + (f", which runs {busy}" if busy else "")
        lines = [re.sub(r"\s+$", "", line) for line in self.console.lines]
        return self._end(Result.TIMEOUT, message, Trouble("HK907", message, tuple(lines[-10:]), remedy))

    def _end(
        self, result: Result, message: str, trouble: Trouble | None = None, cloud_init: bool | None = None
    ) -> Verdict:
        return Verdict(result, self.console.progress.stage, message, trouble, cloud_init, self.spent)
