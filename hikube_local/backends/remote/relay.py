"""A stream of the API's, carried to this process's standard input and output, or to whoever connects to a socket here."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from hikube_local import osdep, sockets
from hikube_local.kubeclient.websocket import Socket

BLOCK = 1 << 16


def over_stdio(stream: Socket) -> None:
    """Until one of both sides ends."""
    osdep.bytes_as_they_are()

    def into() -> None:
        with contextlib.suppress(OSError):
            while block := os.read(0, BLOCK):
                stream.send(block)
        stream.close()

    threading.Thread(target=into, daemon=True).start()
    with contextlib.suppress(OSError):
        while block := stream.receive():
            left = memoryview(block)
            while left:
                left = left[os.write(1, left) :]


def on_socket(path: Path, carry: Callable[[socket.socket], None]) -> None:
    """Listen at this path, for its owner alone, as long as the process lives; each connection is handed to `carry`."""
    listener = sockets.listen(path)

    def accepting() -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                threading.Thread(target=_carry, args=(here, path, carry), daemon=True).start()

    threading.Thread(target=accepting, daemon=True).start()


def _carry(here: socket.socket, path: Path, carry: Callable[[socket.socket], None]) -> None:
    with contextlib.suppress(OSError), here:
        if sockets.is_let_in(here, path):
            carry(here)


def between(here: socket.socket, stream: Socket) -> None:
    """Until one of both sides ends."""

    def into() -> None:
        with contextlib.suppress(OSError):
            while block := here.recv(BLOCK):
                stream.send(block)
        stream.close()

    threading.Thread(target=into, daemon=True).start()
    with contextlib.suppress(OSError):
        while block := stream.receive():
            here.sendall(block)
    with contextlib.suppress(OSError):
        here.shutdown(socket.SHUT_RDWR)
