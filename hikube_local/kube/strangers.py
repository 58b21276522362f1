"""Connections of those who have shown no token: any user of this host can open them, and few and short they stay."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

PATIENCE = 10.0  # seconds that a connection may be open before its first request with a token
MOST = 100  # of them at once


class Strangers:
    """The connections of some servers; `sweep` is called now and then."""

    def __init__(self) -> None:
        self._known: set[Any] = set()
        self._since: dict[Any, float] = {}

    def welcome(self, request: web.Request) -> None:
        """Whoever sent this has a token."""
        self._known.add(request.protocol)

    def sweep(self, *servers: Any) -> None:
        """Close those that are open too long or are too many, the oldest first."""
        now = time.monotonic()
        every = {c for server in servers if server is not None for c in server.connections}
        self._known &= every
        there = every - self._known
        self._since = {c: self._since.get(c, now) for c in there}
        oldest = sorted(there, key=lambda c: self._since[c])
        for number, connection in enumerate(oldest):
            if len(oldest) - number > MOST or now - self._since[connection] > PATIENCE:
                connection.force_close()
