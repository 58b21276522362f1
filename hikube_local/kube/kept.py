"""Writes of secrets, configmaps and namespaces: what clients such as Helm keep here for themselves."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

from aiohttp import web

from hikube_local.api.names import DNS_1123
from hikube_local.engine.session import Session
from hikube_local.kube import kinds, managers, messages, objects, ownership, writes
from hikube_local.kube.apps import APPLY, applier, generated, patcher
from hikube_local.kube.documents import Documents
from hikube_local.kube.kinds import Resource
from hikube_local.kube.namespaces import used
from hikube_local.kube.paths import Target
from hikube_local.kube.query import dry
from hikube_local.kube.status import Cause, Refused, success
from hikube_local.kube.writes import Modified

Value = dict[str, Any]
LONGEST = 253  # characters of a name (RFC 1123), 63 of a namespace's
# Clients send strategic merge patches for kinds that they know. Nothing here is a list that is merged by a key but parts of
# metadata, which nobody patches so; what says how lists are to be merged is passed over.
STRATEGIC = "application/strategic-merge-patch+json"


def strategic(target: Any, patch: Any) -> Any:
    """A merge patch whose maps may say `$patch: replace` or `delete`."""
    if not isinstance(patch, dict):
        return patch
    how, own = patch.get("$patch"), {k: v for k, v in patch.items() if not k.startswith("$")}
    if how == "delete":
        return None
    out = dict(target) if isinstance(target, dict) and how != "replace" else {}
    for key, value in own.items():
        new = strategic(out.get(key), value)
        out.pop(key, None)
        if new is not None:
            out[key] = new
    return out


PATCHES = {**objects.PATCHES, STRATEGIC: strategic}


class KeptWrites:
    """The writes. `ring` tells watches of them; `off` does something in the pool of threads."""

    def __init__(
        self, session: Session, documents: Documents, ring: Callable[[], None], off: Callable[..., Any]
    ) -> None:
        self.session, self.documents, self._ring, self._off = session, documents, ring, off

    async def create(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        body = await messages.body(request)
        generated(body.get("metadata") if isinstance(body, dict) else None, LONGEST)
        value = read(resource, target, body)
        name = value["metadata"]["name"]
        there = resource is kinds.NAMESPACES and name in await self._off(used, self.session)
        if there or await self._off(self.documents.get, resource.kind, target.namespace, name):
            raise writes.Exists(resource, name)
        return await self._put(request, resource, _managed(request, resource, None, value), "", 201)

    async def update(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        value = read(resource, target, await messages.body(request))
        old = await self._off(self._there, resource, target)
        stated = value["metadata"].get("resourceVersion") or None
        return await self._put(request, resource, _managed(request, resource, old, value), stated)

    async def patch(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        body = await messages.body(request)
        if request.content_type == APPLY:
            return await self._apply(request, resource, target, body)
        how = patcher(request, PATCHES)

        async def once() -> web.StreamResponse:
            old = await self._off(self._there, resource, target)
            value = read(resource, target, await self._off(how, old, body))
            stated = value["metadata"].get("resourceVersion")
            if stated and stated != old["metadata"]["resourceVersion"]:
                raise Modified(resource, target.name)
            value = _managed(request, resource, old, value)
            return await self._put(request, resource, value, old["metadata"]["resourceVersion"])

        return await writes.again(once, writes.states_revision(body))

    async def _apply(self, request: web.Request, resource: Resource, target: Target, body: Any) -> web.StreamResponse:
        who, force, meta = applier(request, body)

        def work() -> tuple[Value, str]:
            old = self.documents.get(resource.kind, target.namespace, target.name)
            have = old["metadata"]["resourceVersion"] if old else ""
            if meta.get("resourceVersion") not in (None, "", have):
                raise Modified(resource, target.name)
            rows = old["metadata"].get("managedFields", []) if old else []
            owners, _ = ownership.decode(rows)
            wanted = read(resource, target, body)
            value, after, clash = ownership.apply(old, wanted, owners, who, force)
            if clash:
                raise managers.refused(clash, resource.api_version)
            identity = {k: v for k, v in wanted["metadata"].items() if k in ("name", "namespace")}
            value["metadata"] = {**value.get("metadata", {}), **identity}
            value["metadata"]["managedFields"] = managers.rows(after, rows, who, resource.api_version)
            return value, old["metadata"]["resourceVersion"] if old else ""

        async def once() -> web.StreamResponse:
            value, seen = await self._off(work)
            return await self._put(request, resource, value, seen, 200 if seen else 201)

        return await writes.again(once, writes.states_revision(body))

    async def _put(
        self, request: web.Request, resource: Resource, value: Value, seen: str | None, status: int = 200
    ) -> web.StreamResponse:
        if not dry(request.query):
            value = await self._off(self.documents.put, resource, value, seen)
            self._ring()
        return web.json_response(value, status=status)

    async def delete(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        body = await messages.body(request) if request.can_read_body else {}
        if resource is kinds.NAMESPACES:
            await self._off(self._empty, target.name)
        old = await self._off(self._there, resource, target)
        writes.deletable(body, old["metadata"]["uid"], old["metadata"]["resourceVersion"])
        if not dry(request.query, body):
            seen = old["metadata"]["resourceVersion"] if writes.has_preconditions(body) else None
            await self._off(self.documents.delete, resource, target.namespace, target.name, seen)
            self._ring()
        return web.json_response(success(resource, target.name, old["metadata"]["uid"]))

    def _empty(self, name: str) -> None:
        """On Kubernetes everything in a namespace goes with it; here machines and their data go only by name."""
        left = [o.ref for o in self.session.store.objects(namespace=name)]
        for kind in (kinds.SECRETS, kinds.CONFIGMAPS):
            left += [f"{kind.singular}/{v['metadata']['name']}" for v in self.documents.snapshot(kind.kind, name)[1]]
        if left:
            words = f'namespaces "{name}" has {", ".join(left[:5])}{" …" if len(left) > 5 else ""}: delete them first'
            raise Refused(409, words)
        if name == "default":
            raise Refused(403, 'namespaces "default" is forbidden: this namespace may not be deleted')

    def _there(self, resource: Resource, target: Target) -> Value:
        old = self.documents.get(resource.kind, target.namespace, target.name)
        if old is None:
            raise Refused(404, f'{resource.full} "{target.name}" not found', details=resource.details(target.name))
        return old


def _managed(request: web.Request, resource: Resource, old: Value | None, value: Value) -> Value:
    """With who owns what after a create, an update or a patch."""
    manager = request.query.get("fieldManager") or request.headers.get("User-Agent", "").partition("/")[0] or "unknown"
    who = ownership.Owner(manager[: managers.LONGEST], "Update")
    kept = old["metadata"].get("managedFields") if old else None
    now = ownership.update(old, value, ownership.decode(kept)[0], who)
    return {
        **value,
        "metadata": {**value["metadata"], "managedFields": managers.rows(now, kept, who, resource.api_version)},
    }


def read(resource: Resource, target: Target, body: Any) -> Value:
    """What a client sent, judged; Refused with the field that is wrong."""
    if not isinstance(body, dict):
        raise Refused(400, "the body is not an object")
    meta = body.get("metadata")
    # Typed clients send empty values for what they do not say.
    meta = {k: v for k, v in meta.items() if v not in ("", None)} if isinstance(meta, dict) else {}
    about = (body.get("apiVersion", resource.api_version), body.get("kind", resource.kind))
    if about != (resource.api_version, resource.kind):
        what = f"the body is {about[1]} of {about[0]}, the path is for {resource.kind} of {resource.api_version}"
        raise Refused(400, what)
    if target.name and meta.setdefault("name", target.name) != target.name:
        raise Refused(400, f"the name of the object ({meta['name']}) does not match that on the URL ({target.name})")
    if not resource.namespaced:
        meta.pop("namespace", None)
    elif not DNS_1123.fullmatch(target.namespace) or len(target.namespace) > 63:
        raise Refused(400, f"{target.namespace[:63]!r} is not a valid namespace")
    if resource.namespaced and meta.setdefault("namespace", target.namespace) != target.namespace:
        raise Refused(
            400, f"the object's namespace ({meta['namespace']}) does not match that on the URL ({target.namespace})"
        )
    causes = list(_wrong(resource, meta, body))
    if causes:
        what = "; ".join(f"{c.field}: {c.message}" for c in causes)
        name = str(meta.get("name", ""))[:60]
        raise Refused(
            422,
            f'{resource.kind} "{name}" is invalid: {what}',
            causes=tuple(causes),
            details=resource.details(name),
        )
    value = {**body, "metadata": {k: v for k, v in meta.items() if k not in ("generateName", "selfLink")}}
    if text := value.pop("stringData", None):
        encoded = {k: base64.b64encode(str(v).encode()).decode() for k, v in text.items()}
        value["data"] = {**(value.get("data") or {}), **encoded}
    if resource is kinds.SECRETS:
        value.setdefault("type", "Opaque")
    if resource is kinds.NAMESPACES:
        value["status"] = {"phase": "Active"}
        value["metadata"]["labels"] = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta["name"]}
    return value


def _wrong(resource: Resource, meta: Value, body: Value) -> list[Cause]:
    name, out = meta.get("name"), []
    most = 63 if resource is kinds.NAMESPACES else LONGEST
    if not isinstance(name, str) or len(name) > most or not all(DNS_1123.fullmatch(p) for p in name.split(".")):
        out.append(Cause(f"Invalid value: must be at most {most} characters of a-z, 0-9, - and .", "metadata.name"))
    for field in ("labels", "annotations"):
        rows = meta.get(field)
        if rows is not None and not (
            isinstance(rows, dict) and all(isinstance(v, str) for pair in rows.items() for v in pair)
        ):
            out.append(Cause("Invalid value: must be a map of strings", f"metadata.{field}"))
    for field in ("data", "stringData", "binaryData"):
        rows = body.get(field)
        if rows is None:
            continue
        coded = field == "binaryData" or (field == "data" and resource is kinds.SECRETS)
        if not isinstance(rows, dict):
            out.append(Cause("Invalid value: must be a map", field))
            continue
        for key, text in rows.items():
            if not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key):
                out.append(Cause("Invalid value: keys may have only a-z, A-Z, 0-9, -, _ and .", f"{field}[{key[:40]}]"))
            elif not isinstance(text, str) or (coded and not _base64(text)):
                kind = "base64" if coded else "text"
                out.append(Cause(f"Invalid value: must be {kind}", f"{field}.{key[:40]}"))
    return out


def _base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True
