"""vCPUs and memory of a machine: what the manifest asks for, and what a host of this size gives; pure."""

from __future__ import annotations

from hikube_local.api.objects import VMInstanceSpec
from hikube_local.api.quantities import in_bytes, parse
from hikube_local.catalogue import data
from hikube_local.errors import HikubeError
from hikube_local.records import dataclass


class Unsized(HikubeError):
    """Neither an instanceType nor complete resources (HK302): validation refuses it before anything has this size."""

    def __init__(self, name: str) -> None:
        super().__init__("HK302", f"there is no instanceType {name!r}", fix="use another, or give complete resources")


@dataclass(frozen=True, slots=True)
class Size:
    """sockets x cores x threads vCPUs, memory in bytes."""

    sockets: int
    cores: int
    memory: int
    threads: int = 1

    @property
    def vcpus(self) -> int:
        return self.sockets * self.cores * self.threads


def requested(spec: VMInstanceSpec) -> Size:
    """The size that the manifest asks for: resources, else the type's vCPUs as the profile lays them out."""
    r = spec.resources
    if spec.own_size:
        return Size(int(parse(r.sockets)), int(parse(r.cpu)), in_bytes(r.memory))
    kind = data.instancetypes().get(spec.instanceType)
    if kind is None:
        raise Unsized(spec.instanceType)
    profile = data.profiles().get(spec.instanceProfile or "ubuntu")
    if profile is not None and profile.cpu_topology == "cores":
        return Size(1, kind.vcpu, kind.memory)
    if profile is not None and profile.cpu_topology == "spread":
        sockets = kind.vcpu // (2 * profile.spread_ratio)
        if sockets * 2 * profile.spread_ratio == kind.vcpu:  # KubeVirt refuses any other number
            return Size(sockets, profile.spread_ratio, kind.memory, threads=2)
    return Size(kind.vcpu, 1, kind.memory)
