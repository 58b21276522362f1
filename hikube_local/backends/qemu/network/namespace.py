"""The namespace of a state root: where its things are, who holds it open, and how a program gets inside."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from hikube_local import files, log
from hikube_local.backends.qemu import owners
from hikube_local.backends.qemu.network import helpers
from hikube_local.errors import HikubeError
from hikube_local.host import qemu_ids
from hikube_local.host.facts import boot_id
from hikube_local.host.userns import UsernsLauncher
from hikube_local.paths import Layout
from hikube_local.plan.steps import Forward
from hikube_local.render.addresses import Range
from hikube_local.run import clean_environment, find

ENTER = Path(__file__).with_name("enter.py")


class Egress(Protocol):
    """The way to the outside, and the forwards from the host's loopback. What is forwarded is asked of it, never remembered."""

    def runs(self) -> bool: ...

    def ensure(self, pid: int, range: Range) -> None: ...

    def forwards(self) -> list[dict[str, Any]]:
        """What is forwarded now, HK803 when nobody can say: [{id, proto, host_addr, host_port, guest_addr, guest_port}]."""
        ...

    def add(self, forward: Forward, ip: str) -> None: ...

    def remove(self, id: Any) -> None: ...

    def end(self) -> None: ...


class Namespace:
    """As root a network and mount namespace, as a user a user and network namespace; a sleeping process holds it open."""

    has_tenant_network = True

    def __init__(self, layout: Layout, launcher: UsernsLauncher = UsernsLauncher.UNSHARE) -> None:
        self.layout = layout
        self._launcher = launcher
        self.run = layout.runtime
        self.root = layout.root

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

    def make_sockets(self, tap: str, owner: qemu_ids.Ids | None) -> Path:
        folder = files.make_folder(self.sockets(tap), self.layout.mode)
        if owner:
            os.chown(folder, owner[0], -1)
            os.chmod(folder, 0o700)
            # QEMU itself opens the socket of its TPM, in a folder that libvirt gives to its own user and group.
            owners.may_enter(files.make_folder(self.run / "libvirt" / "qemu" / "swtpm", 0o770), owner[0])
        return folder

    def owner(self, uuid: str) -> qemu_ids.Ids | None:
        """User and group of this machine's QEMU; a user's guests are all the user's own."""
        return owners.of_machine(self.layout.id, uuid, owners.few()) if self.root else None

    # who holds it

    @property
    def launcher(self) -> UsernsLauncher:
        """How a user's namespace was made, or would be."""
        return UsernsLauncher((files.read_json(self.run / "ready.json") or {}).get("door", self._launcher))

    def holder(self) -> int | None:
        """The pid that keeps the namespace, if it is up and wholly set up."""
        pid = helpers.pid_of(self.holder_lock)
        return pid if pid is not None and self.is_ours(pid) else None

    def is_ours(self, pid: int) -> bool:
        """Whether the process sits in the namespace that was wholly set up."""
        return (files.read_json(self.run / "ready.json") or {}).get("net") == _identity(pid)

    def note_ready(self, pid: int) -> None:
        """Note the namespace, under a name of its own: the kernel gives the same inode again and again."""
        token = (files.read_json(self.run / "ready.json") or {}).get("token") or secrets.token_hex(8)
        files.write_json(self.run / "ready.json", {"net": _identity(pid), "token": token, "door": self.launcher})

    def id(self) -> str | None:
        """What names this namespace and no other one: taps belong to it."""
        row = files.read_json(self.run / "ready.json") if self.holder() else None
        return row["token"] if row else None

    # inside

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
                    fix="hikube-local doctor; hikube-local purge -A starts over (disks are kept)",
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


def _identity(pid: int) -> str:
    """The network namespace of a process, told apart from every other one that is there now, in this boot."""
    try:
        return f"{boot_id()[:8]}-{os.stat(f'/proc/{pid}/ns/net').st_ino}"
    except OSError:
        return ""


def add_bridge(name: str) -> dict[str, Any]:
    """The operation that makes a bridge inside, if it is not there yet."""
    words = ["ip", "link", "add", name, "type", "bridge", "stp_state", "0", "forward_delay", "0"]
    return {"run": words, "may_fail": True}
