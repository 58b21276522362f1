"""The one carrier of a state root: a namespace, and in it libvirtd, dnsmasq and the way out.

As a user a user and network namespace, as root a network and mount namespace. The host's interfaces, routes, firewall
and its own libvirt are never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

from hikube_local import files, log
from hikube_local.backends.qemu import helpers, mounts, owners
from hikube_local.backends.qemu.daemon import Daemon
from hikube_local.backends.qemu.wayout import WayOut
from hikube_local.errors import HikubeError
from hikube_local.host import door
from hikube_local.host.door import Door
from hikube_local.paths import Layout, make_runtime
from hikube_local.render import firewall
from hikube_local.render.addresses import Range
from hikube_local.run import clean_environment, find

ENTER = Path(__file__).with_name("enter.py")
SYS6 = "/proc/sys/net/ipv6/conf/all"


class Carrier:
    """Starts, finds and ends what carries the machines of one state root."""

    alone = False

    def __init__(self, layout: Layout, door: Door = Door.UNSHARE) -> None:
        self.layout = layout
        self._door = door
        self.run = layout.runtime
        self.root = layout.root
        self.out = WayOut(self)
        self.daemon = Daemon(self)

    # where things are

    @property
    def holder_lock(self) -> Path:
        return self.run / "ns.lock"

    @property
    def net(self) -> Path:
        return self.run / "net"

    def log(self, name: str) -> Path:
        return self.run / "log" / f"{name}.log"

    def seen(self, path: Path) -> str:
        """A path of ours as QEMU sees it: as root below the runtime folder, which QEMU's user may enter."""
        if self.root:
            for real, shown in ((self.layout.state, "state"), (self.layout.cache, "cache")):
                with contextlib.suppress(ValueError):
                    return str(self.run / shown / path.relative_to(real))
        return str(path)

    def sockets(self, tap: str) -> Path:
        return self.run / "m" / tap

    def make_sockets(self, tap: str, owner: owners.Ids | None) -> Path:
        folder = files.make_folder(self.sockets(tap), self.layout.mode)
        if owner:
            os.chown(folder, owner[0], -1)
            os.chmod(folder, 0o700)
            # QEMU itself opens the socket of its TPM, in a folder that libvirt gives to its own user and group.
            owners.may_enter(files.make_folder(self.run / "libvirt" / "qemu" / "swtpm", 0o770), owner[0])
        return folder

    def owner(self, uuid: str) -> owners.Ids | None:
        """User and group of this machine's QEMU; a user's guests are all the user's own."""
        return owners.of_machine(self.layout.id, uuid, owners.few()) if self.root else None

    # the namespace

    @property
    def door(self) -> Door:
        """How a user's namespace was made, or would be."""
        return Door((files.read_json(self.run / "ready.json") or {}).get("door", self._door))

    def holder(self) -> int | None:
        """The pid that keeps the namespace, if it is up and wholly set up."""
        pid = helpers.pid_of(self.holder_lock)
        return pid if pid is not None and self._is_ours(pid) else None

    def _is_ours(self, pid: int) -> bool:
        """Whether the process sits in the namespace that was wholly set up."""
        return (files.read_json(self.run / "ready.json") or {}).get("net") == _identity(pid)

    def _ready(self, pid: int) -> None:
        """Note the namespace, under a name of its own: the kernel gives the same inode again and again."""
        token = (files.read_json(self.run / "ready.json") or {}).get("token") or secrets.token_hex(8)
        files.write_json(self.run / "ready.json", {"net": _identity(pid), "token": token, "door": self.door})

    def lives(self) -> bool:
        """Whether the namespace is there, or something in it from which it can be taken up again."""
        return self.holder() is not None or self._anchor() is not None

    def id(self) -> str | None:
        """What names this namespace and no other one: taps belong to it."""
        row = files.read_json(self.run / "ready.json") if self.holder() else None
        return row["token"] if row else None

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
            self.out.ensure(pid, range)
        self.daemon.ensure(pid)
        return pid

    def _clear(self) -> None:
        """Nothing of a namespace that went may be taken for one of the new one's."""
        for lock in (*self.run.glob("dnsmasq-*.lock"), self.out.lock, self.run / "virtlogd.lock"):
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
                if "/qemu-system" in os.readlink(f"/proc/{pid}/exe") and self._is_ours(pid):
                    return pid
        return None

    def _adopt(self, anchor: int) -> int:
        argv = self.inside(anchor, "sleep", "infinity")
        pid, _ = helpers.ensure(
            self.holder_lock, argv, self.log("namespace"), clean_environment(), check=lambda p: helpers.runs(p, "sleep")
        )
        self._ready(pid)
        return pid

    def _begin(self, range: Range) -> int:
        argv = ["unshare", "-m", "-n", "--propagation", "private", "sleep", "infinity"]
        if not self.root:
            argv = self.door.holder(self.run / "door")
        try:
            helpers.ensure(
                self.holder_lock, argv, self.log("namespace"), clean_environment(), check=lambda _: self._sleeper()
            )
        except HikubeError as e:
            found, _ = (None, "") if self.root else door.find()
            if found and found is not self._door:
                self._door = found  # what was found before is not so any more
                return self._begin(range)
            fix = "hikube-local doctor says what this host can do"
            raise HikubeError("HK602", "no network namespace could be made", e.why, fix) from None
        pid = self._sleeper()
        if pid is None:
            raise HikubeError("HK602", "the network namespace went as soon as it was made")
        helpers.name(self.holder_lock, pid)
        ops: list[dict[str, Any]] = []
        if self.root:
            ops += [{"run": ["mount", *words]} for words in mounts.words(self.layout, owners.shared())]
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
        self._ready(pid)
        return pid

    def _sleeper(self) -> int | None:
        """The process that sleeps inside; rootlesskit, through which it may have been started, stays outside."""
        ours = os.stat("/proc/self/ns/net").st_ino
        for pid in helpers.holders(self.holder_lock):
            with contextlib.suppress(OSError):
                if helpers.runs(pid, "sleep") and os.stat(f"/proc/{pid}/ns/net").st_ino != ours:
                    return pid
        return None

    def batch(self, pid: int, ops: list[dict[str, Any]]) -> list[str]:
        """Carry out operations inside; the first that fails is an error that names it."""
        for op in ops:
            if "run" in op:
                op["run"] = [find(op["run"][0]), *op["run"][1:]]
        done = self.enter(pid, "batch", input=json.dumps(ops).encode())
        results = json.loads(done.stdout) if done.returncode == 0 else []
        if done.returncode:
            raise HikubeError(
                "HK803", "the namespace could not be entered", why=done.stderr.decode("utf-8", "replace")[-300:]
            )
        for op, result in zip(ops, results, strict=False):
            if words := op.get("run"):
                log.PROGRAMS.debug("in the namespace: %s (exit %s)", " ".join(map(str, words)), result["code"])
            if result["code"] and not op.get("may_fail"):
                words = " ".join(op.get("run") or ["write", op["write"]])
                raise HikubeError(
                    "HK803",
                    f"the tenant network could not be made: {words[:120]}",
                    why=result["out"][-300:],
                    fix="hikube-local doctor; hikube-local purge -A begins anew (disks stay)",
                )
        return [r["out"] for r in results]

    def enter(self, pid: int, *words: str, input: bytes) -> subprocess.CompletedProcess[bytes]:
        argv = self.enter_words(pid, *words)
        return subprocess.run(argv, input=input, capture_output=True, timeout=60, env=clean_environment(), cwd="/")

    def inside(self, pid: int, *words: str | Path) -> list[str | Path]:
        """The command line of a program that lives inside without capabilities."""
        return [*self.enter_words(pid, "inside"), find(str(words[0])), *words[1:]]

    @staticmethod
    def enter_words(pid: int, *words: str) -> list[str]:
        """The command line that goes inside."""
        return [sys.executable, "-I", "-S", str(ENTER), str(pid), *words]

    # the end

    def finish(self) -> None:
        """End every helper: the last machine is gone."""
        for lock in sorted(self.run.glob("dnsmasq-*.lock")):
            helpers.end(lock)
        self.daemon.end()
        for lock in (self.out.lock, self.holder_lock):
            helpers.end(lock)
        (self.run / "ready.json").unlink(missing_ok=True)


def _identity(pid: int) -> str:
    """The network namespace of a process, told apart from every other one that is there now, in this boot."""
    from hikube_local.host.facts import boot_id

    try:
        return f"{boot_id()[:8]}-{os.stat(f'/proc/{pid}/ns/net').st_ino}"
    except OSError:
        return ""


def add_bridge(name: str) -> dict[str, Any]:
    """The operation that makes a bridge inside, if it is not there yet."""
    words = ["ip", "link", "add", name, "type", "bridge", "stp_state", "0", "forward_delay", "0"]
    return {"run": words, "may_fail": True}
