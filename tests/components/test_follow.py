"""Following a guest whose console is a file and whose agent answers from a list: no reboot is overlooked (C15)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from hikube_local.api.objects import Object
from hikube_local.backends.qemu.machine import follow
from hikube_local.manifests.validate import Known, validate
from hikube_local.plan.steps import RunState
from hikube_local.readiness.stages import Result, Verdict
from tests.conftest import instance

BOOT = b"Linux version 6.1\n[  OK  ] Reached target network.target - Network.\nCloud-init v. 22.4.2 running 'init-local' at x\n"
DONE = b"Cloud-init v. 22.4.2 running 'modules:final' at x\nCloud-init v. 22.4.2 finished at x. Up 20 seconds\n"
GOING = b"[  OK  ] Reached target reboot.target - System Reboot.\nGNU GRUB  version 2.06\n"


def status(done: bool, error: str = "") -> bytes:
    v1: dict[str, object] = {"stage": None if done else "modules-final"}
    for name in ("init-local", "init", "modules-config", "modules-final"):
        v1[name] = {"start": 1.0, "finished": 2.0 if done else None, "errors": [error] if error else []}
    return json.dumps({"v1": v1}).encode()


class Guest:
    """What it says and answers, one step with each look at it."""

    def __init__(self, folder: Path, steps: list[tuple[bytes, bytes | None]]) -> None:
        self.log, self.steps, self.at = folder / "console.log", steps, 0
        self.answer: bytes | None = None
        self.gone_after_answer = False  # it restarts right after it said for the first time that it is done
        self.log.write_bytes(b"")
        (folder / "firmware.log").write_bytes(b"")
        self.next()

    def next(self, _: float = 0.0) -> None:
        if self.at < len(self.steps):
            text, self.answer = self.steps[self.at]
            with open(self.log, "ab") as f:
                f.write(text)
        self.at += 1
        assert self.at < len(self.steps) + 20, "nothing was decided"

    # What the follower asks of an agent.
    dom = SimpleNamespace(info=lambda: [0, 0, 0, 0, 0])

    def connected(self) -> bool:
        return self.answer is not None

    def call(self, *_: object, **__: object) -> object:
        return {} if self.answer is not None else None

    def read(self, path: str, *_: object, **__: object) -> bytes | None:
        if path != follow.STATUS_FILE:
            return b""
        answer = self.answer
        if self.gone_after_answer and answer == status(True):
            self.gone_after_answer, self.answer = False, None
            with open(self.log, "ab") as f:
                f.write(GOING)
        return answer


def followed(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    cloud_init: str,
    steps: list[tuple[bytes, bytes | None]],
    gone: bool = False,
    fresh: bool = True,
) -> tuple[Verdict, Guest, list[str]]:
    text = instance(disks=["sys"], cloudInit=f"#cloud-config\n{cloud_init}\n")
    (folder / "m.yaml").write_text(text)
    obj: Object = validate([str(folder / "m.yaml")], None, "default", Known.nothing()).objects[-1].object
    guest = Guest(folder, steps)
    guest.gone_after_answer = gone
    facts = SimpleNamespace(effort=0.01, slowness=1.0, stretch=1.0, cpus=2)
    watch = follow.Watch(folder, facts, lambda: guest, throwaway=True)  # type: ignore[arg-type]
    monkeypatch.setattr(follow, "Agent", lambda dom, effort: guest)
    monkeypatch.setattr(follow.libvirt, "state", lambda dom: (RunState.RUNNING, 0))
    monkeypatch.setattr(follow.time, "sleep", guest.next)
    for name in ("ASK_EVERY", "ASK_BLIND", "ASK_AT_END", "ALIVE_EVERY"):
        monkeypatch.setattr(follow, name, 0.0)
    told: list[str] = []
    verdict = follow.Follower(watch, obj, lambda e: told.append(e.message), fresh).run(60.0)
    return verdict, guest, told


REBOOT = "power_state: {mode: reboot}"


def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end is awaited for long (facts.effort makes it short otherwise)."""
    monkeypatch.setattr(follow.whole, "SOON", 60_000.0)


@pytest.mark.parametrize("agent", [True, False])
def test_a_reboot_at_the_end_of_cloud_init_is_waited_for(monkeypatch, tmp_path, agent):
    def answer(done: bool) -> bytes | None:
        return status(done) if agent else None

    patient(monkeypatch)
    steps = [(BOOT, answer(False)), (DONE, answer(True)), (b"", answer(True)), (GOING, None)]
    steps += [(b"", None), (BOOT, None), (b"", answer(False)), (DONE, answer(True))]
    verdict, guest, told = followed(monkeypatch, tmp_path, REBOOT, steps)
    assert verdict.result is Result.READY and "rebooted at the end of cloud-init (power_state)" in verdict.message
    assert guest.at >= len(steps), f"ready in step {guest.at} of {len(steps)}, before the second boot was done"
    assert any("waiting for the reboot that power_state asks for" in t for t in told)


def test_what_the_boot_before_answered_says_nothing_of_the_next(monkeypatch, tmp_path):
    """The guest restarts between the answer of its agent and the next look at its console."""
    patient(monkeypatch)
    steps = [(BOOT, status(False)), (DONE, status(True)), (b"", None), (BOOT, None), (DONE, status(True))]
    verdict, guest, _ = followed(monkeypatch, tmp_path, REBOOT, steps, gone=True)
    assert verdict.result is Result.READY and guest.at >= len(steps)


def test_a_second_boot_that_fails_is_no_success(monkeypatch, tmp_path):
    patient(monkeypatch)
    steps = [(BOOT, status(False)), (DONE, status(True)), (GOING, None), (BOOT, None), (DONE, status(True, "it broke"))]
    verdict, _, _ = followed(monkeypatch, tmp_path, REBOOT, steps)
    assert verdict.result is Result.CLOUD_INIT_FAILED


def test_a_reboot_that_does_not_come_is_told(monkeypatch, tmp_path):
    steps = [(BOOT, status(False)), (DONE, status(True))]
    verdict, _, _ = followed(monkeypatch, tmp_path, REBOOT, [*steps, *[(b"", status(True))] * 400_000])
    assert verdict.result is Result.READY and "no reboot came, though power_state asks for one" in verdict.message


def test_without_an_end_nothing_is_waited_for(monkeypatch, tmp_path):
    steps = [(BOOT, status(False)), (DONE, status(True)), (b"", status(True))]
    verdict, guest, _ = followed(monkeypatch, tmp_path, "packages: []", steps)
    assert verdict.result is Result.READY and guest.at == 2


def test_a_later_start_waits_for_no_end_that_comes_once(monkeypatch, tmp_path):
    """power_state and runcmd are of the first boot of an instance-id; `restart` has cloud-init do neither again."""
    patient(monkeypatch)
    steps = [(BOOT, status(False)), (DONE, status(True)), (b"", status(True))]
    verdict, guest, _ = followed(monkeypatch, tmp_path, REBOOT, steps, fresh=False)
    assert verdict.result is Result.READY and guest.at == 2 and "reboot" not in verdict.message
