"""The open ports of a box's machines, on this machine's own loopback: one process for each context, as long as there are any.

A port stands at the address that it has on the box (127.77.x.y), where this system has such addresses and nobody else sits
there; on macOS, which has 127.0.0.1 alone, at a port of its own that is remembered. Each connection is a stream of the API.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import subprocess
import threading
import time
from typing import Any

from hikube_local import contexts, files, locks, paths
from hikube_local.api.objects import INSTANCE, Key
from hikube_local.backends.remote.agent import OnBox
from hikube_local.backends.remote.backend import Remote
from hikube_local.engine.elsewhere import Elsewhere
from hikube_local.errors import HikubeError
from hikube_local.paths import Layout
from hikube_local.render.addresses import LOOPBACK
from hikube_local.run import program

FIRST_LOOK = 5.0  # seconds
MOST = 500  # listeners
FIRST = 20000  # of the remembered ports
EVERY = 2.0  # seconds between two looks at the machines
ALONE = 60.0  # seconds without a machine that has ports, then it ends
SILENT = 600.0  # seconds without an answer of the box, then it ends
_LOCK, _PORTS = "local-ports", "ports.json"
Spot = tuple[str, str, str, int]  # namespace, name, address on the box, port of the machine


def shown(layout: Layout) -> dict[str, list[Any]]:
    """Where ports are now: "namespace/name/port" to [address, port]; empty while nobody holds them."""
    if locks.holder(layout.runtime / _LOCK) is None:
        return {}
    row = files.read_json(layout.runtime / _PORTS)
    return row if isinstance(row, dict) else {}


def start(session: Elsewhere) -> None:
    """Have them held, from now on; a moment is waited for the first look."""
    path = session.layout.runtime / _PORTS
    if locks.holder(session.layout.runtime / _LOCK) is not None:
        return
    argv = [*program(), *session.flags, "box", "ports"]
    quiet = subprocess.DEVNULL
    started = subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    end = time.monotonic() + FIRST_LOOK
    while not path.exists() and started.poll() is None and time.monotonic() < end:
        time.sleep(0.05)


def hold(session: Elsewhere) -> None:
    """Listen, and follow the machines, until there are none any more or the box is gone."""
    with contextlib.suppress(HikubeError), locks.locked(session.layout.runtime / _LOCK, patience=1.0):
        Ports(session).run()


class Ports:
    """The listeners of one context."""

    def __init__(self, session: Elsewhere) -> None:
        self.session = session
        self._own = paths.layout()
        self._path = session.layout.runtime / _PORTS
        self._kept = session.layout.state / _PORTS  # the ports of its own that a spot has had
        self._open: dict[Spot, socket.socket] = {}

    def run(self) -> None:
        alone = answered = time.monotonic()
        try:
            while time.monotonic() - alone < ALONE and time.monotonic() - answered < SILENT and self._known():
                try:
                    wanted = self._wanted()
                    answered = time.monotonic()
                    if wanted:
                        alone = answered
                    self._bring(wanted)
                except HikubeError:  # the link was cut: machines may be there all the same
                    alone = time.monotonic()
                    if isinstance(self.session.remote, OnBox):
                        with contextlib.suppress(HikubeError, OSError):
                            self.session.remote.link.reach()
                time.sleep(EVERY)
        finally:
            self._bring(set())
            self._path.unlink(missing_ok=True)

    def _known(self) -> bool:
        """`context rm` ends it."""
        return self.session.context.once or self.session.context.name in contexts.known(self._own)

    def _wanted(self) -> set[Spot]:
        self.session.api.forget()
        found: set[Spot] = set()
        for obj in self.session.store.objects(INSTANCE):
            for row in self.session.remote.status(obj).get("access") or []:
                if row.get("protocol", "TCP") == "TCP" and _port(row.get("port")) and len(found) < MOST:
                    found.add((obj.namespace, obj.name, str(row.get("address")), int(row["port"])))
        return found

    def _bring(self, wanted: set[Spot]) -> None:
        before = dict(self._open)
        for spot in self._open.keys() - wanted:
            listener = self._open.pop(spot)
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # whoever accepts is woken: closing alone leaves it listening
            listener.close()
        for spot in sorted(wanted - self._open.keys()):
            if made := self._listener(spot):
                self._open[spot] = made
                threading.Thread(target=self._accept, args=(spot, made), daemon=True).start()
        if before != self._open or not self._path.exists():
            row = {f"{ns}/{name}/{port}": list(s.getsockname()) for (ns, name, _, port), s in self._open.items()}
            files.write_json(self._path, row)

    def _listener(self, spot: Spot) -> socket.socket | None:
        """At the box's address, else at the port that this spot has had, else at the next free one."""
        namespace, name, address, port = spot
        row = files.read_json(self._kept)
        kept: dict[str, int] = row if isinstance(row, dict) else {}
        word = f"{namespace}/{name}/{port}"
        used = set(kept.values())
        own = [kept[word]] if word in kept else []
        after = (p for p in range(FIRST, FIRST + 2000) if p not in used)
        tries = [(address, port)] if _ours(address) else []
        for where in (*tries, *(("127.0.0.1", p) for p in own), *(("127.0.0.1", p) for p in after)):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(where)
                listener.listen(64)
            except OSError:
                listener.close()
                continue
            if where[0] == "127.0.0.1":
                files.write_json(self._kept, {**kept, word: where[1]})
            return listener
        return None

    def _accept(self, spot: Spot, listener: socket.socket) -> None:
        key, remote = Key(INSTANCE, *spot[:2]), self.session.remote
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                threading.Thread(target=_carry, args=(here, remote, key, spot[3]), daemon=True).start()


def _ours(address: str) -> bool:
    """One of the addresses that machines have on a box: no other is listened on because a box says so."""
    try:
        return ipaddress.ip_address(address) in LOOPBACK
    except ValueError:
        return False


def _port(value: Any) -> bool:
    return isinstance(value, int) and 0 < value < 65536


def _carry(here: socket.socket, remote: Remote, key: Key, port: int) -> None:
    with here, contextlib.suppress(HikubeError, OSError):
        remote.carry_socket(key, port, here)
