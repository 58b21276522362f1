"""A tenant's console, read while a boot is waited for: its stages, its end, a seat that somebody else takes."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from hikube_local.backends.remote.recorder import KEPT, Recorder, Seat
from hikube_local.engine.following import Boot
from hikube_local.errors import HikubeError
from hikube_local.kubeclient.client import Refused
from hikube_local.readiness.stages import Result, Stage
from tests.growth import patience

KERNEL = b"[    0.000000] Linux version 6.1.0\r\n"
RUNNING = b"Cloud-init v. 22.4.2 running 'modules:final' at Mon, 30 Nov 2026\r\n"
DONE = b"Cloud-init v. 22.4.2 finished at Mon, 30 Nov 2026. Datasource DataSourceNoCloud\r\n"
PANIC = b"[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n"


class Stream:
    """What a server sends, block by block; an empty one ends it."""

    def __init__(self, *blocks: bytes) -> None:
        self.blocks: queue.Queue[bytes] = queue.Queue()
        self.closed = False
        for block in blocks:
            self.blocks.put(block)

    def receive(self) -> bytes:
        return self.blocks.get()

    def close(self) -> None:
        self.closed = True
        self.blocks.put(b"")


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator:
    made: list[Recorder] = []

    def start(connect) -> Recorder:
        made.append(Recorder(connect, "#cloud-config\n{}", tmp_path / "default" / "web.log"))
        return made[-1]

    yield start
    for recorder in made:
        recorder.close()


def until(holds) -> None:
    deadline = time.monotonic() + patience(20)
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def boot(recorder: Recorder, seed: bool = True) -> Boot:
    return Boot(recorder, SimpleNamespace(instance=SimpleNamespace(has_seed=seed)))


def test_a_boot_is_followed_to_the_end_of_cloud_init(recorded, tmp_path: Path):
    stream = Stream(KERNEL)
    recorder = recorded(lambda: stream)
    until(lambda: recorder.console.any_sign)
    now = boot(recorder)
    assert recorder.seat is Seat.OURS and now.verdict(1.0, 5.0) is None
    assert recorder.console.progress.stage is Stage.KERNEL
    stream.blocks.put(RUNNING)
    until(lambda: recorder.console.progress.stage is Stage.CLOUD_FINAL)
    assert now.verdict(999.0, 6.0) is None  # it has said something: it is waited for, however long it takes
    stream.blocks.put(DONE)
    until(lambda: recorder.console.finished)
    end = now.verdict(1000.0, 42.0)
    assert end.result is Result.READY and end.cloud_init and "ready after 42 s: cloud-init is done" in end.message
    kept = tmp_path / "default" / "web.log"
    assert kept.read_bytes() == KERNEL + RUNNING + DONE and kept.stat().st_mode & 0o777 == 0o600
    recorder.close()
    assert stream.closed


def test_what_the_console_tells_is_the_cause(recorded):
    recorder = recorded(lambda: Stream(KERNEL, PANIC))
    until(lambda: recorder.console.trouble)
    end = boot(recorder).verdict(1.0, 3.0)
    assert end.result is Result.FAILED and end.trouble.lines and end.trouble.remedy

    failing = b"2026-11-30 - util.py[WARNING]: Failed running /var/lib/cloud/instance/scripts/runcmd [1]\r\n"
    recorder = recorded(lambda: Stream(KERNEL, failing, DONE))
    until(lambda: recorder.console.finished)
    end = boot(recorder).verdict(1.0, 3.0)
    assert end.result is Result.CLOUD_INIT_FAILED and end.cloud_init is False and "Failed running" in str(end.trouble)


def test_the_seat_is_given_up_to_whoever_takes_it(recorded):
    connected = []

    def connect() -> Stream:
        connected.append(1)
        return Stream(KERNEL, b"")

    recorder = recorded(connect)
    until(lambda: recorder.seat is Seat.LOST)
    end = boot(recorder).verdict(1.0, 3.0)
    assert end.result is Result.READY and "somebody else has its console" in end.message
    time.sleep(0.1)
    assert len(connected) == 1  # and is not taken back


def test_who_may_not_read_it_waits_for_the_platforms_word(recorded):
    def connect() -> Stream:
        raise Refused("HK822", "forbidden", status=403)

    recorder = recorded(connect)
    until(lambda: recorder.seat is Seat.REFUSED)
    assert "may not read its console" in boot(recorder).verdict(1.0, 3.0).message


def test_it_is_asked_for_until_the_machine_is_there(recorded, monkeypatch: pytest.MonkeyPatch):
    from hikube_local.backends.remote import recorder as module

    monkeypatch.setattr(module, "AGAIN", 0.01)
    answers = iter(
        [Refused("HK822", "no such machine", status=404), HikubeError("HK821", "not reached"), OSError("cut")]
    )

    def connect() -> Stream:
        if (error := next(answers, None)) is not None:
            raise error
        return Stream(KERNEL)

    recorder = recorded(connect)
    until(lambda: recorder.console.any_sign)
    assert recorder.seat is Seat.OURS


def test_a_console_that_says_nothing_is_not_waited_for(recorded):
    recorder = recorded(lambda: Stream())
    until(lambda: recorder.seat is Seat.OURS)
    now = boot(recorder)
    assert now.verdict(10.0, 1.0) is None and now.verdict(10.0 + Boot.SILENCE, 2.0) is None
    assert "its console says nothing" in now.verdict(10.5 + Boot.SILENCE, 3.0).message


def test_a_machine_without_seed_is_ready_at_its_login_prompt(recorded):
    recorder = recorded(lambda: Stream(KERNEL, b"\r\nweb login: "))
    until(lambda: recorder.console.login)
    assert boot(recorder, seed=False).verdict(1.0, 3.0).result is Result.READY


def test_what_is_kept_of_a_flood_is_bounded(recorded, tmp_path: Path):
    flood = b"x" * 70 + b"\x1b]0;title\x07\r\n"
    recorder = recorded(lambda: Stream(*[flood * 20_000] * 4, b""))
    until(lambda: recorder.seat is Seat.LOST)
    assert (tmp_path / "default" / "web.log").stat().st_size == KEPT
    assert all("\x1b" not in line for line in boot(recorder).lines)
