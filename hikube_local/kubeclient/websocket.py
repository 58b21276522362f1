"""A websocket (RFC 6455) that carries bytes, as KubeVirt's subresources have it; as a client, over what the requests go through."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import socket
import ssl
import struct
import threading
from typing import Any, Self
from urllib.parse import urlsplit

from hikube_local import sockets
from hikube_local.errors import HikubeError
from hikube_local.kubeclient.client import CONNECT, Client, Refused, host, refusal
from hikube_local.kubeclient.login import Proof
from hikube_local.text import one_line

PROTOCOL = "plain.kubevirt.io"
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_CONTINUED, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_ALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))  # seconds, seconds, times
MOST_HEAD, MOST_FRAME = 64 << 10, 16 << 20  # bytes


class Socket:
    """Bytes both ways: `send` and `receive` may be called by two threads."""

    def __init__(self, raw: socket.socket, left: bytes) -> None:
        self._raw, self._left = raw, left
        self._sending = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self._frame(_BINARY, data)

    def receive(self) -> bytes:
        """The next bytes; empty when the other side has ended it."""
        while True:
            code, data = self._next()
            if code in (_BINARY, _TEXT, _CONTINUED):
                if data:
                    return data
            elif code == _PING:
                self._frame(_PONG, data)
            elif code == _CLOSE:
                self.close()
                return b""

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):
                self._frame(_CLOSE, struct.pack("!H", 1000))
            with contextlib.suppress(OSError):
                self._raw.shutdown(socket.SHUT_RDWR)
            self._raw.close()

    def _frame(self, code: int, data: bytes) -> None:
        """What a client sends is masked (5.3)."""
        n = len(data)
        head = bytes([0x80 | code])
        if n < 126:
            head += bytes([0x80 | n])
        elif n < 1 << 16:
            head += bytes([0x80 | 126]) + struct.pack("!H", n)
        else:
            head += bytes([0x80 | 127]) + struct.pack("!Q", n)
        mask = os.urandom(4)
        whole = int.from_bytes(data) ^ int.from_bytes((mask * (n // 4 + 1))[:n]) if n else 0
        with self._sending:
            self._raw.sendall(head + mask + whole.to_bytes(n))

    def _next(self) -> tuple[int, bytes]:
        try:
            first, second = self._exactly(2)
            n = second & 0x7F
            if n == 126:
                n = struct.unpack("!H", self._exactly(2))[0]
            elif n == 127:
                n = struct.unpack("!Q", self._exactly(8))[0]
            if n > MOST_FRAME or second & 0x80:
                return _CLOSE, b""
            return first & 0x0F, self._exactly(n)
        except (OSError, EOFError):
            return _CLOSE, b""

    def _exactly(self, n: int) -> bytes:
        while len(self._left) < n:
            block = self._raw.recv(1 << 16)
            if not block:
                raise EOFError
            self._left += block
        out, self._left = self._left[:n], self._left[n:]
        return out


def connect(client: Client, path: str) -> Socket:
    """The stream of this path; what the server refuses is told in its words."""
    refused: Proof | None = None
    while True:
        proof = client.logins.proof(refused)
        try:
            return _connect(client, path, proof)
        except Refused as e:
            if e.status != 401 or refused is not None or client.target.login.plugin is None:
                raise
        refused = proof


def _connect(client: Client, path: str, proof: Proof) -> Socket:
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    name, port = host(client.target.server) if client.socket is None else ("socket", 80)
    lines = [
        f"GET {urlsplit(client.base).path}{path} HTTP/1.1",
        f"Host: {name}:{port}" if client.socket is None else "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
        f"Sec-WebSocket-Protocol: {PROTOCOL}",
    ]
    if proof.token:
        lines.append(f"Authorization: Bearer {proof.token}")
    try:
        raw = _raw(client, name, port, proof)
        raw.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        head, left = _head(raw)
    except OSError as e:
        raise HikubeError("HK821", f"{client.target.server} cannot be reached", one_line(str(e))[:300]) from None
    status, headers = head
    if status != 101:
        body = left + _rest(raw, _number(headers.get("content-length", "")) - len(left))
        raw.close()
        raise refusal(status, _read_status(body), client.target)
    wanted = base64.b64encode(hashlib.sha1((key + _MAGIC).encode()).digest()).decode()
    if headers.get("sec-websocket-accept") != wanted:
        raw.close()
        raise HikubeError("HK822", f"{client.target.server} did not answer as a websocket does")
    raw.settimeout(None)
    if client.socket is None:  # a peer that falls silent is noticed after a minute and a half
        for level, name, value in (
            (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
            *((socket.IPPROTO_TCP, *pair) for pair in _ALIVE),
        ):
            if hasattr(socket, name):
                raw.setsockopt(level, getattr(socket, name), value)
    return Socket(raw, left)


def _raw(client: Client, name: str, port: int, proof: Any) -> socket.socket:
    if client.socket is not None:
        return sockets.connect(client.socket, CONNECT)
    proxy = client.proxies().get("https")
    plain = socket.create_connection(_proxy(proxy) if proxy else (name, port), CONNECT)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if proxy:
        plain.sendall(f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode())
        (status, _), _ = _head(plain)
        if status != 200:
            raise OSError(f"the proxy answered {status}")
    context = ssl.create_default_context(cafile=client.logins.ca())
    if files := client.logins.files(proof):
        context.load_cert_chain(*files)
    return context.wrap_socket(plain, server_hostname=client.target.server_name or name)


def _proxy(url: str) -> tuple[str, int]:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return parts.hostname or "", parts.port or 80


def _head(raw: socket.socket) -> tuple[tuple[int, dict[str, str]], bytes]:
    """((status, headers), what came behind them)."""
    got = b""
    while b"\r\n\r\n" not in got:
        block = raw.recv(4096)
        if not block or len(got) > MOST_HEAD:
            raise OSError("it ended the connection")
        got += block
    head, _, left = got.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise OSError("it does not speak HTTP")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return (int(words[1]), headers), left


def _rest(raw: socket.socket, n: int) -> bytes:
    out = b""
    with contextlib.suppress(OSError):
        while len(out) < min(n, MOST_HEAD) and (block := raw.recv(4096)):
            out += block
    return out


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _read_status(body: bytes) -> dict[str, Any]:
    import json

    with contextlib.suppress(ValueError):
        value = json.loads(body)
        if isinstance(value, dict):
            return value
    return {"message": body[:300].decode("utf-8", "replace")}
