"""The guest agent of a running machine. Whatever it answers comes from the guest: data, never trusted."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from typing import Any

from hikube_local.backends.capabilities import MOST
from hikube_local.backends.qemu import libvirt
from hikube_local.errors import HikubeError

ANSWER = 5  # seconds for one answer
SOONEST, LATEST = 0.005, 0.2  # seconds between two looks at a command: each costs an emulated guest some


class Agent:
    """Calls to one agent; a call that gets no answer is None. `slowness` stretches what commands may take, and how long it is
    waited for an answer on which it depends whether there are any."""

    def __init__(self, dom: Any, slowness: float = 1.0) -> None:
        self.dom, self.slowness = dom, slowness
        self._patient = max(ANSWER, round(ANSWER * slowness))

    def connected(self) -> bool:
        return "state='connected'" in self._channel()

    def _channel(self) -> str:
        with contextlib.suppress(Exception):
            xml = self.dom.XMLDesc(0)
            at = xml.find("org.qemu.guest_agent.0")
            return str(xml[at : at + 120])
        return ""

    def call(self, command: str, timeout: int = ANSWER, **arguments: Any) -> Any:
        import libvirt_qemu

        lv = libvirt.module()
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        try:
            answer = libvirt_qemu.qemuAgentCommand(self.dom, json.dumps(request), timeout, 0)
            return json.loads(answer).get("return")
        except (lv.libvirtError, ValueError, AttributeError, RecursionError):
            return None

    def read(self, path: str, most: int = 65536, end: bool = False) -> bytes | None:
        """A file of the guest, at most `most` bytes: of a longer one the first, or the last."""
        handle = self.call("guest-file-open", path=path, mode="r")
        if not isinstance(handle, int):
            return None
        try:
            if end:  # refused where the file is shorter, which is read from its first byte then
                self.call("guest-file-seek", handle=handle, offset=-most, whence="end")
            answer = self.call("guest-file-read", handle=handle, count=most)
        finally:
            self.call("guest-file-close", handle=handle)
        try:
            return base64.b64decode(answer["buf-b64"])[:most]
        except (TypeError, KeyError, ValueError):
            return None

    def may_run(self) -> bool:
        """Whether the image has an agent that runs commands (the RHEL family's forbids it)."""
        if not self.connected():
            return False
        info = self.call("guest-info", timeout=self._patient)
        commands = info.get("supported_commands", []) if isinstance(info, dict) else []
        if not isinstance(commands, list):
            return False
        return any(isinstance(c, dict) and c.get("name") == "guest-exec" and c.get("enabled") for c in commands)

    def ssh_keys(self, user: str) -> list[str] | None:
        """The keys that let this user in; None when the guest does not say."""
        try:
            return [str(line) for line in self.dom.authorizedSSHKeysGet(user) or []]
        except libvirt.module().libvirtError:
            return None

    def add_ssh_key(self, user: str, key: str) -> None:
        """HK801 where the guest refuses."""
        lv = libvirt.module()
        try:
            self.dom.authorizedSSHKeysSet(user, [key], lv.VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_APPEND)
        except lv.libvirtError as e:
            raise libvirt.translated(e, f"the guest agent did not take an SSH key for {user}") from None

    def run(self, command: str, timeout: float = 60.0, input: bytes = b"") -> tuple[int, bytes, bytes]:
        """(exit code, stdout, stderr) of a line for the guest's shell; HK806 when it cannot be run or does not end."""
        more: dict[str, Any] = {"capture-output": True}
        if input:
            more["input-data"] = base64.b64encode(input).decode()
        started = self.call("guest-exec", self._patient, path="/bin/sh", arg=["-c", command], **more)
        if started is None and self.call("guest-ping") is None:
            raise HikubeError("HK806", f"the guest agent did not answer within {self._patient} s")
        if not isinstance(started, dict) or not isinstance(started.get("pid"), int):
            raise HikubeError(
                "HK806", "the guest agent runs no commands", fix="use an image whose agent allows guest-exec"
            )
        begin, limit, lost = time.monotonic(), timeout * self.slowness, 0
        while (spent := time.monotonic() - begin) < limit:
            time.sleep(min(max(spent / 10, SOONEST), LATEST))
            state = self.call("guest-exec-status", pid=started["pid"])
            lost = lost + 1 if state is None and self.call("guest-ping") is not None else 0
            if lost > 2:  # told once, and lost: over libvirt's bound, or come after its time
                what = f"the answer to `{command[:60]}` was lost"
                raise HikubeError("HK806", what, fix=f"at most {MOST / 1e6:.1f} MB of output come through the agent")
            if isinstance(state, dict) and state.get("exited"):
                out, err = (_decoded(state.get(k)) for k in ("out-data", "err-data"))
                code = state.get("exitcode")
                signal = state.get("signal")
                died = 128 + signal if isinstance(signal, int) else 255
                return code if isinstance(code, int) else died, out, err
        raise HikubeError("HK806", f"`{command[:60]}` did not end within {limit:.0f} s in the guest")


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text or "")[:MOST]
    except (TypeError, ValueError):
        return b""
