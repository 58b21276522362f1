"""Watches: what becomes of the objects of a kind, to each client in its form, once each; streamed, or over a websocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType, web

from hikube_local.errors import HikubeError
from hikube_local.kube import messages
from hikube_local.kube.hub import Hub
from hikube_local.kube.kinds import Resource
from hikube_local.kube.messages import Wanted
from hikube_local.kube.query import flag, number
from hikube_local.kube.sources import Form, Source
from hikube_local.kube.status import Refused
from hikube_local.kube.tables import table
from hikube_local.page import walls
from hikube_local.store.db import ChangeType, Compacted

LOG = logging.getLogger("hikube_local.kube")
WATCHES = 1000
BOOKMARK_EVERY = 60.0
WRITE = 20.0  # seconds that a client may take to accept a line
STREAM = "application/json;stream=watch"
LONGEST = 3600.0  # seconds, where the client says nothing

Send = Callable[[bytes], Awaitable[None]]


class Watching:
    """All watches that are open."""

    def __init__(self, hub: Hub, off: Callable[..., Any]) -> None:
        self.hub, self._off, self.open = hub, off, 0

    async def serve(
        self, request: web.Request, resource: Resource, source: Source, namespace: str | None, wanted: Wanted
    ) -> web.StreamResponse:
        """Answer with a stream; HTTP 410 where the log does not reach back to the client's revision."""
        if self.open >= WATCHES:
            raise Refused(503, f"the limit of {WATCHES} open watches is reached")
        given = number(request.query, "resourceVersion") or 0
        told = flag(request.query, "sendInitialEvents")
        most = number(request.query, "timeoutSeconds")
        initial = told or not given
        listed = set() if initial else await self._off(_listed, source, given, namespace, wanted)
        response, send, left = await _begin(request)
        self.open += 1
        one = _One(self._off, Lines(request, resource, send), wanted, source, namespace, listed)
        try:
            if initial:
                await one.begin(told)
            else:
                one.after = given
            await self._go_on(request, one, left, LONGEST if most is None else float(most))
        except HikubeError as e:  # the answer has begun: what went wrong is an event of it
            with contextlib.suppress(OSError, TimeoutError):
                await one.line.error(Refused(410 if isinstance(e, Compacted) else 500, e.what))
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
        except Exception:  # an answer that has begun has no room for a refusal
            LOG.exception("%s %s", request.method, request.path)
            with contextlib.suppress(OSError, TimeoutError):
                await one.line.error(Refused(500, "a bug in hikube-local; see the output of serve"))
        finally:
            self.open -= 1
            await _end(response)
        return response

    async def _go_on(self, request: web.Request, one: _One, left: Callable[[], bool], most: float) -> None:
        bookmarks = flag(request.query, "allowWatchBookmarks")
        until, told = time.monotonic() + most, time.monotonic()
        while not self.hub.ended and (more := until - time.monotonic()) > 0:
            rung = self.hub.rung
            await one.go_on()
            if bookmarks and time.monotonic() - told > BOOKMARK_EVERY:
                told = time.monotonic()
                await one.line.bookmark(one.after)
            await self.hub.wait(min(more, 5.0), rung)
            if left():
                return


async def _begin(request: web.Request) -> tuple[web.StreamResponse | web.WebSocketResponse, Send, Callable[[], bool]]:
    """(the answer, what sends one event, whether the client has gone)."""
    if request.headers.get("Upgrade", "").lower() == "websocket":
        # A browser that offers a subprotocol wants one back; what we send is the same under each.
        offered = walls.protocols(request.headers)[:1]
        socket = web.WebSocketResponse(heartbeat=30.0, max_msg_size=1 << 16, protocols=offered)
        if not socket.can_prepare(request):
            raise Refused(400, "not a websocket handshake")
        await socket.prepare(request)
        reader = asyncio.ensure_future(_drain(socket))

        async def tell(line: bytes) -> None:
            await socket.send_str(line.decode())

        return socket, tell, reader.done
    response = web.StreamResponse(headers={"Content-Type": STREAM})
    await response.prepare(request)

    async def send(line: bytes) -> None:
        await response.write(line + b"\n")

    return response, send, lambda: request.transport is None or request.transport.is_closing()


async def _drain(socket: web.WebSocketResponse) -> None:
    """A watcher has nothing to say but that it goes."""
    async for message in socket:
        if message.type in (WSMsgType.CLOSE, WSMsgType.ERROR):
            return


async def _end(response: web.StreamResponse) -> None:
    if isinstance(response, web.WebSocketResponse):
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError, RuntimeError):
            await asyncio.wait_for(response.close(), 2.0)


def _listed(source: Source, after: int, namespace: str | None, wanted: Wanted) -> set[tuple[str, str]]:
    """What a client may know of that listed at a revision: what there is now, and what changed since.

    In this order: what goes between the two looks is in the second.
    """
    there = {f.id for f in source.snapshot(namespace)[1] if wanted(f)}
    return there | {f.id for _, f in source.changes(after, namespace)[1]}


class _One:
    """What one watch has told. `sent`: the mark of each object that its client knows of from this watch; `listed`: what it
    may know of from a list before."""

    def __init__(
        self,
        off: Callable[..., Any],
        line: Lines,
        wanted: Wanted,
        source: Source,
        namespace: str | None,
        listed: set[tuple[str, str]],
    ) -> None:
        self.listed = listed
        self._off, self.line, self.wanted, self._source, self._namespace = off, line, wanted, source, namespace
        self.sent: dict[tuple[str, str], str] = {}
        self.after = 0

    async def begin(self, bookmark: bool) -> None:
        """What there is, as additions."""
        self.after, found = await self._off(self._source.snapshot, self._namespace)
        for form in filter(self.wanted, found):
            await self._tell("ADDED", form)
        if bookmark:
            await self.line.bookmark(self.after, initial=True)

    async def go_on(self) -> None:
        """What changed since."""
        now, changes = await self._off(self._source.changes, self.after, self._namespace)
        for type, form in changes:
            known = form.id in self.sent or form.id in self.listed
            if type is ChangeType.DELETED or not form.there or not self.wanted(form):
                self.sent.pop(form.id, None)
                self.listed.discard(form.id)
                if known:
                    await self.line.event("DELETED", form)
            elif self.sent.get(form.id) != form.mark:
                # Else nothing of it changed, or it was told with an earlier change.
                await self._tell("ADDED" if type is ChangeType.ADDED or not known else "MODIFIED", form)
        self.after = int(now)

    async def _tell(self, type: str, form: Form) -> None:
        self.sent[form.id] = form.mark
        await self.line.event(type, form)


class Lines:
    """The events of one watch, in the form that its client asked for."""

    def __init__(self, request: web.Request, resource: Resource, send: Send) -> None:
        self.resource, self._out = resource, send
        self.table = messages.as_table(request)
        self.include = request.query.get("includeObject", "Metadata")
        self._head = True

    async def _send(self, type: str, value: str) -> None:
        """`value`: of the object, as JSON."""
        text = f'{{"type":"{type}","object":{value}}}'
        # A client that takes nothing is let go; it holds up nobody but itself.
        await asyncio.wait_for(self._out(text.encode()), WRITE)

    async def event(self, type: str, form: Form) -> None:
        text = form.text
        if self.table:
            text = json.dumps(table(self.resource, [form.value], form.revision, self.include, self._head))
            self._head = False
        await self._send(type, text)

    async def bookmark(self, revision: int, initial: bool = False) -> None:
        meta: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        value = {"apiVersion": self.resource.api_version, "kind": self.resource.kind, "metadata": meta}
        if self.table:
            value = {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
                "columnDefinitions": [],
                "rows": [],
            }
        await self._send("BOOKMARK", json.dumps(value))

    async def error(self, refused: Refused) -> None:
        await self._send("ERROR", json.dumps(refused.as_json()))
