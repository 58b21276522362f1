"""vCPUs and memory of a machine: what the manifest asks for, and what a host of this size gives; pure."""

from __future__ import annotations

from dataclasses import dataclass

from hikube_local.api.objects import VMInstanceSpec
from hikube_local.api.quantities import in_bytes, parse
from hikube_local.catalogue import data
from hikube_local.errors import HikubeError


class Unsized(HikubeError):
    """Neither an instanceType nor complete resources (HK302): validation refuses it before anything has this size."""

    def __init__(self, name: str) -> None:
        super().__init__("HK302", f"there is no instanceType {name!r}", fix="use another, or give complete resources")


@dataclass(frozen=True, slots=True)
class Size:
    """sockets x cores vCPUs, memory in bytes."""

    sockets: int
    cores: int
    memory: int

    @property
    def vcpus(self) -> int:
        return self.sockets * self.cores


def requested(spec: VMInstanceSpec) -> Size:
    """The size that the manifest asks for: each vCPU a socket, unless resources say otherwise."""
    r = spec.resources
    if r.cpu and r.memory and r.sockets:
        return Size(int(parse(r.sockets)), int(parse(r.cpu)), in_bytes(r.memory))
    kind = data.instancetypes().get(spec.instanceType)
    if kind is None:
        raise Unsized(spec.instanceType)
    return Size(kind.vcpu, 1, kind.memory)
