"""What a guest is told after a way back to a checkpoint, with an agent that does what the test says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hikube_local.api.objects import Object, VMInstanceSpec
from hikube_local.backends.qemu.machine import refresh
from hikube_local.events import Event

OBJ = Object(kind="VMInstance", namespace="default", name="web", spec=VMInstanceSpec())


@pytest.mark.parametrize(
    ("back_after", "had_agent", "waited", "set_"),
    [(0.0, True, 0.0, True), (3.0, True, 3.0, True), (3.0, False, 0.0, False), (1e9, True, 10.0, False)],
)
def test_the_agent_of_a_guest_that_was_resumed_is_waited_for(monkeypatch, back_after, had_agent, waited, set_):
    """Its channel is another one, and on a busy host it takes a while: until then neither clock nor seed can be set. A guest
    that had no agent is not waited for, and one whose agent does not come back not for ever."""
    clock, ran = [0.0], []

    class Agent:
        def __init__(self, dom: Any, slowness: float = 1.0) -> None:
            pass

        def connected(self) -> bool:
            return clock[0] >= back_after

        may_run = connected

        def run(self, line: str, timeout: float, input: bytes = b"") -> tuple[int, bytes, bytes]:
            assert self.connected()
            ran.append(line)
            return 0, b"", b""

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(refresh, "Agent", Agent)
    monkeypatch.setattr(refresh, "look", lambda *a, **k: None)
    monkeypatch.setattr(refresh, "_by_agent", lambda agent: "" if agent.connected() else "not connected")
    monkeypatch.setattr(refresh, "time", SimpleNamespace(time=lambda: 0.0, monotonic=lambda: clock[0], sleep=sleep))
    context: Any = SimpleNamespace(running=lambda obj: None, facts=SimpleNamespace(patience=1.0, effort=1.0))
    told: list[Event] = []
    refresh.woken(context, OBJ, 60.0, had_agent, told.append)
    assert clock[0] == pytest.approx(waited, abs=0.2)
    assert any("date -u -s" in line for line in ran) == set_
    assert bool([e for e in told if "could not be set" in e.message]) != set_
