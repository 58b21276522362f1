"""The follower with a clock, a console and a domain of the test's: no guest, and no second is waited."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from hikube_local.api.objects import Object, VMInstanceSpec
from hikube_local.backends.qemu.machine import follow
from hikube_local.events import Event
from hikube_local.host.facts import HostFacts
from hikube_local.plan.steps import RunState
from hikube_local.readiness.stages import Result, Stage, Verdict

KERNEL = b"Linux version 6.1\n[  OK  ] Reached target network.target - Network.\n"
FACTS = HostFacts(cpus=2, memory=4 << 30, available=4 << 30, kvm=True, why="", slowness=1.0, stretch=1.0)


class Guest:
    """A domain whose console says `script` ({second: bytes}), and that is in `states` ({second: state, cleanly})."""

    def __init__(self, folder: Path, script: dict[float, bytes], states: dict[float, tuple[RunState, bool]]) -> None:
        self.now, self.script, self.states = 0.0, dict(script), states
        self.console = folder / "console.log"
        self.console.write_bytes(b"")
        (folder / "firmware.log").write_bytes(b"")
        self.cpu = 1.0  # the share of the time that its processor works
        self.sleep(0.0)

    # the clock

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.1)
        for at in [at for at in self.script if at <= self.now]:
            with open(self.console, "ab") as f:
                f.write(self.script.pop(at))
        assert self.now < 3600, "nothing was decided"

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    # the domain

    def state(self, _: object) -> tuple[RunState, bool]:
        found = RunState.RUNNING, False
        for at, state in sorted(self.states.items()):
            found = state if at <= self.now else found
        return found

    def info(self) -> list[float]:
        return [0, 0, 0, 0, self.now * self.cpu * 1e9]


class Silent:
    """An agent that is not there."""

    def __init__(self, dom: Guest, effort: float) -> None:
        self.dom = dom

    def connected(self) -> bool:
        return False


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run(
        script: dict[float, bytes],
        states: dict[float, tuple[RunState, bool]] | None = None,
        timeout: float | None = None,
        cpu: float = 1.0,
        load: float = 0.0,
        cloud_init: str = "",
        throwaway: bool = False,
    ) -> tuple[Verdict, list[Event]]:
        guest = Guest(tmp_path, script, states or {})
        guest.cpu = cpu
        monkeypatch.setattr(
            follow, "time", SimpleNamespace(time=guest.time, monotonic=guest.monotonic, sleep=guest.sleep)
        )
        monkeypatch.setattr(follow, "Agent", Silent)
        fake = SimpleNamespace(state=guest.state, module=lambda: SimpleNamespace(libvirtError=OSError))
        monkeypatch.setattr(follow, "libvirt", fake)
        monkeypatch.setattr(follow.os, "getloadavg", lambda: (load, load, load))
        spec = VMInstanceSpec(cloudInit=cloud_init)
        obj = Object(kind="VMInstance", namespace="default", name="web", spec=spec)
        told: list[Event] = []
        watch = follow.Watch(tmp_path, FACTS, lambda: guest, throwaway)
        return follow.Follower(watch, obj, told.append).run(timeout), told

    return run


def test_a_login_prompt_is_ready_where_there_is_no_cloud_init(watched):
    verdict, told = watched({1: KERNEL, 4: b"web login: "})
    assert verdict.result is Result.READY and verdict.message == "ready after 4 s"
    assert [e.stage for e in told if e.type == "stage"][-1] in (str(Stage.NETWORK), str(Stage.INIT))


def test_of_a_machine_that_is_up_already_no_stage_is_told(watched):
    verdict, told = watched({0: KERNEL + b"web login: "})
    assert verdict.message == "ready" and not verdict.fresh
    assert [e for e in told if e.type in ("stage", "progress") and e.stage] == []


def test_a_login_prompt_without_a_sign_of_cloud_init_is_ready_after_a_while(watched):
    verdict, _ = watched({1: KERNEL, 4: b"web login: "}, cloud_init="#cloud-config\n{}\n")
    assert verdict.result is Result.READY and "no sign of cloud-init" in verdict.message and verdict.seconds > 15


def test_a_console_without_a_word_is_told_and_not_waited_for_for_ever(watched):
    verdict, _ = watched({})
    assert verdict.result is Result.NO_SIGNAL and verdict.trouble and verdict.trouble.code == "HK909"
    assert follow.NO_SIGN_AFTER < verdict.seconds < follow.NO_SIGN_AFTER + 2


@pytest.mark.parametrize(
    ("cpu", "load", "words"),
    [
        (1.0, 0.0, "its CPU is busy"),
        (0.0, 0.0, "its CPU is idle"),
        (0.0, 9.0, "this host is busy (load 9 on 2 processors)"),
    ],
)
def test_silence_is_told_once_with_what_the_guest_does(watched, cpu, load, words):
    verdict, told = watched({1: KERNEL, 60: b"web login: "}, cpu=cpu, load=load)
    said = [e.message for e in told if e.code == "HK908"]
    assert verdict.result is Result.READY and len(said) == 1
    assert "no console output for 20 s" in said[0] and words in said[0] and "screenshot web" in said[0]


def test_silence_of_a_throw_away_names_no_command_that_does_not_know_it(watched):
    _, told = watched({1: KERNEL, 60: b"web login: "}, throwaway=True)
    assert not any("screenshot" in e.message for e in told)


def test_a_time_that_was_named_is_literal_and_its_end_tells_where_the_guest_is(watched):
    verdict, _ = watched({1: KERNEL, 3: b"starting something\n"}, timeout=30.0)
    assert verdict.result is Result.TIMEOUT and 30 <= verdict.seconds < 32
    assert verdict.trouble and verdict.trouble.code == "HK907" and "starting something" in verdict.trouble.lines
    assert "timed out after 30 s" in verdict.message


def test_a_panic_is_told_with_the_lines_that_follow_it(watched):
    verdict, _ = watched({1: KERNEL, 3: b"Kernel panic - not syncing: VFS\n", 4: b"CPU: 0 PID: 1\n"})
    assert verdict.result is Result.FAILED and verdict.trouble and verdict.trouble.code == "HK903"
    assert 3 + follow.SETTLE - 0.2 < verdict.seconds < 7


@pytest.mark.parametrize(
    ("state", "clean", "words"),
    [
        (RunState.SHUTOFF, True, "the guest powered itself off"),
        (RunState.SHUTOFF, False, "the machine stopped"),
        (RunState.CRASHED, False, "QEMU exited"),
    ],
)
def test_a_machine_that_is_gone_says_how_it_went(watched, state, clean, words):
    verdict, _ = watched({1: KERNEL}, {5.0: (state, clean)})
    assert verdict.result is Result.GONE and verdict.message.startswith(words)
    assert verdict.trouble and verdict.trouble.code == "HK910" and verdict.seconds < 7


def test_a_paused_guest_is_no_guest_that_is_gone(watched):
    verdict, _ = watched(
        {1: KERNEL, 40: b"web login: "}, {5.0: (RunState.PAUSED, False), 30.0: (RunState.RUNNING, False)}
    )
    assert verdict.result is Result.READY


def test_a_guest_that_boots_again_and_again_is_a_loop(watched):
    boots = {float(10 * n): b"SeaBIOS (version 1.16)\nGNU GRUB  version 2.06\n" + KERNEL for n in range(1, 9)}
    verdict, _ = watched(boots)
    assert verdict.result is Result.FAILED and verdict.trouble and verdict.trouble.code == "HK912"


def test_a_machine_that_qemu_stopped_is_told_at_once_with_its_line(watched, tmp_path, monkeypatch):
    log = tmp_path / "qemu.log"
    log.write_text(
        "KVM: old trouble\n2026-01-01: starting up libvirt version: 11\nKVM: entry failed, hardware error 0x0\n"
    )
    monkeypatch.setattr(follow, "Watch", partial(follow.Watch, qemu_log=log, kvm=True))
    verdict, _ = watched({1: KERNEL}, {3.0: (RunState.FAILED, False)})
    assert verdict.result is Result.FAILED and verdict.seconds < 6
    assert verdict.trouble and verdict.trouble.code == "HK913"
    assert "KVM: entry failed, hardware error 0x0" in verdict.message
    assert "--accelerator tcg" in verdict.trouble.remedy
