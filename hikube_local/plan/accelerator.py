"""Which accelerator a machine gets: decided here from what was asked, what it has, and what this host can do; pure."""

from __future__ import annotations

from hikube_local.api.names import ACCELERATORS
from hikube_local.host.facts import HostFacts
from hikube_local.records import dataclass

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
    memory: frozenset[str] = frozenset(),
) -> Choice:
    """The accelerator of one machine.

    `has`: the one that the host's verdict gave it at its last start, or nothing. It stays while the machine `runs`;
    `memory`: those that its checkpoints with memory were made with: a verdict that changes takes none of them away, unless
    the host cannot do it any more.
    """

    def gone(word: str) -> str:
        return next(iter(sorted(memory - {word})), "")

    asked = ((option, "--accelerator"), (annotation, "annotation"), (environment, "environment"))
    for word, by in asked:
        if word in ACCELERATORS:
            why = f"set by the {by}" if by != "--accelerator" else "set by --accelerator"
            return Choice(word == KVM, why, by, gone(word))
    if has in ACCELERATORS and runs:
        return Choice(has == KVM, host.why if has == host.accelerator else f"it was started with {has}")
    if memory == {TCG} and host.kvm:
        return Choice(False, "its checkpoints with memory were made under emulation; `up --accelerator kvm` changes it")
    return Choice(host.kvm, host.why, lost=gone(host.accelerator))
