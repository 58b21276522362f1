"""A machine's size on this host: capped to its processors, and so that all machines leave it a quarter of its memory; pure."""

from __future__ import annotations

from hikube_local.catalogue.data import Profile
from hikube_local.errors import HikubeError
from hikube_local.render.sizing import Size
from hikube_local.source.finding import Finding, difference
from hikube_local.text import size

MIB = 1 << 20
# Of all Hyper-V features the one that QEMU refuses without KVM (seen with 7.2).
KVM_ONLY = frozenset({"vpindex"})
TB_CACHE = 256 * MIB  # TCG's translation cache for one machine


def dropped(profile: Profile, kvm: bool) -> list[Finding]:
    """What a profile asks for that this host's QEMU cannot give, as differences."""
    lost = [] if kvm else [f for f in profile.hyperv if f in KVM_ONLY]
    told = [difference("HK519", f"Hyper-V {', '.join(lost)} needs KVM and is left out")] if lost else []
    if profile.multiqueue:
        told.append(difference("HK519", "its network cards have one queue here, on Hikube one for each vCPU"))
    return told


def fit(
    want: Size, cpus: int, memory: int, used: int, kvm: bool, least: int, exact: bool
) -> tuple[Size, list[Finding]]:
    """The size that is given, and the differences. `used`: bytes of the machines that already run.

    With `exact` a cap is refused; a machine that does not fit with its profile's least memory is refused.
    """
    told: list[Finding] = []
    sockets, cores, threads = want.sockets, want.cores, want.threads
    if want.vcpus > cpus:
        sockets, cores, threads = cpus, 1, 1
        told.append(difference("HK501", f"{cpus} vCPUs instead of {want.vcpus}: the host has {cpus} processors"))
    room = memory * 3 // 4 - used - (0 if kvm else TB_CACHE)
    given = min(want.memory, room // MIB * MIB)
    if given < want.memory:
        if given < least:
            raise HikubeError(
                "HK603",
                f"the machine needs at least {size(least)}, {size(max(0, room))} are left for machines on this host",
                fix="stop other machines, or choose a smaller instanceType",
            )
        words = (
            f"{size(given)} of memory instead of {size(want.memory)}: a quarter of the host's {size(memory)} stays free"
        )
        told.append(difference("HK502", words))
    if exact and told:
        raise HikubeError("HK501", f"--exact: {told[0].message}", fix="leave --exact out, or use a larger host")
    return Size(sockets, cores, given, threads), told
