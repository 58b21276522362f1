"""The endpoint: requests in, the engine's answers out. Loopback and TLS alone, a token for everything but the paths of OPEN.

One event loop; whatever reads or writes the store, or looks at a machine, does so in a pool of threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from hikube_local.api.objects import INSTANCE, Key, Object
from hikube_local.engine import apply as engine
from hikube_local.engine import power
from hikube_local.engine.session import Session, capabilities
from hikube_local.errors import HikubeError
from hikube_local.kube import apply as ownership
from hikube_local.kube import discovery, managers, messages, objects, writes
from hikube_local.kube.core import Core
from hikube_local.kube.credentials import Credentials
from hikube_local.kube.hub import Hub
from hikube_local.kube.keeper import Keeper
from hikube_local.kube.kinds import GROUP, RESOURCES, Resource
from hikube_local.kube.lock import PORT
from hikube_local.kube.status import Refused, success
from hikube_local.kube.streams import Streams
from hikube_local.kube.watch import Watching, wanted_by
from hikube_local.plan.steps import RunOptions
from hikube_local.source.nodes import Refused as NotRead
from hikube_local.store.db import Basis, Changed

APPLY = "application/apply-patch+yaml"
BODY = 3 << 20  # bytes
CONNECTIONS_IDLE = 75.0
OPEN = ("/livez", "/readyz", "/healthz", "/version")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Options:
    """How the endpoint behaves. `backend`: of new objects, None for the usual; `idle`: seconds without a request, then it ends."""

    port: int = PORT
    backend: str | None = None
    idle: float | None = None


class Server:
    """The endpoint of one state root."""

    def __init__(self, session: Session, credentials: Credentials, options: Options) -> None:
        self.session, self.credentials, self.options = session, credentials, options
        self.hub, self.keeper = Hub(session), Keeper(session, RunOptions())
        self.pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="api")
        self.watching, self.core = Watching(self.hub, self._off), Core(session, self._off)
        self.streams = Streams(session, self._off)
        self.last = time.monotonic()
        self._openapi = json.dumps(discovery.openapi()).encode()
        self._hash = hashlib.sha256(self._openapi).hexdigest()[:16]
        self.stopped = asyncio.Event()

    # the life of it

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until `stop` is called, or nobody came for `idle` seconds."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.credentials.certificate, self.credentials.key)
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=1.0, keepalive_timeout=CONNECTIONS_IDLE)
        await runner.setup()
        try:
            # The store is there before anybody lists: its revisions begin with it.
            await self._off(self.session.store.note, "serve", port=self.options.port)
            await web.TCPSite(runner, "127.0.0.1", self.options.port, ssl_context=context).start()
            self.hub.start(asyncio.get_running_loop())
            self.keeper.start()
            ready()
            await self._wait()
        finally:
            self.keeper.end()
            self.hub.end()
            self.streams.end()
            await runner.cleanup()
            self.pool.shutdown(wait=False, cancel_futures=True)

    async def _wait(self) -> None:
        while not self.stopped.is_set():
            idle = self.options.idle
            if (
                idle is not None
                and not self.watching.open
                and not self.streams.open
                and time.monotonic() - self.last > idle
            ):
                return
            try:
                await asyncio.wait_for(self.stopped.wait(), 1.0)
            except TimeoutError:
                continue

    def stop(self) -> None:
        self.hub.end()
        self.stopped.set()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=BODY)
        get = app.router.add_get
        for path in OPEN[:3]:
            get(path, self._health)
        get("/version", self._json(discovery.version))
        get("/api", self._either(discovery.core_versions, partial(discovery.aggregated, True)))
        get("/apis", self._either(discovery.groups, partial(discovery.aggregated, False)))
        get(f"/apis/{GROUP}", self._json(discovery.group))
        get(f"/apis/{GROUP}/v1alpha1", self._json(discovery.resources))
        get("/api/v1", self._json(discovery.core_resources))
        get("/openapi/v3", self._json(lambda: discovery.openapi_index(self._hash)))
        get(f"/openapi/v3/apis/{GROUP}/v1alpha1", self._schema)
        get("/openapi/v2", self._openapi_v2)
        for path in ("/api/v1/events", "/api/v1/namespaces/{namespace}/events"):
            get(path, self.core.events)
        get("/api/v1/namespaces", self.core.namespaces)
        get("/api/v1/namespaces/{namespace}", self.core.namespace)
        base = f"/apis/{GROUP}/v1alpha1"
        get(f"{base}/{{plural}}", self._list)
        own = f"{base}/namespaces/{{namespace}}/{{plural}}"
        get(own, self._list)
        app.router.add_post(own, self._create)
        get(f"{own}/{{name}}", self._get)
        app.router.add_put(f"{own}/{{name}}", self._update)
        app.router.add_patch(f"{own}/{{name}}", self._patch)
        app.router.add_delete(f"{own}/{{name}}", self._delete)
        kubevirt = "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}"
        app.router.add_put(
            f"{kubevirt}/{{plural:virtualmachines|virtualmachineinstances}}/{{name}}/{{verb}}", self._power
        )
        get("/apis/subresources.kubevirt.io", self._json(discovery.subresources))
        get("/apis/subresources.kubevirt.io/v1/version", self._json(discovery.kubevirt_version))
        one = f"{kubevirt}/{{plural:virtualmachines|virtualmachineinstances}}/{{name}}"
        get(f"{one}/{{what:console|vnc}}", self._stream)
        get(f"{one}/vnc/screenshot", self._screenshot)
        for path in ("portforward/{port:[0-9]+}", "portforward/{port:[0-9]+}/{protocol}"):
            get(f"{one}/{path}", self._stream)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._admit(request)
            return await handler(request)
        except Refused as e:
            return messages.refusal(e)
        except web.HTTPException as e:
            what = "the server could not find the requested resource" if e.status == 404 else e.reason
            return messages.refusal(Refused(e.status, what))
        except (HikubeError, NotRead) as e:
            return messages.refusal(messages.translated(e))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as e:
            import logging

            logging.getLogger("hikube_local.kube").exception("%s %s", request.method, request.path)
            return messages.refusal(Refused(500, f"a bug in hikube-local: {type(e).__name__}; see the output of serve"))

    def _admit(self, request: web.Request) -> None:
        """Who may ask: nobody through a name that was bent to us, no foreign page, nobody without the token."""
        host = request.headers.get("Host", "").rpartition(":")[0].strip("[]") or request.headers.get("Host", "")
        if host not in ("127.0.0.1", "localhost", "::1"):
            raise Refused(403, f"this endpoint is not {host[:80]}: use the address that serve printed")
        if "Origin" in request.headers:
            raise Refused(403, "requests of web pages are not taken")
        if request.path.rstrip("/") in OPEN:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(
            given.strip().encode(), self.credentials.token.encode()
        ):
            raise Refused(401, "Unauthorized")
        self.last = time.monotonic()

    async def _off(self, work: Callable[..., Any], *words: Any, **more: Any) -> Any:
        """Done in the pool: the loop waits for no disk, no lock and no libvirt."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, partial(work, *words, **more))

    # what is the same for everybody

    @staticmethod
    async def _health(request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    @staticmethod
    def _json(make: Callable[[], dict[str, Any]]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.json_response(make())

        return answer

    @staticmethod
    def _either(plain: Callable[[], dict[str, Any]], together: Callable[[], dict[str, Any]]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            accept = request.headers.get("Accept", "")
            if discovery.wants_aggregated(accept):
                kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
                return web.Response(body=json.dumps(together()).encode(), headers={"Content-Type": kind})
            return web.json_response(plain())

        return answer

    async def _schema(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._openapi, content_type="application/json")

    @staticmethod
    async def _openapi_v2(request: web.Request) -> web.StreamResponse:
        if "proto" in request.headers.get("Accept", ""):  # an empty document: kubectl looks at v3 for the rest
            kind = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
            return web.Response(body=b"", headers={"Content-Type": kind})
        return web.json_response({"swagger": "2.0", "info": {"title": "hikube-local", "version": "v1"}, "paths": {}})

    # our kinds

    def _resource(self, request: web.Request) -> Resource:
        found = RESOURCES.get(request.match_info["plural"])
        if found is None:
            raise Refused(404, "the server could not find the requested resource")
        return found

    def _key(self, request: web.Request) -> tuple[Resource, Key]:
        resource = self._resource(request)
        return resource, Key(resource.kind, request.match_info["namespace"], request.match_info["name"])

    def _stored(self, resource: Resource, key: Key) -> Object:
        obj = self.session.store.get(key)
        if obj is None:
            details = {"name": key.name, "group": GROUP, "kind": resource.plural}
            raise Refused(404, f'{resource.full} "{key.name}" not found', details=details)
        return obj

    async def _get(self, request: web.Request) -> web.StreamResponse:
        resource, key = self._key(request)
        value = await self._off(lambda: self.hub.form(self._stored(resource, key)))
        return messages.answer(request, resource, [value], value["metadata"]["resourceVersion"], value)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        resource = self._resource(request)
        namespace = request.match_info.get("namespace")
        wanted = wanted_by(request)
        if request.query.get("watch", "") in ("1", "true"):
            return await self.watching.serve(request, resource, namespace, wanted)

        def read() -> tuple[int, list[dict[str, Any]]]:
            revision, found = self.session.store.snapshot(resource.kind, namespace)
            return revision, [self.hub.form(o) for o in found if wanted(o)]

        revision, values = await self._off(read)
        body = {
            "apiVersion": f"{GROUP}/v1alpha1",
            "kind": f"{resource.kind}List",
            "metadata": {"resourceVersion": str(revision)},
            "items": values,
        }
        return messages.answer(request, resource, values, str(revision), body)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        resource = self._resource(request)
        body = await messages.body(request)
        meta = body.get("metadata") if isinstance(body, dict) else None
        if (
            isinstance(meta, dict)
            and not meta.get("name")
            and isinstance(prefix := meta.pop("generateName", None), str)
        ):
            meta["name"] = prefix[:36] + "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))
        return await self._write(request, resource, body, None, create=True)

    async def _update(self, request: web.Request) -> web.StreamResponse:
        resource, key = self._key(request)
        return await self._write(request, resource, await messages.body(request), key)

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        resource, key = self._key(request)
        if request.content_type == APPLY:
            return await self._apply(request, resource, key)
        how = objects.PATCHES.get(request.content_type)
        if how is None:
            known = ", ".join(sorted((*objects.PATCHES, APPLY)))
            raise Refused(
                415, f"the body of the request was in an unknown format - accepted media types include: {known}"
            )
        patch = await messages.body(request)

        async def once() -> web.StreamResponse:
            before = await self._off(lambda: self.hub.form(self._stored(resource, key)))
            value = await self._off(how, before, patch)
            return await self._write(request, resource, value, key, before["metadata"]["resourceVersion"])

        return await writes.again(once, writes.states_revision(patch))

    async def _apply(self, request: web.Request, resource: Resource, key: Key) -> web.StreamResponse:
        """Server-side apply: the object with these fields of its applier's, or who owns them."""
        manager, force = request.query.get("fieldManager", ""), request.query.get("force") == "true"
        if not manager:
            raise Refused(400, "fieldManager: Required value: is required for apply patch")
        body = await messages.body(request)
        meta = body.get("metadata", {}) if isinstance(body, dict) else None
        if not isinstance(body, dict) or not isinstance(meta, dict) or meta.get("managedFields"):
            raise Refused(400, "the body is no object, or has metadata.managedFields, which must be nil")
        who = ownership.Owner(manager[: managers.LONGEST], "Apply")

        def work() -> tuple[dict[str, Any], ownership.Owners, str]:
            old = self.session.store.get(key)
            live = objects.plain(old) if old else None
            wanted = objects.one_dialect(resource, body)
            value, owners, clash = ownership.apply(live, wanted, managers.owners(self.session, old), who, force)
            if clash:
                raise managers.refused(clash)
            return value, owners, str(old.resource_version) if old else ""

        async def once() -> web.StreamResponse:
            value, owners, seen = await self._off(work)
            stated = meta.get("resourceVersion") or seen
            value = {
                **value,
                "metadata": {**value.get("metadata", {}), **({"resourceVersion": stated} if stated else {})},
            }
            return await self._write(request, resource, value, key, seen, create=None, applied=(who, owners))

        return await writes.again(once, writes.states_revision(body))

    async def _write(
        self,
        request: web.Request,
        resource: Resource,
        body: Any,
        key: Key | None,
        seen: str = "",
        create: bool | None = False,
        applied: tuple[ownership.Owner, ownership.Owners] | None = None,
    ) -> web.StreamResponse:
        """Create or update. `seen`: the revision that a patch was made on. `create`: None takes what it is.

        `applied`: who applied, and who owns what then.
        """
        namespace = request.match_info["namespace"]
        unknown = {"strict": "strict", "ignore": "ignore"}.get(request.query.get("fieldValidation", "").lower(), "warn")
        dry = request.query.get("dryRun") == "All"
        meta = body.get("metadata") if isinstance(body, dict) else None
        stated = meta.get("resourceVersion") if isinstance(meta, dict) else None
        rows = meta.get("managedFields") if isinstance(meta, dict) else None
        manager = request.query.get("fieldManager") or request.headers.get("User-Agent", "").partition("/")[0]

        def work() -> tuple[int, dict[str, Any], list[str]]:
            if key is not None:
                writes.preconditions(resource, key, self.session.store.get(key), create, stated, seen)
            known = self.session.known()
            obj, warnings = objects.read(resource, body, namespace, key.name if key else None, known, unknown)
            old = self.session.store.get(obj.key)
            writes.preconditions(resource, key or obj.key, old, create, stated, seen)
            wanted = engine.with_backend(self.session, [obj], None if old else self.options.backend)
            options = engine.ApplyOptions()
            engine.judge(self.session, wanted, options, lambda event: warnings.append(event.message))
            if applied:
                managed = managers.encoded(self.session, old, applied[1], applied[0])
            else:
                managed = managers.after_update(self.session, old, wanted[0], manager or "unknown", rows)
            if dry:
                form = objects.shown(self.session.statuses.resource(writes.as_if(wanted[0], old)), managed)
            else:
                # What the client said it knows, or what was read for it: nothing that came between is lost.
                known_at = seen or stated
                revision = int(known_at) if known_at else 0 if old is None else None
                try:
                    stored = engine.record(self.session, wanted, options, Basis(revision, managed))[0]
                except Changed:
                    raise writes.Modified(resource, obj.key) from None
                self.keeper.add(stored.key)
                form = self.hub.form(self.session.store.get(stored.key) or stored)
            return (201 if old is None else 200), form, warnings

        status, value, warnings = await self._off(work)
        revision = value["metadata"]["resourceVersion"]
        answer = messages.answer(request, resource, [value], revision, value, status)
        messages.warn(answer, warnings)
        return answer

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        resource, key = self._key(request)
        body = await messages.body(request) if request.can_read_body else {}
        dry = request.query.get("dryRun") == "All" or (isinstance(body, dict) and bool(body.get("dryRun")))
        wants = body.get("preconditions", {}) if isinstance(body, dict) else {}

        def work() -> Object:
            obj = self._stored(resource, key)
            for name, value in (("uid", obj.uid), ("resourceVersion", str(obj.resource_version))):
                if isinstance(wants, dict) and wants.get(name) not in (None, value):
                    raise Refused(409, f"the {name} in the precondition ({wants[name]}) is not the object's ({value})")
            if not dry:
                self.session.store.mark_deleted([key])
                self.keeper.add(key)
            return obj

        obj = await self._off(work)
        return web.json_response(success(key.name, GROUP, resource.plural, obj.uid))

    def _machine(self, request: web.Request) -> Object:
        """The machine of a subresource. The name is the platform's, or the manifest's."""
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        exact = Key(INSTANCE, namespace, name)
        short = Key(INSTANCE, namespace, name.removeprefix("vm-instance-"))
        return self._stored(RESOURCES["vminstances"], exact if self.session.store.get(exact) else short)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        port = int(request.match_info.get("port", "0"))
        if request.match_info.get("protocol", "tcp") != "tcp" or port > 65535:
            raise Refused(400, "only TCP ports can be forwarded")
        obj = await self._off(self._machine, request)
        return await self.streams.serve(request, obj, request.match_info.get("what", "portforward"), port)

    async def _screenshot(self, request: web.Request) -> web.StreamResponse:
        obj = await self._off(self._machine, request)
        picture = await self._off(self.session.require(obj, capabilities.Screens).screenshot, obj)
        return web.Response(body=picture, content_type="image/png")

    async def _power(self, request: web.Request) -> web.StreamResponse:
        """virtctl's start, stop, restart, pause and unpause."""
        verb = request.match_info["verb"]

        def work() -> None:
            obj = self._machine(request)
            if verb in ("pause", "unpause"):
                power.freeze(self.session, obj, verb)
            elif verb in ("start", "stop", "restart"):
                power.ask(self.session, [obj], verb)
                self.keeper.add(obj.key)
            else:
                raise Refused(404, "the server could not find the requested resource")

        await self._off(work)
        return web.Response(status=202)
