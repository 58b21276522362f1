"""What this host is: a plain value, and the probes that fill it."""

from __future__ import annotations

import contextlib
import os
import time

from hikube_local.records import dataclass


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Processors that we may use, memory in bytes, the accelerator and why it is that one."""

    cpus: int
    memory: int
    available: int
    kvm: bool
    why: str
    slowness: float = 1.0
    stretch: float = 1.0  # what the user multiplies every deadline by

    @property
    def patience(self) -> float:
        """What a boot's seconds are multiplied by."""
        return self.slowness * self.stretch

    @property
    def effort(self) -> float:
        """What a command's seconds are multiplied by: it waits as much as it computes."""
        return self.slowness**0.5 * self.stretch

    @property
    def accelerator(self) -> str:
        return "kvm" if self.kvm else "tcg"


def meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    out = {}
    with open("/proc/meminfo", encoding="ascii") as f:
        for line in f:
            name, rest = line.split(":", 1)
            out[name] = int(rest.split()[0]) * 1024
    return out


def memory_limit() -> int:
    """Memory in bytes that this process may use: the host's, or its cgroup's if that is less."""
    total = meminfo()["MemTotal"]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as f:
                text = f.read().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def lacks(capabilities: dict[str, int]) -> list[str]:
    """The names of those capabilities ({name: its bit}) that this process has not."""
    with open("/proc/self/status", encoding="ascii") as f:
        have = next(int(line.split()[1], 16) for line in f if line.startswith("CapEff:"))
    return [name for name, bit in capabilities.items() if not have >> bit & 1]


def cpus() -> int:
    return len(os.sched_getaffinity(0))


def asleep() -> float:
    """Seconds that this host has slept since it was booted (suspend): the boot clock counts them, the monotonic one not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
        return f.read().strip()


def booted() -> float:
    """When this host was booted, in Unix seconds."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def container() -> str:
    """What container this is in (docker, podman, lxc, …), or an empty string: as systemd-detect-virt tells them."""
    for path, name in (("/run/.containerenv", "podman"), ("/.dockerenv", "docker")):
        if os.path.exists(path):
            return name
    for path in ("/run/systemd/container", "/run/host/container-manager"):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as f:
            return f.read(40).strip()
    with contextlib.suppress(OSError), open("/proc/1/environ", "rb") as f:
        for row in f.read(1 << 16).split(b"\0"):
            if row.startswith(b"container="):
                return row.removeprefix(b"container=").decode("utf-8", "replace")[:40]
    return ""
