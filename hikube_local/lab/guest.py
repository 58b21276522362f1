"""Ways to run commands in a guest that leave user-data, users and keys as they are, and testinfra's backend over them."""

from __future__ import annotations

import base64
import shlex
import time
from typing import Any, Protocol

from hikube_local.backends.qemu.libvirt import Agent
from hikube_local.errors import HikubeError

MOST = 4 << 20  # bytes of output that are kept


class Guest(Protocol):
    """Whoever runs commands in a guest."""

    def run(self, command: str, timeout: float = 60.0) -> tuple[int, bytes, bytes]:
        """(exit code, stdout, stderr) of a line for the guest's shell; HK806 when it cannot be run."""
        ...


def read(guest: Guest, path: str) -> bytes:
    """A file of the guest, of a long one its end; empty when there is none."""
    return guest.run(f"tail -c {MOST} {shlex.quote(path)} 2>/dev/null")[1]


class Agented:
    """Through the guest agent of a running machine."""

    def __init__(self, dom: Any, slowness: float = 1.0) -> None:
        self.agent, self.slowness = Agent(dom), slowness

    def may_run(self) -> bool:
        """Whether the image has an agent that runs commands (the RHEL family's forbids it)."""
        if not self.agent.connected():
            return False
        info = self.agent.call("guest-info")
        commands = info.get("supported_commands", []) if isinstance(info, dict) else []
        if not isinstance(commands, list):
            return False
        return any(isinstance(c, dict) and c.get("name") == "guest-exec" and c.get("enabled") for c in commands)

    def run(self, command: str, timeout: float = 60.0) -> tuple[int, bytes, bytes]:
        started = self.agent.call("guest-exec", path="/bin/sh", arg=["-c", command], **{"capture-output": True})
        if not isinstance(started, dict) or not isinstance(started.get("pid"), int):
            raise HikubeError(
                "HK806", "the guest agent runs no commands", fix="use an image whose agent allows guest-exec"
            )
        deadline = time.monotonic() + timeout * self.slowness
        while time.monotonic() < deadline:
            state = self.agent.call("guest-exec-status", pid=started["pid"])
            if isinstance(state, dict) and state.get("exited"):
                out, err = (_decoded(state.get(k)) for k in ("out-data", "err-data"))
                code = state.get("exitcode")
                signal = state.get("signal")
                died = 128 + signal if isinstance(signal, int) else 255
                return code if isinstance(code, int) else died, out, err
            time.sleep(0.05)
        raise HikubeError("HK806", f"`{command[:60]}` did not end within {timeout * self.slowness:.0f} s in the guest")


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text or "")[:MOST]
    except (TypeError, ValueError):
        return b""


def host(guest: Guest, name: str) -> Any:
    """The machine as testinfra's host: `host.service("nginx").is_running`."""
    try:
        import testinfra.host
        from testinfra.backend.base import BaseBackend
    except ImportError:
        fix = "pip install 'hikube-local[test]'"
        raise HikubeError("HK601", "checks need testinfra, which is not installed", fix=fix) from None

    class Backend(BaseBackend):
        NAME = "hikube-local"

        def __init__(self) -> None:
            super().__init__(name)

        def run(self, command: str, *args: str, **_: Any) -> Any:
            line = self.get_command(command, *args)
            code, out, err = guest.run(line)
            return self.result(code, self.encode(line), out, err)

    return testinfra.host.Host(Backend())
