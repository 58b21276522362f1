"""What QEMU itself said when it stopped a machine, and what helps; pure."""

from __future__ import annotations

import re

from hikube_local.text import sanitize

# QEMU prints these on stderr, which libvirt keeps beside the machine's log (accel/kvm/kvm-all.c, target/i386/kvm/kvm.c).
_TELLING = re.compile(r"^(?:KVM: |KVM internal error|kvm run failed|error: kvm|qemu-system-\w+: )", re.I | re.M)
_OTHER_HYPERVISOR = re.compile(r"KVM_CREATE_VM.* (?:16|EBUSY)|Device or resource busy", re.I)
_SMM = re.compile(r"\bSMM=1\b")


def reason(log: str) -> str:
    """The line of QEMU's log that says why, as QEMU wrote it, or an empty string."""
    lines = [line.strip()[:200] for line in log.splitlines() if _TELLING.match(line)]
    return lines[-1] if lines else ""


def words(log: str) -> str:
    """The reason, or that there is none."""
    return reason(log) or "its log does not say why"


def evidence(log: str) -> tuple[str, ...]:
    """Its last lines, made safe."""
    return tuple(sanitize(log).splitlines()[-8:])


def remedy(log: str, name: str, kvm: bool) -> str:
    """The next step for a machine that QEMU stopped."""
    if not kvm:
        return f"hikube-local restart {name}; hikube-local doctor"
    emulated = (
        f"use emulation: hikube-local up --accelerator tcg, or annotate {name} with hikube.local/accelerator: tcg"
    )
    if _OTHER_HYPERVISOR.search(log):
        return f"another hypervisor (VirtualBox, VMware) is using VT-x or AMD-V: stop its machines; or {emulated}"
    if _SMM.search(log):
        return f"this host is a virtual machine whose KVM has no SMM, which secure boot needs: {emulated}"
    return emulated
