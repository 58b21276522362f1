"""Where a guest is on its way up, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any

from hikube_local.records import dataclass


class Stage(StrEnum):
    """The stages of a boot, in their order."""

    FIRMWARE = "firmware"
    BOOTLOADER = "bootloader"
    KERNEL = "kernel"
    INIT = "init"
    NETWORK = "network"
    CLOUD_INIT_LOCAL = "cloud-init-local"
    CLOUD_INIT = "cloud-init"
    CLOUD_CONFIG = "cloud-config"
    CLOUD_FINAL = "cloud-final"
    DONE = "done"

    @property
    def order(self) -> int:
        return list(Stage).index(self)

    @property
    def is_cloud_init(self) -> bool:
        return Stage.CLOUD_INIT_LOCAL.order <= self.order < Stage.DONE.order


WORDS = {
    Stage.FIRMWARE: "firmware",
    Stage.BOOTLOADER: "boot loader",
    Stage.KERNEL: "kernel",
    Stage.INIT: "init",
    Stage.NETWORK: "network",
    Stage.CLOUD_INIT_LOCAL: "cloud-init (local)",
    Stage.CLOUD_INIT: "cloud-init (network)",
    Stage.CLOUD_CONFIG: "cloud-init (config)",
    Stage.CLOUD_FINAL: "cloud-init (final)",
    Stage.DONE: "done",
}


class Result(StrEnum):
    """How the waiting for a machine ended."""

    READY = "ready"
    NO_SIGNAL = "no-signal"
    FAILED = "failed"
    CLOUD_INIT_FAILED = "cloud-init-failed"
    TIMEOUT = "timeout"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the guest is: the stage, what it does there (a unit, a cloud-init module)."""

    stage: Stage
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that was recognised in the guest: code (codes.py), sentence, the lines that show it, what to do."""

    code: str
    message: str
    lines: tuple[str, ...] = ()
    remedy: str = ""

    def as_json(self) -> dict[str, object]:
        """As `status.cause` has it: what is empty is left out."""
        row = {"code": self.code, "message": self.message, "evidence": list(self.lines), "remedy": self.remedy}
        return {name: value for name, value in row.items() if value}

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Trouble:
        """What `as_json` wrote."""
        lines = tuple(map(str, row.get("evidence", ())))
        return cls(str(row.get("code", "")), str(row.get("message", "")), lines, str(row.get("remedy", "")))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of the waiting."""

    result: Result
    stage: Stage
    message: str = ""
    trouble: Trouble | None = None
    cloud_init: bool | None = None
    seconds: float = 0.0
    lines: tuple[str, ...] = field(default=())
    fresh: bool = True  # it happened while somebody waited
    warm: bool = False  # it went on from a kept state, and did not boot
