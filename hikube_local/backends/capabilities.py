"""What a backend may be able to do beside carrying objects: it says so by its bases. Ask with `Session.require`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from hikube_local.api.objects import Key, Object
from hikube_local.errors import HikubeError
from hikube_local.events import Emit
from hikube_local.host.check import HostCheck
from hikube_local.host.facts import HostFacts

if TYPE_CHECKING:
    import socket

MOST = 2_900_000  # bytes of output that an agent can answer: libvirt hands over 4 MiB of text (REMOTE_STRING_MAX)
FIRST_BOOT = "configured"  # the snapshot that `up` takes and `reset` goes back to


class Capability:
    """What all of them stand on: a backend that names one of them as its base has each of its methods."""


class Dials(Capability):
    """Ports of a machine can be reached, whether or not they are open on the host."""

    def connector(self, obj: Object, port: int) -> contextlib.AbstractContextManager[list[str]]:
        """The words of a program that carries its standard input and output to a TCP port of the running machine."""
        raise NotImplementedError

    def within(self, obj: Object, port: int) -> Callable[[socket.socket], None] | None:
        """Who carries a connection there in this process, where that needs no program of its own."""
        return None

    def direct(self, obj: Object, port: int) -> list[str]:
        """The same words where nothing has to be undone after them; none where something has to."""
        return []

    def carry(self, obj: Object, port: int) -> int:
        """Carry this process's standard input and output there, in its place where nothing has to be undone after it."""
        raise NotImplementedError


class Consoles(Capability):
    """A machine has a serial console to type into."""

    def console(self, obj: Object) -> Path:
        """The socket of the running machine's console."""
        raise NotImplementedError


class Screens(Capability):
    """A machine has a screen."""

    def screen(self, obj: Object) -> Path:
        """The socket on which the running machine's VNC server listens."""
        raise NotImplementedError

    def screenshot(self, obj: Object) -> bytes:
        """A picture of it, as PNG."""
        raise NotImplementedError


class Log(Protocol):
    """One log of one machine."""

    def read(self, previous: bool, since: float | None, whole: bool = True) -> str:
        """The last boot, the one before it, or all of the last `since` seconds; `whole`: nothing comes after it."""
        ...

    def more(self) -> Iterator[str]:
        """What comes after `read`, one block a call: nothing where nothing came; whoever reads waits in between."""
        ...

    def raw(self) -> bytes:
        """All of it, as the machine wrote it."""
        ...

    def first_boot(self, most: int) -> bytes:
        """At most so many bytes of the first boot that is known, its last ones."""
        ...


class Logs(Capability):
    """What a machine said is kept."""

    def log(self, obj: Object, name: str = "console") -> Log:
        """`console` or `firmware`."""
        raise NotImplementedError


class GuestAgent(Protocol):
    """The agent in a running guest. Whatever it answers is data from the guest, never trusted."""

    def connected(self) -> bool: ...

    def may_run(self) -> bool: ...

    def call(self, command: str, timeout: int = 5, **arguments: Any) -> Any:
        """The answer to a command of QEMU's guest agent; None where there is none. `timeout` in seconds."""
        ...

    def read(self, path: str, most: int = 65536, end: bool = False) -> bytes | None: ...

    def run(self, command: str, timeout: float = 60.0, input: bytes = b"") -> tuple[int, bytes, bytes]: ...

    def ssh_keys(self, user: str) -> list[str] | None:
        """The keys that let this user in; None when the guest does not say."""
        ...

    def add_ssh_key(self, user: str, key: str) -> None:
        """HK801 where the guest refuses."""
        ...


class Agents(Capability):
    """An agent inside the guest may answer."""

    def agent(self, obj: Object, slowness: float = 1.0) -> GuestAgent:
        """Of the running machine, or HK805; `slowness` stretches what commands may take."""
        raise NotImplementedError


class Snapshot(Protocol):
    """One snapshot of a machine. Sizes in bytes; `created`: Unix seconds; `kept`: a timer (--keep) made and deletes it."""

    @property
    def name(self) -> str: ...

    @property
    def created(self) -> float: ...

    @property
    def memory(self) -> bool: ...

    @property
    def size(self) -> int: ...

    @property
    def instance_id(self) -> str: ...

    @property
    def kept(self) -> bool: ...

    @property
    def disks(self) -> list[str]: ...


Named = TypeVar("Named", bound=Snapshot)


def by_name(found: Sequence[Named], obj: Object, name: str) -> Named:
    """The snapshot of this name, or HK804 with those that there are."""
    names = [s.name for s in found]
    if name not in names:
        have = ", ".join(names) or "none"
        raise HikubeError("HK804", f"{obj.name} has no checkpoint {name!r}", f"there are: {have}", "snapshot list NAME")
    return found[names.index(name)]


class Snapshots(Capability):
    """The state of a machine can be kept and gone back to."""

    def snapshots(self, obj: Object) -> Sequence[Snapshot]:
        """Those of one machine, oldest first."""
        raise NotImplementedError

    def take_snapshot(self, obj: Object, name: str, emit: Emit, keep: int | None = None) -> None:
        """The machine goes on. `keep`: only so many of those that were taken with it stay."""
        raise NotImplementedError

    def restore_snapshot(self, obj: Object, snapshot: Snapshot, emit: Emit) -> float:
        """Back to it, as often as wanted; the seconds that it took."""
        raise NotImplementedError

    def delete_snapshot(self, obj: Object, name: str, emit: Emit) -> None:
        raise NotImplementedError

    def keep_first_boot(self, obj: Object, emit: Emit) -> None:
        """Take FIRST_BOOT, once for an identity of the machine."""
        raise NotImplementedError


class Pauses(Capability):
    """A running machine can be frozen and let go on."""

    def pause(self, obj: Object) -> None:
        raise NotImplementedError

    def unpause(self, obj: Object) -> None:
        raise NotImplementedError


class Switches(Capability):
    """It carries out start, stop and restart by itself, and is told so."""

    def switch(self, obj: Object, verb: str) -> bool:
        """`start`, `stop` or `restart`; False for what is so already, which is no error."""
        raise NotImplementedError


class Reboots(Capability):
    """The operating system of a running machine can be asked to reboot; the machine goes on."""

    def soft_reboot(self, obj: Object) -> None:
        """By its agent where that answers, by its power button otherwise; HK805 where it does not run."""
        raise NotImplementedError


class Uploads(Capability):
    """A disk takes its content from a file of this host."""

    def upload(self, disk: Object, file: Path, emit: Emit) -> None:
        """The content of a disk that waits for it; never overwritten (HK806)."""
        raise NotImplementedError


# What a machine uses, by the names and in the units of libvirt's virConnectGetAllDomainStats (`cpu.time` in ns since its
# start, `balloon.rss` in KiB, `net.0.rx.bytes`, `block.0.rd.bytes`): KubeVirt's own metrics are made of the same.
Figures = Mapping[str, Any]


class Measures(Capability):
    """What machines use is counted."""

    def figures(self, objects: Sequence[Object]) -> dict[Key, Figures]:
        """Of those that run, from one look."""
        raise NotImplementedError


class Executes(Capability):
    """Commands of this host run inside a tenant's network."""

    def execute(self, namespace: str, command: list[str]) -> NoReturn:
        """Become the command, inside the tenant's network."""
        raise NotImplementedError


class Networks(Capability):
    """Machines share tenant networks behind a firewall."""

    def reach(self) -> dict[str, Any]:
        """Who reaches whom: `tenants` with their machines' addresses, `arrows` with the rule of each, and whether these
        rules are `inForce`."""
        raise NotImplementedError


class Libvirt(Capability):
    """libvirt runs the machines."""

    def libvirt_uri(self) -> str | None:
        """Where virsh connects to; None when no machine is up."""
        raise NotImplementedError

    def domain_xml(self, obj: Object) -> str:
        """What libvirt would be given for the machine, on this host."""
        raise NotImplementedError

    def live_xml(self, obj: Object) -> str | None:
        """What libvirt runs now; None where the machine is off."""
        raise NotImplementedError


class OnThisHost(Capability):
    """It runs on this host: what it needs here, and what it leaves here."""

    def host_facts(self) -> HostFacts:
        raise NotImplementedError

    def preflight(self, objects: Iterable[Object]) -> None:
        """What this host lacks for these objects is an error before anything is changed."""
        raise NotImplementedError

    def checks(self) -> list[HostCheck]:
        """What `doctor` says beside the host's own checks."""
        raise NotImplementedError

    def processes(self) -> list[str]:
        """Those of this state root, in words."""
        raise NotImplementedError

    def folders(self, disks: bool, images: bool) -> list[Path]:
        """Those that `sweep` removes: of sockets and machines always; the whole state, the cache only when asked."""
        raise NotImplementedError

    def end(self) -> None:
        """End every process; what is on disks stays."""
        raise NotImplementedError

    def sweep(self, disks: bool, images: bool) -> None:
        """End every process and remove the folders."""
        raise NotImplementedError

    def tidy(self) -> None:
        """After machines went: what they shared follows, and helpers end that no machine needs, such as those of an `up` that was
        killed before it had one."""
        raise NotImplementedError

    def scratch(self, obj: Object) -> Path:
        """A folder for sockets that belong to the running machine."""
        raise NotImplementedError


class WarmStates(Capability):
    """A machine's start takes a state after an earlier first boot, where RunOptions.warm says where such are kept."""

    def keep_warm(self, obj: Object, folder: Path, emit: Emit) -> None:
        """Keep the state of a machine whose first boot has just ended, if it was begun for that; it goes on."""
        raise NotImplementedError


# For the sentence about one that is missing.
NOUNS: dict[type, str] = {
    Dials: "connections to its ports",
    Consoles: "a serial console",
    Screens: "a screen",
    Logs: "logs",
    Agents: "a guest agent",
    Snapshots: "snapshots",
    Pauses: "pause",
    Switches: "start and stop of its own",
    Reboots: "soft reboot",
    Uploads: "uploads",
    Measures: "usage figures",
    Executes: "commands in a tenant network",
    Networks: "tenant networks",
    Libvirt: "libvirt",
    OnThisHost: "resources of this host",
    WarmStates: "warm states",
}
