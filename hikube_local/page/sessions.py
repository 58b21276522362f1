"""Who looks at the page: codes of one use, and sessions of two halves, neither of which is worth anything alone.

The cookie goes to every server of this host, since cookies do not know ports (RFC 6265, 8.5); the bearer is kept by the
browser for one origin, port included, and sent by scripts alone. All of it lives in memory and ends with the process.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Any

from hikube_local.records import dataclass

CODE = 60.0  # seconds that a code may be used
IDLE = 12 * 3600.0  # seconds after which a session that nobody used ends
MOST = 50  # sessions, and codes, at once: the oldest goes


@dataclass(slots=True, eq=False)
class Session:
    """`cookie` and `bearer`: both are needed."""

    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    bearer: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    used: float = 0.0
    connections: set[Any] = field(default_factory=set, repr=False)  # that are open with it: they end with it

    def carries(self, connection: Any) -> None:
        """A request with it came by this connection of aiohttp's."""
        if connection not in self.connections:
            self.connections = {c for c in self.connections if c.transport is not None} | {connection}


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Sessions:
    """`now`: seconds of a clock that nobody sets."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._codes: dict[bytes, float] = {}
        self._by_bearer: dict[bytes, Session] = {}

    def code(self) -> str:
        """A new code (192 bits), good for one `exchange` within CODE."""
        code = secrets.token_urlsafe(24)
        while len(self._codes) >= MOST:
            del self._codes[next(iter(self._codes))]
        self._codes[_digest(code)] = self._now() + CODE
        return code

    def exchange(self, code: str) -> Session | None:
        """A new session for a code; None for one that was used, is too old, or never was."""
        until = self._codes.pop(_digest(code), None)
        if until is None or self._now() > until:
            return None
        self._sweep()
        while len(self._by_bearer) >= MOST:
            self.end(min(self._by_bearer.values(), key=lambda s: s.used))
        session = Session(used=self._now())
        self._by_bearer[_digest(session.bearer)] = session
        return session

    def find(self, bearer: str, cookies: Iterable[str]) -> Session | None:
        """The session whose bearer this is, if one of the cookies is its other half."""
        session = self._by_bearer.get(_digest(bearer))
        if session is None or session.used + IDLE < self._now():
            return None
        if not any(secrets.compare_digest(_digest(c), _digest(session.cookie)) for c in cookies):
            return None
        session.used = self._now()
        return session

    def end(self, session: Session) -> None:
        """Nobody is let in by it any more, and what was opened with it is closed."""
        self._by_bearer.pop(_digest(session.bearer), None)
        for connection in list(session.connections):
            connection.force_close()

    def _sweep(self) -> None:
        now = self._now()
        self._codes = {k: until for k, until in self._codes.items() if until >= now}
        for session in [
            s for s in self._by_bearer.values() if s.used + IDLE < now and not any(c.transport for c in s.connections)
        ]:
            self.end(session)

    @property
    def empty(self) -> bool:
        """Whether nobody looks, and nobody can begin to without a new code."""
        self._sweep()
        return not (self._codes or self._by_bearer)
