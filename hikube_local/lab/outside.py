"""`http` checks: a machine's port asked as somebody outside of its guest asks, through the way in of whoever carries it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from hikube_local.errors import HikubeError
from hikube_local.text import sanitize

MOST = 1 << 20  # bytes of an answer


def http(
    connector: Callable[[], AbstractContextManager[list[str]]], name: str, port: int, path: str, patience: float
) -> tuple[int, str]:
    """(status, body), or (0, why not). `connector` as Dials.connector; `patience`: seconds."""
    try:
        with connector() as words, _pipe(words, patience) as stream:
            end = time.monotonic() + patience
            request = f"GET {path} HTTP/1.0\r\nHost: {name}\r\nConnection: close\r\n\r\n"
            stream.sendall(request.encode())
            raw = b""
            while len(raw) < MOST and (block := stream.recv(65536)):
                raw += block
                if time.monotonic() > end:
                    return 0, f"port {port}: the response did not end within {patience:.0f} s"
    except (OSError, HikubeError) as e:
        return 0, f"nobody answers on port {port}: {getattr(e, 'strerror', None) or e}"
    head, _, body = raw.partition(b"\r\n\r\n")
    status = head.split(None, 2)
    if len(status) < 2 or not status[1].isdigit():
        return 0, f"port {port} does not speak HTTP: {sanitize(raw[:60])!r}" if raw else f"port {port} gave no answer"
    return int(status[1]), sanitize(body)


@contextlib.contextmanager
def _pipe(words: list[str], patience: float) -> Iterator[socket.socket]:
    """A program's standard input and output as a socket."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(patience)
        process = subprocess.Popen(words, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL)
        theirs.close()
        try:
            yield ours
        finally:
            process.kill()
            process.wait()
