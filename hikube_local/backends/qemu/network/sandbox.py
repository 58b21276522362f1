"""What carries the machines of one state root: a namespace, and in it libvirtd, dnsmasq and the way out.

The host's interfaces, routes, firewall and its own libvirt are never touched.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hikube_local import files
from hikube_local.backends.qemu.network import helpers, mounts
from hikube_local.backends.qemu.network.daemon import Daemon
from hikube_local.backends.qemu.network.namespace import Egress, Namespace
from hikube_local.backends.qemu.network.slirp import Slirp
from hikube_local.errors import HikubeError
from hikube_local.host import qemu_ids, userns
from hikube_local.host.facts import boot_id
from hikube_local.host.userns import UsernsLauncher
from hikube_local.paths import Layout, make_runtime
from hikube_local.render import firewall
from hikube_local.render.addresses import Range
from hikube_local.run import clean_environment

PROVED = "namespace.json"  # in the cache: by which launcher a namespace was made in this boot
SYS6 = "/proc/sys/net/ipv6/conf/all"


class Sandbox(Namespace):
    """Starts, finds and ends what carries the machines of one state root."""

    domains: Callable[[], dict[str, str]] = staticmethod(dict)  # {a machine's address: its domain}

    def __init__(self, layout: Layout, launcher: UsernsLauncher = UsernsLauncher.UNSHARE) -> None:
        super().__init__(layout, launcher)
        self.egress: Egress = Slirp(self)
        self.daemon = Daemon(self)

    def lives(self) -> bool:
        """Whether the namespace is there, or something in it from which it can be taken up again."""
        return self.holder() is not None or self._anchor() is not None

    def ensure(self, range: Range, out: bool = True) -> int:
        """Bring up what is missing: namespace, way out, libvirtd. Hands back the holder's pid; under the network lock.

        Without `out` the way out is left as it is.
        """
        make_runtime(self.layout)
        for sub in ("log", "net", "m", "state", "cache"):
            files.make_folder(self.run / sub, self.layout.mode)
        pid = self.holder()
        if pid is None:
            helpers.end(self.holder_lock)
            anchor = self._anchor()
            if anchor:
                pid = self._adopt(anchor)
            else:
                self._clear()
                pid = self._begin(range)
        if out:
            self.egress.ensure(pid, range)
        self.daemon.ensure(pid)
        return pid

    def _clear(self) -> None:
        """Nothing of a namespace that went may be taken for one of the new one's."""
        self.egress.end()
        for lock in (*self.run.glob("dnsmasq-*.lock"), self.run / "virtlogd.lock"):
            helpers.end(lock)
        for path in (self.run / "ready.json", self.net / "applied.json", self.net / "taps.json"):
            path.unlink(missing_ok=True)

    def _anchor(self) -> int | None:
        """Something of ours that still lives in a namespace whose holder was killed: libvirtd, or a machine."""
        if pid := self.daemon.pid():
            return pid
        for path in [*self.run.glob("libvirt/qemu/*.pid"), *self.run.glob("libvirt/qemu/run/*.pid")]:
            with contextlib.suppress(OSError, ValueError):
                pid = int(path.read_text())
                if "/qemu-system" in os.readlink(f"/proc/{pid}/exe") and self.is_ours(pid):
                    return pid
        return None

    def _adopt(self, anchor: int) -> int:
        argv = self.inside(anchor, "sleep", "infinity")
        pid, _ = helpers.ensure(
            self.holder_lock, argv, self.log("namespace"), clean_environment(), check=lambda p: helpers.runs(p, "sleep")
        )
        self.note_ready(pid)
        return pid

    def _begin(self, range: Range) -> int:
        argv = ["unshare", "-m", "-n", "--propagation", "private", "sleep", "infinity"]
        if not self.root:
            argv = self.launcher.holder(self.run / "door")
        try:
            helpers.ensure(
                self.holder_lock, argv, self.log("namespace"), clean_environment(), check=lambda _: self._sleeper()
            )
        except HikubeError as e:
            found, _ = (None, "") if self.root else userns.find()
            if found and found is not self._launcher:
                self._launcher = found  # what was found before is not so any more
                return self._begin(range)
            fix = "hikube-local doctor says what this host can do"
            raise HikubeError("HK602", "no network namespace could be made", e.why, fix) from None
        pid = self._sleeper()
        if pid is None:
            raise HikubeError("HK602", "the network namespace disappeared right after it was created")
        helpers.name(self.holder_lock, pid)
        ops: list[dict[str, Any]] = []
        if self.root:
            ops += [{"run": ["mount", *words]} for words in mounts.words(self.layout, qemu_ids.shared())]
        ops += [
            {"run": ["ip", "link", "set", "lo", "up"]},
            {"write": "/proc/sys/net/ipv4/ip_forward", "text": "1"},
            {"write": "/proc/sys/net/ipv4/ip_unprivileged_port_start", "text": "0"},
            {"write": f"{SYS6}/disable_ipv6", "text": "0" if range.v6 else "1", "may_fail": not range.v6},
            *([{"write": f"{SYS6}/forwarding", "text": "1"}] if range.v6 else []),
            {"write": "/proc/sys/net/bridge/bridge-nf-call-iptables", "text": "0", "may_fail": True},
            {"run": ["nft", "-f", "-"], "input": firewall.ruleset((), range)},
        ]
        self.batch(pid, ops)
        self.note_ready(pid)
        if not self.root:  # so that the next command need not try again how it is done
            files.make_folder(self.layout.cache)
            files.write_json(self.layout.cache / PROVED, {"boot": boot_id(), "door": self.launcher})
        return pid

    def show_kvm(self) -> None:
        """A /dev/kvm that the trial found useless is hidden from libvirt: a machine that is to have it all the same sees it."""
        pid = self.holder() if self.root else None
        if pid is None:
            return
        rows = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
        # Ours alone: in a container the device itself may be a mount.
        if any(row[4] == "/dev/kvm" and row[3].endswith("/no-kvm") for row in rows):
            self.batch(pid, [{"run": ["umount", "/dev/kvm"]}])

    def _sleeper(self) -> int | None:
        """The process that sleeps inside; rootlesskit, through which it may have been started, stays outside."""
        ours = os.stat("/proc/self/ns/net").st_ino
        for pid in helpers.holders(self.holder_lock):
            with contextlib.suppress(OSError):
                if helpers.runs(pid, "sleep") and os.stat(f"/proc/{pid}/ns/net").st_ino != ours:
                    return pid
        return None

    @contextlib.contextmanager
    def dial(self, ip: str, port: int) -> Iterator[list[str]]:
        """The words of a program that carries its standard input and output to a TCP port of a machine inside."""
        if (pid := self.holder()) is None:
            raise HikubeError("HK805", "the network is not up", fix="hikube-local up starts it again")
        yield self.enter_words(pid, "connect", ip, str(port))

    # the end

    def finish(self) -> None:
        """End every helper: the last machine is gone."""
        for lock in sorted(self.run.glob("dnsmasq-*.lock")):
            helpers.end(lock)
        self.daemon.end()
        self.egress.end()
        helpers.end(self.holder_lock)
        (self.run / "ready.json").unlink(missing_ok=True)
