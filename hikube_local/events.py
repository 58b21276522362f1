"""What happens, as values: the terminal, JSON lines and the store all read the same events."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import field
from enum import StrEnum
from typing import Any

from hikube_local.records import dataclass


class EventType(StrEnum):
    """What an event is about; `result` is the last line of `up -o json`."""

    STEP = "step"
    PROGRESS = "progress"
    STAGE = "stage"
    WARNING = "warning"
    DIFFERENCE = "difference"
    HINT = "hint"
    WAITING = "waiting"
    READY = "ready"
    FAILED = "failed"
    DONE = "done"  # the steps of one object are carried out; a machine may still be booting
    UNCHANGED = "unchanged"
    RESULT = "result"
    PULSE = "pulse"  # nothing happened: whoever waits long gives this sign, at which an interrupt ends it; never told


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, to which object, when (Unix seconds)."""

    type: EventType
    message: str = ""
    object: str = ""
    namespace: str = ""
    stage: str = ""
    code: str = ""
    time: float = field(default_factory=time.time)
    data: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The event as one line of `up -o json` holds it: empty fields are left out."""
        from hikube_local.text import timestamp

        out: dict[str, Any] = {"type": str(self.type), "time": timestamp(self.time)}
        for key in ("object", "namespace", "stage", "code", "message"):
            if value := getattr(self, key):
                out[key] = value
        return out | self.data


Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A listener that is not interested."""
