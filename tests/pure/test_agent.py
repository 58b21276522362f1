"""Commands through the guest agent: what becomes of an answer that is late, wrong or too long."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import pytest

from hikube_local.backends.qemu.agent import MOST, Agent
from hikube_local.errors import HikubeError
from hikube_local.lab.guest import read


class Answers(Agent):
    """An agent whose guest-exec-status gives these answers, one after the other; the last one again and again."""

    def __init__(self, *states: Any, alive: bool = True) -> None:
        super().__init__(None)
        self.states = itertools.chain(states, itertools.repeat(states[-1]))
        self.alive = alive

    def call(self, command: str, timeout: int = 5, **arguments: Any) -> Any | None:
        if command == "guest-ping":
            return {} if self.alive else None
        return {"pid": 7} if command == "guest-exec" else next(self.states)


def packed(text: bytes) -> str:
    return base64.b64encode(text).decode()


def test_a_command_is_waited_for_until_it_ends():
    agent = Answers(
        {"exited": False}, None, {"exited": False}, {"exited": True, "exitcode": 3, "out-data": packed(b"x")}
    )
    assert agent.run("true") == (3, b"x", b"")


def test_a_command_that_a_signal_ended_has_a_shells_code():
    assert Answers({"exited": True, "signal": 9}).run("true") == (137, b"", b"")


def test_an_answer_that_was_lost_is_told_at_once_and_not_at_the_time_out():
    with pytest.raises(HikubeError, match="was lost") as caught:
        Answers({"exited": False}, None).run("cat /var/log/huge", timeout=3600)
    assert "2.9 MB" in caught.value.fix


def test_a_guest_that_is_busy_is_waited_for():
    """It answers nothing, not even a ping: that is no lost answer."""
    with pytest.raises(HikubeError, match="did not end within"):
        Answers(None, alive=False).run("true", timeout=0.2)


@pytest.mark.parametrize("state", [7, [], "x", {"exited": True, "exitcode": "0", "out-data": 5, "err-data": "\x00"}])
def test_an_answer_that_makes_no_sense_is_data(state: Any):
    agent = Answers(state, {"exited": True, "exitcode": 0})
    assert agent.run("true", timeout=2)[0] in (0, 255)


def test_files_come_in_one_question_and_end_where_they_end():
    asked = []

    class Guest:
        def run(self, command: str, timeout: float = 60.0) -> tuple[int, bytes, bytes]:
            asked.append(command)
            mark = command.rpartition(" ")[2]
            return 0, f"one, no newline{mark}\n{mark}\nthree\n{mark}\n".encode(), b""

    assert read(Guest(), "/a", "/not there", "/c") == [b"one, no newline", b"", b"three\n"]
    assert len(asked) == 1 and "'/not there'" in asked[0]


def test_files_of_a_guest_that_says_nothing_are_empty():
    class Guest:
        def run(self, command: str, timeout: float = 60.0) -> tuple[int, bytes, bytes]:
            return 127, b"", b""

    assert read(Guest(), "/a", "/b") == [b"", b""]


def test_what_is_asked_for_fits_into_an_answer():
    """libvirt hands over 4 MiB of text: base64 of the output, and a little JSON."""
    assert MOST * 4 // 3 + 4096 < 4 << 20


class Busy(Agent):
    """An agent that needs so many seconds for an answer."""

    def __init__(self, seconds: float, slowness: float) -> None:
        super().__init__(None, slowness)
        self.seconds = seconds

    def connected(self) -> bool:
        return True

    def call(self, command: str, timeout: int = 5, **arguments: Any) -> Any | None:
        if timeout < self.seconds:
            return None
        return {"supported_commands": [{"name": "guest-exec", "enabled": True}]}


def test_whether_there_is_an_agent_does_not_hang_on_how_fast_the_host_is():
    """A guest that was just resumed, on a busy host: not at once is not never."""
    assert Busy(12, 3.0).may_run() and not Busy(12, 1.0).may_run()
    with pytest.raises(HikubeError, match="did not answer within 15 s"):
        Busy(60, 3.0).run("true")
