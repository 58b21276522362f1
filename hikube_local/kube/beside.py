"""What Kubernetes' API has no words for, at /hikube/v1: the history of usage, checkpoints, tenant networks, results of `test`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from aiohttp import web

from hikube_local.api.objects import INSTANCE, Key, Object
from hikube_local.engine import snapshots, usage
from hikube_local.engine.session import Session, capabilities
from hikube_local.errors import UsageError
from hikube_local.events import ignore
from hikube_local.kube import kinds, messages
from hikube_local.kube.guests import LARGEST
from hikube_local.kube.paths import Target
from hikube_local.kube.query import number
from hikube_local.kube.status import MISSING, Refused
from hikube_local.lab import results
from hikube_local.text import duration, timestamp

MACHINE = "/hikube/v1/namespaces/{namespace}/vminstances/{name}"
# What is no machine's and no namespace's is for those who may look at the host.
_HOST = Target("list", "", "v1", "nodes")
REPORT_HEADERS = {
    "Content-Disposition": "attachment; filename=hikube-local-test.html",
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


class Beside:
    """The routes. `permit` refuses what the role of the clients does not allow; `off` and `off_long` do work in a pool."""

    def __init__(
        self,
        session: Session,
        permit: Callable[[Target], None],
        off: Callable[..., Any],
        off_long: Callable[..., Any],
        rang: Callable[[], None],
    ) -> None:
        self.session, self._permit, self._off, self._off_long, self._rang = session, permit, off, off_long, rang

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{MACHINE}/history", self._history),
            web.get(f"{MACHINE}/log", self._log),
            web.get(f"{MACHINE}/snapshots", self._snapshots),
            web.post(f"{MACHINE}/snapshots", self._create),
            web.delete(f"{MACHINE}/snapshots/{{snapshot}}", self._delete),
            web.put(f"{MACHINE}/snapshots/{{snapshot}}/restore", self._restore),
            web.put(f"{MACHINE}/reset", self._restore),
            web.get("/hikube/v1/network", self._network),
            web.get("/hikube/v1/tests", self._tests),
            web.get("/hikube/v1/tests/{id}/report", self._report),
        ]

    async def _machine(self, request: web.Request, verb: str = "get", below: str = "") -> Object:
        """The machine of the path, for those whose role has this verb on it (what is `below`: on all that is its own)."""
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        self._permit(Target(verb, kinds.GROUP, kinds.VERSION, kinds.MACHINES.plural, namespace, name, below))
        obj: Object | None = await self._off(self.session.store.get, Key(INSTANCE, namespace, name))
        if obj is None:
            raise Refused(404, f'{kinds.MACHINES.full} "{name}" not found', details=kinds.MACHINES.details(name))
        return obj

    async def _history(self, request: web.Request) -> web.StreamResponse:
        try:
            since = min(duration(request.query.get("since", "1h")), float(usage.DAY))
        except ValueError as e:
            raise Refused(400, f"since: {e}") from None
        obj = await self._machine(request)
        return web.json_response(await self._off(usage.history, self.session.layout, obj, since))

    async def _log(self, request: web.Request) -> web.StreamResponse:
        """What it said on its console since its last start, made safe; also of one that is off."""
        obj = await self._machine(request, below="log")
        lines = number(request.query, "tailLines")
        log = self.session.require(obj, capabilities.Logs).log(obj)
        text = await self._off(log.read, False, None)
        if lines is not None:
            text = "".join(deque(text.splitlines(keepends=True), maxlen=lines))
        return web.Response(body=text.encode()[-LARGEST:], content_type="text/plain", charset="utf-8")

    # checkpoints

    async def _snapshots(self, request: web.Request) -> web.StreamResponse:
        obj = await self._machine(request)
        found = await self._off(snapshots.all, self.session, obj)
        rows = [
            {
                "name": s.name,
                "created": timestamp(s.created),
                "memory": s.memory,
                "size": s.size,
                "disks": s.disks,
                "firstBoot": s.name == capabilities.FIRST_BOOT,
            }
            for s in found
        ]
        return web.json_response({"items": rows})

    async def _create(self, request: web.Request) -> web.StreamResponse:
        obj = await self._machine(request, "create", "snapshots")
        body = await messages.body(request)
        name = body.get("name", "") if isinstance(body, dict) else ""
        if not isinstance(name, str):
            raise Refused(400, "name is not text")
        try:
            made = await self._off_long(snapshots.create, self.session, obj, name, ignore)
        except UsageError as e:
            raise Refused(422, e.what) from None
        return web.json_response({"name": made}, status=201)

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        obj = await self._machine(request, "delete", "snapshots")
        name = request.match_info["snapshot"]
        await self._off(snapshots.find, self.session, obj, name)
        await self._off_long(snapshots.delete, self.session, obj, name, ignore)
        return web.json_response({"name": name})

    async def _restore(self, request: web.Request) -> web.StreamResponse:
        """Back to one; without a name to the first boot (`reset`). What the machine did since is lost."""
        obj = await self._machine(request, "update", "snapshots")
        name = request.match_info.get("snapshot")
        if name is None:
            point = await self._off(snapshots.first_boot, self.session, obj)
        else:
            point = await self._off(snapshots.find, self.session, obj, name)
        done = await self._off_long(snapshots.restore, self.session, obj, point, ignore)
        await self._off(self.session.statuses.keep, obj)
        self._rang()
        return web.json_response({"name": point.name, "seconds": round(done.seconds, 2), "running": done.running})

    # what concerns no machine alone

    async def _network(self, request: web.Request) -> web.StreamResponse:
        self._permit(_HOST)
        backends = self.session.every(capabilities.Networks)
        if not backends:
            raise Refused(404, MISSING)
        return web.json_response(await self._off(backends[0].reach))

    async def _tests(self, request: web.Request) -> web.StreamResponse:
        self._permit(_HOST)
        return web.json_response({"items": await self._off(results.all, self.session.layout)})

    async def _report(self, request: web.Request) -> web.StreamResponse:
        self._permit(_HOST)
        page = await self._off(results.page, self.session.layout, request.match_info["id"])
        if page is None:
            raise Refused(404, "there is no such report")
        return web.Response(text=page, content_type="text/html", charset="utf-8", headers=REPORT_HEADERS)
