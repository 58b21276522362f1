"""What is kept of an object beside itself: what was asked of it, what must stay the same, what was last seen of its guest.

The three lie in one row, under the names of their fields; a value that is not there is its default.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from hikube_local.records import dataclass


@dataclass(frozen=True, slots=True)
class Intent:
    """What was asked of a machine outside its manifest."""

    power: str = ""  # "", "start" or "stop"
    end_boot: float | None = None  # the boot, by its start time, that a `restart` ends
    started_before: bool = False
    bridge: str = ""  # of the host's, for WholeIP as root
    managed: list[dict[str, Any]] | None = None  # metadata.managedFields: who of the API's clients owns which field
    accelerator: str = ""  # kvm or tcg, whatever the host's own verdict is


@dataclass(frozen=True, slots=True)
class Lease:
    """What must stay the same as long as the object is there."""

    uuid: str = ""
    size: dict[str, Any] | None = None  # want and got (sockets, cores, bytes of memory), and what was told of it
    host: int | None = None  # of its address inside the tenant
    forwards: dict[str, Any] | None = None  # its loopback address, and the host port of each port
    lan: str = ""  # the host's bridge that it sits on
    ran_with: str = ""  # the accelerator of its last start, kvm or tcg
    ran_by: str = ""  # who overruled the host's verdict then (plan.accelerator)
    configured: str = ""  # the identity of which `reset` has the first boot


@dataclass(frozen=True, slots=True)
class GuestCache:
    """What was last seen of an object's guest or content; may be lost. Times are Unix seconds."""

    listening: list[str] | None = None  # the ports on which it listens
    looked: float = 0.0  # when that was looked up
    again: float = 0.0  # seconds until it is looked up again
    agent_seen: bool = False  # whether its agent was connected then
    answered: bool = False  # whether its agent answered then
    asleep: float | None = None  # how long the host had slept when its clock was right
    lan_ip: str = ""  # its address on the host's bridge
    up: float | None = None  # the boot, by its start time, that was seen to come up
    cloud_init: dict[str, Any] | None = None  # how cloud-init ended: start, ok, and why (readiness.Trouble)
    done_as: str = ""  # the instance-id under which it was seen to be done
    got: dict[str, Any] | None = None  # of a disk that is being imported: bytes, total, and the time of that
    resumed: dict[str, float] | None = None  # a warm start, by its start time, and its seconds; until somebody was told
    failed: dict[str, Any] | None = None  # why a disk or a machine did not come about (readiness.Trouble)


Record = TypeVar("Record", Intent, Lease, GuestCache)
NAMES = frozenset(f.name for kind in (Intent, Lease, GuestCache) for f in fields(kind))


def of(kind: type[Record], row: dict[str, Any]) -> Record:
    """The record that a row holds."""
    return kind(**{f.name: row[f.name] for f in fields(kind) if row.get(f.name) is not None})
