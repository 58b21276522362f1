"""What stands beside our kinds and is only looked at: events and namespaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from hikube_local.api.objects import Object
from hikube_local.engine.session import Session
from hikube_local.kube.kinds import GROUP
from hikube_local.kube.status import Refused
from hikube_local.text import timestamp


class Core:
    """The core group of the endpoint."""

    def __init__(self, session: Session, off: Callable[..., Any]) -> None:
        self.session, self._off = session, off

    async def events(self, request: web.Request) -> web.StreamResponse:
        namespace = request.match_info.get("namespace")
        pairs = dict(p.split("=", 1) for p in request.query.get("fieldSelector", "").split(",") if "=" in p)
        kind, name = pairs.get("involvedObject.kind"), pairs.get("involvedObject.name")

        def read() -> list[dict[str, Any]]:
            known = {(o.namespace, o.ref): o for o in self.session.store.objects(namespace=namespace)}
            out = []
            for number, when, row in self.session.store.events(namespace=namespace):
                obj = known.get((row.get("namespace", ""), row.get("object", "")))
                if obj is None or (kind and obj.kind != kind) or (name and obj.name != name):
                    continue
                out.append(_event(number, when, row, obj))
            return out

        items = await self._off(read)
        return web.json_response(
            {"kind": "EventList", "apiVersion": "v1", "metadata": {"resourceVersion": ""}, "items": items}
        )

    def _names(self) -> list[str]:
        return sorted({"default", *(o.namespace for o in self.session.store.objects())})

    async def namespaces(self, request: web.Request) -> web.StreamResponse:
        items = [_namespace(name) for name in await self._off(self._names)]
        return web.json_response({"kind": "NamespaceList", "apiVersion": "v1", "metadata": {}, "items": items})

    async def namespace(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["namespace"]
        if name not in await self._off(self._names):
            raise Refused(404, f'namespaces "{name}" not found')
        return web.json_response(_namespace(name))


def _namespace(name: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"kubernetes.io/metadata.name": name}}
    return {"kind": "Namespace", "apiVersion": "v1", "metadata": metadata, "status": {"phase": "Active"}}


def _event(number: int, when: float, row: dict[str, Any], obj: Object) -> dict[str, Any]:
    kind = "Warning" if row.get("type") in ("failed", "warning") else "Normal"
    involved = {
        "kind": obj.kind,
        "namespace": obj.namespace,
        "name": obj.name,
        "uid": obj.uid,
        "apiVersion": f"{GROUP}/v1alpha1",
    }
    return {
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {
            "name": f"{obj.name}.{number:x}",
            "namespace": obj.namespace,
            "creationTimestamp": timestamp(when),
        },
        "involvedObject": involved,
        "reason": str(row.get("type", "")).capitalize(),
        "message": row.get("message", ""),
        "type": kind,
        "firstTimestamp": timestamp(when),
        "lastTimestamp": timestamp(when),
        "count": 1,
        "source": {"component": "hikube-local"},
    }
