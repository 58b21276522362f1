"""The guest's agent as a box has it: a question is data for one of our verbs there, since the API has no words for it."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hikube_local.api.objects import Object
from hikube_local.backends.capabilities import Agents, GuestAgent
from hikube_local.backends.remote.api import Api
from hikube_local.backends.remote.backend import Remote
from hikube_local.backends.remote.link import Link
from hikube_local.errors import HikubeError
from hikube_local.text import sanitize

PATIENCE = 120.0  # seconds for one question


class OnBox(Remote, Agents):
    """A box's objects: as over the API, and the agents of its guests."""

    def __init__(self, link: Link, api: Api, words: Sequence[str], folder: Callable[[], Path], kept: Path) -> None:
        super().__init__(api, words, folder, kept)
        self.link = link

    def agent(self, obj: Object, slowness: float = 1.0) -> GuestAgent:
        return BoxAgent(self.link, obj)


class BoxAgent:
    """The agent of one machine."""

    def __init__(self, link: Link, obj: Object) -> None:
        self._link, self._obj = link, obj
        self._connected: bool | None = None

    def _ask(self, call: str, **arguments: Any) -> Any:
        wanted = {"namespace": self._obj.namespace, "name": self._obj.name, "call": call, "arguments": arguments}
        argv = self._link.argv("agent")
        asked = json.dumps(wanted).encode() + b"\n"
        try:
            done = subprocess.run(
                argv, input=asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=PATIENCE
            )
            value = json.loads(done.stdout)
            if "error" in value:
                row = value["error"]
                code, what, why, fix = (sanitize(str(row[n]))[:600] for n in ("code", "what", "why", "fix"))
                raise HikubeError(code, what, why, fix)
            return value["answer"]
        except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
            raise HikubeError("HK821", f"{self._link.host} did not answer about {self._obj.name}") from None

    def connected(self) -> bool:
        if self._connected is None:
            self._connected = bool(self._ask("connected"))
        return self._connected

    def may_run(self) -> bool:
        return False  # commands go over ssh

    def call(self, command: str, timeout: int = 5, **arguments: Any) -> Any:
        return None

    def run(self, command: str, timeout: float = 60.0, input: bytes = b"") -> tuple[int, bytes, bytes]:
        raise HikubeError("HK825", "commands in a guest of another machine go over ssh")

    def read(self, path: str, most: int = 65536, end: bool = False) -> bytes | None:
        answer = self._ask("read", path=path, most=most)
        return None if answer is None else base64.b64decode(answer)

    def ssh_keys(self, user: str) -> list[str] | None:
        answer = self._ask("ssh_keys", user=user)
        return None if answer is None else [str(key) for key in answer]

    def add_ssh_key(self, user: str, key: str) -> None:
        self._ask("add_ssh_key", user=user, key=key)


def answered(agent: GuestAgent | None, call: str, arguments: dict[str, Any]) -> Any:
    """On the box: what its guest's agent says. These questions and no others."""
    if agent is None or not agent.connected():
        return False if call == "connected" else None
    match call:
        case "connected":
            return True
        case "read":
            raw = agent.read(str(arguments["path"]), int(arguments["most"]))
            return None if raw is None else base64.b64encode(raw).decode()
        case "ssh_keys":
            return agent.ssh_keys(str(arguments["user"]))
        case "add_ssh_key":
            agent.add_ssh_key(str(arguments["user"]), str(arguments["key"]))
            return True
    raise HikubeError("HK810", f"{call[:40]!r} is no question for an agent")
