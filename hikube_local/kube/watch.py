"""Watches: the changes of the store's log, to each client in its form, once each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web

from hikube_local.api.objects import Key, Object
from hikube_local.api.selectors import fields as field_selector
from hikube_local.api.selectors import selector
from hikube_local.errors import HikubeError
from hikube_local.kube.hub import Hub
from hikube_local.kube.kinds import GROUP, Resource, table
from hikube_local.kube.status import Refused
from hikube_local.store.db import ChangeType, Compacted

WATCHES = 1000
BOOKMARK_EVERY = 60.0
WRITE = 20.0  # seconds that a client may take to accept a line
STREAM = "application/json;stream=watch"
LONGEST = 3600.0  # seconds, where the client says nothing

Wanted = Callable[[Object], bool]


class Watching:
    """All watches that are open."""

    def __init__(self, hub: Hub, off: Callable[..., Any]) -> None:
        self.hub, self._off, self.open = hub, off, 0

    async def serve(
        self, request: web.Request, resource: Resource, namespace: str | None, wanted: Wanted
    ) -> web.StreamResponse:
        """Answer with a stream; HTTP 410 where the log does not reach back to the client's revision."""
        if self.open >= WATCHES:
            raise Refused(503, f"{WATCHES} watches are open: no more are taken")
        given = request.query.get("resourceVersion", "")
        if given and not given.isdigit():
            raise Refused(400, f"resourceVersion {given[:40]!r} is no revision of this server")
        changes = partial(self.hub.session.store.changes, kind=resource.kind, namespace=namespace)
        initial = request.query.get("sendInitialEvents") == "true" or given in ("", "0")
        if not initial:
            await self._off(changes, int(given))
        response = web.StreamResponse(headers={"Content-Type": STREAM})
        await response.prepare(request)
        self.open += 1
        one = _One(self.hub, self._off, Lines(request, resource, response), wanted, changes)
        try:
            if initial:
                await one.begin(resource.kind, namespace, request.query.get("sendInitialEvents") == "true")
            else:
                one.after = int(given)
            await self._go_on(request, one)
        except HikubeError as e:  # the answer has begun: what went wrong is an event of it
            with contextlib.suppress(OSError, TimeoutError):
                await one.line.error(Refused(410 if isinstance(e, Compacted) else 500, e.what))
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        finally:
            self.open -= 1
        return response

    async def _go_on(self, request: web.Request, one: _One) -> None:
        query = request.query
        most = float(query["timeoutSeconds"]) if query.get("timeoutSeconds", "").isdigit() else LONGEST
        until, told = time.monotonic() + most, time.monotonic()
        while not self.hub.ended and (left := until - time.monotonic()) > 0:
            rung = self.hub.rung
            await one.go_on()
            if query.get("allowWatchBookmarks") == "true" and time.monotonic() - told > BOOKMARK_EVERY:
                told = time.monotonic()
                await one.line.bookmark(one.after)
            await self.hub.wait(min(left, 5.0), rung)
            if request.transport is None or request.transport.is_closing():
                return


class _One:
    """What one watch has told. `sent`: the revision of each object that its client knows of from this watch."""

    def __init__(
        self, hub: Hub, off: Callable[..., Any], line: Lines, wanted: Wanted, changes: Callable[..., Any]
    ) -> None:
        self.hub, self._off, self.line, self.wanted, self._changes = hub, off, line, wanted, changes
        self.sent: dict[Key, int] = {}
        self.whole = False  # the client knows from us alone what there is, not from a list before
        self.after = 0

    async def begin(self, kind: str, namespace: str | None, bookmark: bool) -> None:
        """What there is, as additions."""
        self.whole = True
        self.after, found = await self._off(self.hub.session.store.snapshot, kind, namespace)
        for obj in filter(self.wanted, found):
            await self._tell("ADDED", obj)
        if bookmark:
            await self.line.bookmark(self.after, initial=True)

    async def go_on(self) -> None:
        """What changed since."""
        now, changes = await self._off(self._changes, self.after)
        for change in changes:
            obj, gone = change.object, change.type is ChangeType.DELETED
            if gone or not self.wanted(obj):
                # Of one that was listed before we cannot know whether it matched, unless it went as it was.
                known = self.sent.pop(obj.key, None) is not None
                if known or (gone and not self.whole and self.wanted(obj)):
                    await self.line.event("DELETED", await self._off(self.hub.form, obj))
            elif self.sent.get(obj.key) != obj.resource_version:  # else read together with the one before
                new = change.type is ChangeType.ADDED or (self.whole and obj.key not in self.sent)
                await self._tell("ADDED" if new else "MODIFIED", obj)
        self.after = int(now)

    async def _tell(self, type: str, obj: Object) -> None:
        self.sent[obj.key] = obj.resource_version
        await self.line.event(type, await self._off(self.hub.form, obj))


class Lines:
    """The events of one watch, in the form that its client asked for."""

    def __init__(self, request: web.Request, resource: Resource, response: web.StreamResponse) -> None:
        self.resource, self.response = resource, response
        self.table = as_table(request)
        self.include = request.query.get("includeObject", "Metadata")
        self._head = True

    async def _send(self, type: str, value: dict[str, Any]) -> None:
        text = json.dumps({"type": type, "object": value}, ensure_ascii=False, separators=(",", ":"))
        # A client that takes nothing is let go; it holds up nobody but itself.
        await asyncio.wait_for(self.response.write(text.encode() + b"\n"), WRITE)

    async def event(self, type: str, value: dict[str, Any]) -> None:
        if self.table:
            revision = value["metadata"]["resourceVersion"]
            value = table(self.resource.kind, [value], revision, self.include, self._head)
            self._head = False
        await self._send(type, value)

    async def bookmark(self, revision: int, initial: bool = False) -> None:
        meta: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        value = {"apiVersion": f"{GROUP}/v1alpha1", "kind": self.resource.kind, "metadata": meta}
        if self.table:
            value = {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
                "columnDefinitions": [],
                "rows": [],
            }
        await self._send("BOOKMARK", value)

    async def error(self, refused: Refused) -> None:
        await self._send("ERROR", refused.as_json())


def wanted_by(request: web.Request) -> Callable[[Object], bool]:
    labels = selector(request.query.get("labelSelector", ""))
    by_field = field_selector(request.query.get("fieldSelector", ""))
    return lambda obj: labels(obj.labels) and by_field(obj)


def as_table(request: web.Request) -> bool:
    first = request.headers.get("Accept", "").partition(",")[0]
    return "as=Table" in first
