"""Where no network namespace is to be had: QEMU's own user network, each machine alone.

It carries the listed ports and the way out. It carries no names, no other machine, and it leaves the host's loopback open
to the guest (QEMU has no switch against that but one that closes everything): HK518 says so.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hikube_local import files
from hikube_local.backends.qemu import libvirt
from hikube_local.backends.qemu.network.processes import processes
from hikube_local.backends.qemu.network.sandbox import PROVED, Sandbox
from hikube_local.errors import HikubeError
from hikube_local.host import doctor, userns
from hikube_local.host.facts import boot_id
from hikube_local.host.userns import UsernsLauncher
from hikube_local.paths import Layout, make_runtime
from hikube_local.plan.steps import Forward
from hikube_local.render.addresses import Range

LOST = (
    "network namespaces are not available here, so each machine is isolated: it cannot reach other machines or resolve "
    "their names, and its guest can reach this host's own loopback; hikube-local doctor shows the fix"
)
MARK = "alone.json"


class UserNetwork(Sandbox):
    """A libvirtd of the user's in the host's own network; nothing of it needs a privilege."""

    has_tenant_network = False

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._forwards = MonitorForwards(self)
        self.egress = self._forwards

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

    def is_ours(self, pid: int) -> bool:
        return True  # its pid file lies in our own folder, and there is one network only

    def inside(self, pid: int, *words: str | Path) -> list[str | Path]:
        return list(words)

    def batch(self, pid: int, ops: list[dict[str, Any]]) -> list[str]:
        return [""] * len(ops)  # there is nothing inside which anything could be made

    @contextlib.contextmanager
    def dial(self, ip: str, port: int) -> Iterator[list[str]]:
        with self._forwards.passing(ip, port) as near:
            yield self.enter_words(0, "connect", near.address, str(near.host_port))

    def finish(self) -> None:
        self.daemon.end()
        (self.run / MARK).unlink(missing_ok=True)


class MonitorForwards:
    """The forwards of each machine's own QEMU, through its monitor."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

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
            mode = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
            return str(libvirt_qemu.qemuMonitorCommand(dom, command, mode))
        except lv.libvirtError as e:
            raise libvirt.translated(e, f"QEMU's monitor did not take {command.split()[0]}") from None

    def forwards(self) -> list[dict[str, Any]]:
        if not self.sandbox.daemon.pid():
            return []
        connection = libvirt.connect(self.sandbox.daemon.uri)
        found = []
        for ip, name in self.sandbox.domains().items():
            for f in table(self._monitor(connection, name, "info usernet")):
                found.append({**f, "guest_addr": ip, "id": f"{ip} {f['proto']}:{f['host_addr']}:{f['host_port']}"})
        return found

    def add(self, forward: Forward, ip: str) -> None:
        rule = f"{forward.protocol}:{forward.address}:{forward.host_port}-:{forward.port}"
        self._refused(rule, self._to(ip, f"hostfwd_add hostnet0 {rule}"))

    def remove(self, id: Any) -> None:
        ip, rule = str(id).split(" ", 1)
        said = self._to(ip, f"hostfwd_remove hostnet0 {rule}")
        self._refused(rule, "" if "removed" in said else said)

    def end(self) -> None:
        """Each QEMU ends its own."""

    def _to(self, ip: str, command: str) -> str:
        return self._monitor(libvirt.connect(self.sandbox.daemon.uri), self.sandbox.domains()[ip], command)

    @staticmethod
    def _refused(rule: str, said: str) -> None:
        if said.strip():
            raise HikubeError("HK803", f"QEMU refused the forward {rule}", why=said.strip()[:200])

    @contextlib.contextmanager
    def passing(self, ip: str, port: int) -> Iterator[Forward]:
        """A forward for as long as one command needs it."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            near = Forward(port, "127.0.0.1", s.getsockname()[1])
        self.add(near, ip)
        try:
            yield near
        finally:
            self.remove(f"{ip} tcp:{near.address}:{near.host_port}")


_ROW = re.compile(r"(TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+(\S+)\s+(\d+)")


def table(text: str) -> list[dict[str, Any]]:
    """The forwards in the answer to QEMU's `info usernet`."""
    return [
        {"proto": p.lower(), "host_addr": a, "host_port": int(h), "guest_port": int(g)}
        for p, a, h, _, g in _ROW.findall(text)
    ]


def sandbox_of(layout: Layout) -> Sandbox:
    """The sandbox that is up, else the one that this host can have."""
    if layout.root:
        return Sandbox(layout)
    if (layout.runtime / "ready.json").exists():
        ready = files.read_json(layout.runtime / "ready.json") or {}
        return Sandbox(layout, UsernsLauncher(ready.get("door", UsernsLauncher.UNSHARE)))
    if (layout.runtime / MARK).exists() and processes(layout):
        return UserNetwork(layout)
    proved = layout.cache / PROVED
    known = files.read_json(proved) or {}
    if known.get("boot") == boot_id() and "door" in known:
        return Sandbox(layout, UsernsLauncher(known["door"]))
    found, _ = userns.find()
    if not (found and doctor.tun().ok):
        return UserNetwork(layout)
    return Sandbox(layout, found)
