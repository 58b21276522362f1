"""Writes of VMInstances and VMDisks: create, update, patch, server-side apply, delete. The engine's own writes, no others."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from hikube_local.api import names
from hikube_local.api.objects import Key, Object
from hikube_local.api.shapes import plain_spec
from hikube_local.engine import apply as engine
from hikube_local.engine.session import Session
from hikube_local.events import Event, EventType
from hikube_local.kube import faithful, managers, messages, objects, ownership, writes
from hikube_local.kube.hub import Hub
from hikube_local.kube.keeper import Keeper
from hikube_local.kube.kinds import Resource
from hikube_local.kube.paths import Target
from hikube_local.kube.query import count, dry, flag
from hikube_local.kube.status import Refused, success
from hikube_local.records import dataclass
from hikube_local.source.finding import Finding
from hikube_local.store.db import Basis, Changed

APPLY = "application/apply-patch+yaml"
DRY_RUN = "a dry run changes nothing here; Hikube's API server writes the update despite dryRun"
FORCE = "Hikube keeps no managedFields, so this apply may need --force-conflicts there: it changes {}"
ONE = ("update", "patch", "delete")  # verbs of one object
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # of generated names, as Kubernetes has them


def generated(meta: Any, most: int) -> None:
    """Give an object that has but a generateName its name."""
    if isinstance(meta, dict) and not meta.get("name") and isinstance(prefix := meta.pop("generateName", None), str):
        meta["name"] = prefix[: most - 5] + "".join(secrets.choice(_LETTERS) for _ in range(5))


def applier(request: web.Request, body: Any) -> tuple[ownership.Owner, bool, dict[str, Any]]:
    """(who applies, whether fields of others are taken over, the metadata) of a server-side apply."""
    manager = request.query.get("fieldManager", "")
    if not manager:
        raise Refused(400, "fieldManager: Required value: is required for apply patch")
    meta = body.get("metadata", {}) if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(meta, dict) or meta.get("managedFields"):
        raise Refused(400, "the body is not an object, or has metadata.managedFields, which must be nil")
    return ownership.Owner(manager[: managers.LONGEST], "Apply"), flag(request.query, "force"), meta


def patcher(request: web.Request, known: dict[str, Callable[[Any, Any], Any]]) -> Callable[[Any, Any], Any]:
    """How the request's patch is applied, or 415 with the types that are taken."""
    how = known.get(request.content_type)
    if how is None:
        types = ", ".join(sorted((*known, APPLY)))
        raise Refused(415, f"the body of the request was in an unknown format - accepted media types include: {types}")
    return how


@dataclass(frozen=True, slots=True)
class Options:
    """`backend`: of new objects, None for the usual; `faithful`: what Hikube accepts and fails later is accepted;
    `differences`: how this differs from Hikube is told."""

    backend: str | None = None
    faithful: bool = False
    differences: bool = True


class Apps:
    """The writes. `off`: does something in the pool of threads."""

    def __init__(self, session: Session, hub: Hub, keeper: Keeper, off: Callable[..., Any], options: Options) -> None:
        self.session, self.hub, self.keeper, self._off, self.options = session, hub, keeper, off, options

    def stored(self, resource: Resource, key: Key) -> Object:
        """The object, or 404."""
        obj = self.session.store.get(key)
        if obj is None:
            raise Refused(404, f'{resource.full} "{key.name}" not found', details=resource.details(key.name))
        return obj

    async def create(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        body = await messages.body(request)
        generated(body.get("metadata") if isinstance(body, dict) else None, names.INSTANCE_MAX)
        return await self._write(request, resource, target, body, None, create=True)

    async def update(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        key = Key(resource.kind, target.namespace, target.name)
        return await self._write(request, resource, target, await messages.body(request), key)

    async def patch(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        key = Key(resource.kind, target.namespace, target.name)
        if request.content_type == APPLY:
            return await self._apply(request, resource, target, key)
        how = patcher(request, objects.PATCHES)
        patch = await messages.body(request)

        async def once() -> web.StreamResponse:
            before = await self._off(lambda: self.hub.form(self.stored(resource, key)))
            value = await self._off(how, before, patch)
            return await self._write(request, resource, target, value, key, before["metadata"]["resourceVersion"])

        return await writes.again(once, writes.states_revision(patch))

    async def _apply(self, request: web.Request, resource: Resource, target: Target, key: Key) -> web.StreamResponse:
        """Server-side apply: the object with these fields of its applier's, or who owns them."""
        body = await messages.body(request)
        who, force, meta = applier(request, body)

        def work() -> tuple[dict[str, Any], ownership.Owners, str, list[str]]:
            old = self.session.store.get(key)
            live = objects.plain(old) if old else None
            wanted = objects.one_dialect(resource, body)
            value, owners, clash = ownership.apply(live, wanted, managers.owners(self.session, old), who, force)
            if clash:
                raise managers.refused(clash, resource.api_version)
            there = [] if force else managers.unowned(live, wanted, who)
            told = [messages.differs("HK524", FORCE.format(", ".join(there)))] if there else []
            return value, owners, str(old.resource_version) if old else "", told

        async def once() -> web.StreamResponse:
            value, owners, seen, told = await self._off(work)
            stated = meta.get("resourceVersion") or seen
            value = {
                **value,
                "metadata": {**value.get("metadata", {}), **({"resourceVersion": stated} if stated else {})},
            }
            return await self._write(request, resource, target, value, key, seen, None, (who, owners), told)

        return await writes.again(once, writes.states_revision(body))

    async def _write(
        self,
        request: web.Request,
        resource: Resource,
        target: Target,
        body: Any,
        key: Key | None,
        seen: str = "",
        create: bool | None = False,
        applied: tuple[ownership.Owner, ownership.Owners] | None = None,
        told: Sequence[str] = (),
    ) -> web.StreamResponse:
        """Create or update. `seen`: the revision that a patch was made on. `create`: None takes what it is.

        `applied`: who applied, and who owns what then. `told`: warnings so far.
        """
        unknown = {"strict": "strict", "ignore": "ignore"}.get(request.query.get("fieldValidation", "").lower(), "warn")
        meta = body.get("metadata") if isinstance(body, dict) else None
        stated = meta.get("resourceVersion") if isinstance(meta, dict) else None
        if stated is not None and create:
            raise Refused(400, "resourceVersion should not be set on objects to be created")
        if stated not in (None, ""):
            count(stated, "metadata.resourceVersion")
        rows = meta.get("managedFields") if isinstance(meta, dict) else None
        manager = request.query.get("fieldManager") or request.headers.get("User-Agent", "").partition("/")[0]

        def work() -> tuple[int, dict[str, Any], list[str]]:
            if key is not None:
                writes.preconditions(resource, key, self.session.store.get(key), create, stated, seen)
            known = self.session.known()
            value = body
            if key is not None and not applied and isinstance(body, dict):
                there = known.objects.get(key)
                stored_spec = plain_spec(there.spec) if there else {}
                value = {**body, "spec": objects.without_defaults(resource.kind, body.get("spec"), stored_spec)}
            name = key.name if key else None
            obj, found = objects.read(resource, value, target.namespace, name, known, unknown, self._accepted)
            warnings = [*told, *found]
            old = self.session.store.get(obj.key)
            writes.preconditions(resource, key or obj.key, old, create, stated, seen)
            wanted = engine.with_backend(self.session, [obj], None if old else self.options.backend)
            options = engine.ApplyOptions()
            engine.judge(self.session, wanted, options, lambda event: warnings.append(_warning(event)))
            if applied:
                managed = managers.encoded(self.session, old, applied[1], applied[0])
            else:
                managed = managers.after_update(self.session, old, wanted[0], manager or "unknown", rows)
            if dry(request.query):
                if old is not None:
                    warnings.append(messages.differs("HK522", DRY_RUN))
                as_if = writes.as_if(wanted[0], old)
                form = objects.shown(self.session.statuses.resource(as_if), managed)
            else:
                # What the client said it knows, or what was read for it: nothing that came between is lost.
                known_at = seen or stated
                revision = int(known_at) if known_at else 0 if old is None else None
                try:
                    stored = engine.record(self.session, wanted, options, Basis(revision, managed))[0]
                except Changed:
                    if create:
                        raise writes.Exists(resource, obj.name) from None
                    raise writes.Modified(resource, obj.name) from None
                self.hub.ring()
                self.keeper.add(stored.key)
                form = self.hub.form(self.session.store.get(stored.key) or stored)
            return (201 if old is None else 200), form, warnings

        status, value, warnings = await self._off(work)
        answer = web.json_response(value, status=status)
        muted = () if self.options.differences else (messages.DIFFERS,)
        messages.warn(answer, [w for w in warnings if not w.startswith(muted)])
        return answer

    def _accepted(self, errors: list[Finding]) -> bool:
        return not errors or (self.options.faithful and faithful.accepted(errors))

    async def delete(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        key = Key(resource.kind, target.namespace, target.name)
        body = await messages.body(request) if request.can_read_body else {}

        def work() -> Object:
            obj = self.stored(resource, key)
            writes.deletable(body, obj.uid, str(obj.resource_version))
            if not dry(request.query, body):
                self.session.store.mark_deleted([key])
                self.hub.ring()
                self.keeper.add(key)
            return obj

        obj = await self._off(work)
        return web.json_response(success(resource, key.name, obj.uid))


def _warning(event: Event) -> str:
    """What is told of a write before it is done, for a header."""
    different = event.type is EventType.DIFFERENCE
    return messages.differs(event.code or "", event.message) if different else event.message
