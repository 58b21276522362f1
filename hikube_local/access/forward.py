"""Forwards that live as long as their command: a listener on the host, each connection carried inside by a child."""

from __future__ import annotations

import contextlib
import selectors
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from hikube_local import log, sockets
from hikube_local.errors import HikubeError
from hikube_local.run import clean_environment
from hikube_local.text import one_line

# ("unix", path), the words of a child that carries its standard input and output, or who carries the connection itself
Target = tuple[str, str] | list[str] | Callable[[socket.socket], None]


def listen(address: str, port: int) -> socket.socket:
    """A TCP listener on the host."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        s.bind((address, port))
    except OSError as e:
        s.close()
        raise HikubeError(
            "HK806", f"{address}:{port} cannot be bound: {e.strerror}", fix="name another local port: LOCAL:REMOTE"
        ) from None
    s.listen(64)
    return s


Say = Callable[[str], None]


def serve(listeners: dict[socket.socket, Target], say: Say = lambda text: None) -> None:
    """Accept until interrupted; each connection is told, and one that finds nobody on the other side."""
    with selectors.DefaultSelector() as selector:
        for s in listeners:
            selector.register(s, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                listener = key.fileobj
                assert isinstance(listener, socket.socket)
                connection, _ = listener.accept()
                say(f"Handling connection for {listener.getsockname()[1]}")
                threading.Thread(target=_carry, args=(connection, listeners[listener], say), daemon=True).start()


def _carry(connection: socket.socket, target: Target, say: Say) -> None:
    with contextlib.suppress(OSError), connection:
        if isinstance(target, list):
            # The child gets the connection itself as its standard input and output: nothing is copied here.
            fd, env = connection.fileno(), clean_environment()
            log.started(target)
            done = subprocess.run(target, stdin=fd, stdout=fd, stderr=subprocess.PIPE, env=env)
            if done.returncode and done.stderr:
                say(one_line(done.stderr.decode("utf-8", "replace"))[:200])
            return
        if callable(target):
            try:
                target(connection)
            except HikubeError as e:
                say(e.what)
            return
        with sockets.connect(Path(target[1])) as other:
            both(connection, other)


def both(a: socket.socket, b: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(a, selectors.EVENT_READ, b)
        selector.register(b, selectors.EVENT_READ, a)
        while True:
            for key, _ in selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                block = source.recv(65536)
                if not block:
                    return
                key.data.sendall(block)
