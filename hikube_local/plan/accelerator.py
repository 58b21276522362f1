"""Which accelerator a machine gets: decided here from what was asked, what it has, and what this host can do; pure."""

from __future__ import annotations

from dataclasses import dataclass

from hikube_local.api.names import ACCELERATORS
from hikube_local.host.facts import HostFacts

KVM, TCG = ACCELERATORS


@dataclass(frozen=True, slots=True)
class Choice:
    """`by`: who overruled the host's own verdict: "--accelerator", "annotation" or "environment"; empty for nobody.

    `lost`: the accelerator whose memory checkpoints of this machine cannot be gone back to with this one.
    """

    kvm: bool
    why: str
    by: str = ""
    lost: str = ""

    @property
    def word(self) -> str:
        return KVM if self.kvm else TCG


def choose(
    host: HostFacts,
    option: str,
    annotation: str,
    environment: str,
    has: str = "",
    runs: bool = False,
    memory: bool = False,
) -> Choice:
    """The accelerator of one machine.

    `has`: the one that it was last started with, or nothing. It stays while the machine `runs`, and while it has
    checkpoints with `memory`, so that a verdict that changes takes nothing away, unless the host cannot do it any more.
    """
    asked = ((option, "--accelerator"), (annotation, "annotation"), (environment, "environment"))
    for word, by in asked:
        if word in ACCELERATORS:
            lost = has if memory and has not in ("", word) else ""
            return Choice(
                word == KVM, f"the {by} says so" if by != "--accelerator" else "--accelerator said so", by, lost
            )
    if has in ACCELERATORS and runs:
        return Choice(has == KVM, host.why if has == host.accelerator else f"it was started with {has}")
    if memory and has == TCG and host.kvm:
        return Choice(False, "its checkpoints with memory were made under emulation; `up --accelerator kvm` changes it")
    lost = KVM if memory and has == KVM and not host.kvm else ""
    return Choice(host.kvm, host.why, lost=lost)
