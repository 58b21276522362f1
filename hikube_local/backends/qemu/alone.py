"""Where no network namespace is to be had: QEMU's own user network, each machine alone.

It carries the listed ports and the way out. It carries no names, no other machine, and it leaves the host's loopback open
to the guest (QEMU has no switch against that but one that closes everything): HK518 says so.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hikube_local import files
from hikube_local.backends.qemu import leftovers, libvirt
from hikube_local.backends.qemu.carrier import Carrier
from hikube_local.errors import HikubeError
from hikube_local.host import doctor, door
from hikube_local.host.door import Door
from hikube_local.host.facts import boot_id
from hikube_local.paths import Layout, make_runtime
from hikube_local.render.addresses import Range

LOST = (
    "no network namespace is to be had here, so each machine is alone: no names and no other machine, "
    "and its guest reaches this host's own loopback; hikube-local doctor says what would mend it"
)
MARK = "alone.json"


class Alone(Carrier):
    """A libvirtd of the user's in the host's own network; nothing of it needs a privilege."""

    alone = True

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.out = UserNet(self)  # type: ignore[assignment]

    def holder(self) -> int | None:
        return self.daemon.pid()

    def id(self) -> str | None:
        return "alone" if self.daemon.pid() else None

    def ensure(self, range: Range, out: bool = True) -> int:
        make_runtime(self.layout)
        for sub in ("log", "net", "m"):
            files.make_folder(self.run / sub)
        files.write_json(self.run / MARK, {})
        self.daemon.ensure(0)
        pid = self.daemon.pid()
        assert pid is not None
        return pid

    def _is_ours(self, pid: int) -> bool:
        return True  # its pid file lies in our own folder, and there is one network only

    def inside(self, pid: int, *words: str | Path) -> list[str | Path]:
        return list(words)

    def batch(self, pid: int, ops: list[dict[str, Any]]) -> list[str]:
        return [""] * len(ops)  # there is nothing inside which anything could be made

    def finish(self) -> None:
        self.daemon.end()
        (self.run / MARK).unlink(missing_ok=True)


class UserNet:
    """The forwards of each machine's own QEMU, through its monitor, in the shape of slirp4netns' API."""

    domains: Callable[[], dict[str, str]] = staticmethod(dict)  # {the machine's address: its domain}

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier

    def runs(self) -> bool:
        return True

    def ensure(self, pid: int, range: Range) -> None:
        """Each QEMU brings its own."""

    def _monitor(self, connection: Any, name: str, command: str) -> str:
        import libvirt_qemu

        lv = libvirt.module()
        dom = libvirt.domain(connection, name)
        if dom is None or not dom.isActive():
            return ""
        try:
            return libvirt_qemu.qemuMonitorCommand(dom, command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
        except lv.libvirtError as e:
            raise libvirt.translated(e, f"QEMU's monitor did not take {command.split()[0]}") from None

    def forwards(self) -> list[dict[str, Any]]:
        if not self.carrier.daemon.pid():
            return []
        connection = libvirt.connect(self.carrier.daemon.uri)
        found = []
        for ip, name in self.domains().items():
            for f in table(self._monitor(connection, name, "info usernet")):
                found.append({**f, "guest_addr": ip, "id": f"{ip} {f['proto']}:{f['host_addr']}:{f['host_port']}"})
        return found

    def call(self, command: str, **a: Any) -> None:
        connection = libvirt.connect(self.carrier.daemon.uri)
        if command == "add_hostfwd":
            rule = f"{a['proto']}:{a['host_addr']}:{a['host_port']}-:{a['guest_port']}"
            said = self._monitor(connection, self.domains()[a["guest_addr"]], f"hostfwd_add hostnet0 {rule}")
        else:
            ip, rule = a["id"].split(" ", 1)
            said = self._monitor(connection, self.domains()[ip], f"hostfwd_remove hostnet0 {rule}")
            said = "" if "removed" in said else said
        if said.strip():
            raise HikubeError("HK803", f"QEMU refused the forward {rule}", why=said.strip()[:200])

    @contextlib.contextmanager
    def passing(self, ip: str, port: int) -> Iterator[tuple[str, int]]:
        """A forward for as long as one command needs it: (address, port) on the host."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            near = s.getsockname()[1]
        about = {"proto": "tcp", "host_addr": "127.0.0.1", "host_port": near}
        self.call("add_hostfwd", **about, guest_addr=ip, guest_port=port)
        try:
            yield "127.0.0.1", near
        finally:
            self.call("remove_hostfwd", id=f"{ip} tcp:127.0.0.1:{near}")


_ROW = re.compile(r"(TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+(\S+)\s+(\d+)")


def table(text: str) -> list[dict[str, Any]]:
    """The forwards in the answer to QEMU's `info usernet`."""
    return [
        {"proto": p.lower(), "host_addr": a, "host_port": int(h), "guest_port": int(g)}
        for p, a, h, _, g in _ROW.findall(text)
    ]


def carrier_of(layout: Layout) -> Carrier:
    """The carrier that is up, else the one that this host can have."""
    if layout.root:
        return Carrier(layout)
    if (layout.runtime / "ready.json").exists():
        ready = files.read_json(layout.runtime / "ready.json") or {}
        return Carrier(layout, Door(ready.get("door", Door.UNSHARE)))
    if (layout.runtime / MARK).exists() and leftovers.processes(layout):
        return Alone(layout)
    proved = layout.cache / "namespace.json"
    known = files.read_json(proved) or {}
    if known.get("boot") == boot_id() and "door" in known:
        return Carrier(layout, Door(known["door"]))
    found, _ = door.find()
    if not (found and doctor.tun().ok):
        return Alone(layout)
    files.write_json(proved, {"boot": boot_id(), "door": found})
    return Carrier(layout, found)
