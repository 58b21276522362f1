"""The way to a box: the system's own ssh with its configuration, agents and jump hosts; one connection for all, kept for a
while. Through it goes a socket that leads to the box's endpoint; nothing listens on the box but that socket.

Every command that the box's shell gets is a constant: what a user says goes in as data.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from hikube_local import __version__, files, log, mux
from hikube_local.backends.remote import relay
from hikube_local.errors import HikubeError
from hikube_local.locks import locked
from hikube_local.records import dataclass
from hikube_local.run import find, left_behind
from hikube_local.text import one_line, sanitize

PROTOCOL = 2  # of `box hello` and `box run`
KEPT = "10m"  # the connection, after its last use
CONNECT = 20  # seconds
PATIENCE = 60.0  # seconds for the box to answer
# pipx and pip put the program where a shell that is no login shell does not look.
PROGRAM = "sh -c 'PATH=\"$HOME/.local/bin:/usr/local/bin:$PATH\" HIKUBE_LOCAL_CONTEXT=local exec hikube-local --context local box {}'"
_PATH = re.compile(r"/[A-Za-z0-9_./-]{1,106}")
VERBS = ("hello", "run", "dial", "agent")


@dataclass(frozen=True, slots=True)
class Hello:
    """What the box says of itself. `socket`: its endpoint's, there; `token`: what that wants."""

    version: str
    socket: str
    token: str
    namespace: str = "default"


class Link:
    """One box. `host`: [USER@]HOST[:PORT]; `folder`: short, ours alone."""

    def __init__(self, host: str, folder: Path) -> None:
        self.host, self._folder = host, folder
        # ssh does not ask whether a connection leads to the host that is named: the name of its socket says so.
        tag = hashlib.sha256(host.encode()).hexdigest()[:8]
        self.control, self.local, self._kept = folder / f"m{tag}", folder / f"s{tag}", folder / f"hello-{tag}.json"

    def _ssh(self, *words: str, ask: bool = False) -> list[str]:
        options = [
            f"ControlPath={self.control}",
            f"ConnectTimeout={CONNECT}",
            "ServerAliveInterval=5",  # a peer that falls silent is noticed by nothing else
            "ServerAliveCountMax=3",
            "StreamLocalBindUnlink=yes",
            *([] if ask else ["BatchMode=yes"]),
        ]
        return [find("ssh"), *(w for o in options for w in ("-o", o)), *words, f"ssh://{self.host}"]

    # the connection

    def open(self, ask: bool = False) -> None:
        """A connection that the commands after this one share; HK821 with ssh's own words. `ask`: on a terminal ssh may ask."""
        with locked(self._folder / "lock"):
            if mux.is_open(self.control):
                return
            code, words = left_behind(
                self._ssh("-f", "-N", "-M", "-o", f"ControlPersist={KEPT}", ask=ask),
                ask,
                patience=None if ask else PATIENCE,
            )
            if code:
                fix = f"try it yourself: ssh ssh://{self.host}"
                raise HikubeError("HK821", f"{self.host} cannot be reached over ssh", words[:600], fix)

    def close(self) -> None:
        """End the connection, and what goes through it."""
        mux.end(self.control)
        self._kept.unlink(missing_ok=True)

    def argv(self, verb: str) -> list[str]:
        """The words that run one of our verbs on the box."""
        assert verb in VERBS
        return [*self._ssh("-T", "-o", "ControlMaster=no"), PROGRAM.format(verb)]

    # the endpoint

    def reach(self) -> Hello:
        """The box's endpoint is at `local`, from now on. What was found out before is taken while it works."""
        if (kept := self._remembered()) and self._answers():
            return kept
        self.open()
        hello = self.hello()
        if self._forward(hello):
            files.write_json(self._kept, asdict(hello))
        return hello

    def _remembered(self) -> Hello | None:
        row = files.read_json(self._kept)
        with contextlib.suppress(TypeError):
            return Hello(**row)
        return None

    def hello(self) -> Hello:
        """Its endpoint, started where none runs."""
        argv = self.argv("hello")
        begin = time.monotonic()
        log.started(argv)
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise HikubeError("HK821", f"{self.host} did not answer in {PATIENCE:.0f} s") from None
        log.ended(argv, done.returncode, begin)
        said = one_line(sanitize(done.stderr[-2000:]))
        if done.returncode == 127:
            fix = f"install it there: ssh ssh://{self.host}, then as docs/installation.md says"
            raise HikubeError("HK821", f"hikube-local is not installed on {self.host}", said, fix)
        try:
            value = json.loads(done.stdout)
            protocol = value["protocol"]
        except (ValueError, KeyError, TypeError):
            fix = f"try it yourself: ssh ssh://{self.host} hikube-local version"
            raise HikubeError("HK821", f"{self.host} does not answer as hikube-local does", said, fix) from None
        if protocol != PROTOCOL:
            what = f"{self.host} has hikube-local {value.get('version')}, which this one ({__version__}) does not understand"
            older = isinstance(protocol, int) and protocol < PROTOCOL
            fix = (
                f"upgrade it there: ssh ssh://{self.host} pipx upgrade hikube-local"
                if older
                else "upgrade this one: pipx upgrade hikube-local"
            )
            raise HikubeError("HK821", what, fix=fix)
        if "error" in value:
            row = value["error"]
            raise HikubeError(str(row["code"]), f"{self.host}: {row['what']}", str(row["why"]), str(row["fix"]))
        found = Hello(*(str(value.get(n, "")) for n in ("version", "socket", "token", "namespace")))
        if not _PATH.fullmatch(found.socket):  # ssh would put variables of this machine into it
            raise HikubeError(
                "HK821", f"{self.host} does not answer as hikube-local does", f"socket {found.socket[:80]!r}"
            )
        return found

    def _forward(self, hello: Hello) -> bool:
        """Whether other commands find the socket, too. Where the box's sshd forwards no sockets, each connection is a command of
        its own: slow, and it works."""
        way = f"{self.local}:{hello.socket}"
        for what in ("cancel", "forward"):  # one that ssh believes to be there makes no socket again
            subprocess.run(self._ssh("-O", what, "-L", way), capture_output=True)
        if not self._answers():
            self.local.unlink(missing_ok=True)
            relay.on_socket(self.local, self._dial)
            if not self._answers():
                raise HikubeError(
                    "HK821", f"the endpoint on {self.host} cannot be reached", fix=f"ssh {self.host} hikube-local serve"
                )
            return False
        return True

    def _dial(self, here: socket.socket) -> None:
        subprocess.run(self.argv("dial"), stdin=here.fileno(), stdout=here.fileno(), stderr=subprocess.DEVNULL)

    def _answers(self) -> bool:
        """With forwarding switched off at the server ssh says that all is well, and only a request shows it."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(CONNECT)
            probe.connect(str(self.local))
            probe.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return probe.recv(64).startswith(b"HTTP/1.1 200")
        return False
