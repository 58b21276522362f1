"""The endpoint: requests in, the engine's answers out. Loopback alone: TLS and the token for clients, plain http and both
halves of a session for the page; the paths of OPEN and the page's own files are for everybody.

One event loop; whatever reads or writes the store, or looks at a machine, does so in a pool of threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import resource
import secrets
import socket
import ssl
import stat
import time
from asyncio import sslproto
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from hikube_local.api.objects import INSTANCE
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError, UsageError
from hikube_local.kube import apps, discovery, kinds, messages, metrics, roles
from hikube_local.kube.apps import Apps
from hikube_local.kube.beside import Beside
from hikube_local.kube.credentials import Credentials
from hikube_local.kube.documents import Documents
from hikube_local.kube.guests import Guests
from hikube_local.kube.hub import Hub
from hikube_local.kube.keeper import Keeper
from hikube_local.kube.kept import KeptWrites
from hikube_local.kube.kinds import Resource
from hikube_local.kube.lock import PORT, SOCKET
from hikube_local.kube.looks import Looks, sources
from hikube_local.kube.metrics import Sampler
from hikube_local.kube.paths import Target, parse
from hikube_local.kube.publication import Publication
from hikube_local.kube.roles import Role
from hikube_local.kube.status import MISSING, Refused
from hikube_local.kube.strangers import Strangers
from hikube_local.kube.streams import Streams
from hikube_local.kube.upload import Uploads
from hikube_local.kube.watch import Watching
from hikube_local.page import site, walls
from hikube_local.page.sessions import Sessions
from hikube_local.page.site import ROOT, Site, signed_in
from hikube_local.paths import make_runtime
from hikube_local.plan.steps import RunOptions
from hikube_local.records import dataclass
from hikube_local.source.nodes import Refused as NotRead

LOG = logging.getLogger("hikube_local.kube")
BODY = 3 << 20  # bytes
CONNECTIONS_IDLE = 75.0
FILES = 65536
OPEN = ("/livez", "/readyz", "/healthz", "/version")
# Of pods, what no role of a tenant's has, and what there is here in its place.
_INSTEAD = {
    "exec": "hikube-local ssh, or virtctl ssh",
    "attach": "virtctl console",
    "portforward": "virtctl port-forward vmi/NAME PORT",
}
# Of the application behind the page's own listener, which is no way in for the token.
OF_PAGE = web.AppKey("of_page", bool)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Options:
    """How the endpoint behaves. `port`: None for no TCP at all; `idle`: seconds without a request, then it ends; `socket`: a
    Unix socket beside the one that every endpoint has in its runtime folder."""

    port: int | None = PORT
    idle: float | None = None
    role: Role = Role.OPERATOR
    socket: Path | None = None
    apps: apps.Options = field(default_factory=apps.Options)


class Server:
    """The endpoint of one state root."""

    def __init__(self, session: Session, credentials: Credentials, options: Options) -> None:
        self.session, self.credentials, self.options = session, credentials, options
        self.strangers = Strangers()
        self.hub = Hub(session, options.apps.faithful)
        self.keeper = Keeper(session, RunOptions(), self.hub.failure)
        self.pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="api")
        self.slow = ThreadPoolExecutor(max_workers=4, thread_name_prefix="upload")  # what takes as long as a disk does
        self.watching, self.streams = Watching(self.hub, self._off), Streams(session, self._off)
        self.documents, self.sampler = Documents(session.layout.serve / "documents.db"), Sampler(session)
        self.looks = Looks(sources(session, self.hub, self.documents, self.sampler), self.watching, self._off)
        self.apps = Apps(session, self.hub, self.keeper, self._off, options.apps)
        self.kept = KeptWrites(session, self.documents, self.hub.ring, self._off)
        self.guests = Guests(session, self.keeper, self.streams, self._off)
        self.uploads = Uploads(session, self._off, self._off_long, self.strangers, options.apps.backend)
        self.publication = Publication()
        self.beside = Beside(session, self._permit, self._off, self._off_long, self.hub.ring)
        self.sessions = Sessions()
        self.site = Site(self.sessions)
        self.page: web.AppRunner | None = None  # the page's own listener, while anybody looks
        self._opening = asyncio.Lock()
        self.last = time.monotonic()
        self.stopped = asyncio.Event()

    # the life of it

    async def run(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Serve until `stop` is called, or nobody came for `idle` seconds."""
        _raise_limit()
        # asyncio's room for what comes in is 256 KiB for each TLS connection, from its begin: half of what a watch takes.
        sslproto.SSLProtocol.max_size = 32 << 10
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.credentials.certificate, self.credentials.key)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._close)
            runner = await _running(stack, self.app())
            stack.push_async_callback(self._close_page)
            uploads = await _running(stack, self.uploads.app())
            # The store is there before anybody lists: its revisions begin with it.
            await self._off(self.session.store.note, "serve", port=self.options.port)
            self.uploads.sweep()
            if self.options.port is not None:
                await web.TCPSite(runner, "127.0.0.1", self.options.port, ssl_context=context).start()
                await web.TCPSite(uploads, "127.0.0.1", 0).start()
                self.uploads.address = f"http://127.0.0.1:{uploads.addresses[0][1]}"
            runtime = make_runtime(self.session.layout)
            stack.callback(_if_empty, runtime)
            for path in (runtime / SOCKET, self.options.socket):
                if path is not None:
                    await _on_socket(stack, runner, path)
            self.hub.start(asyncio.get_running_loop())
            self.keeper.start()
            self.sampler.start()
            await ready()
            # Before the first write wants it.
            self.pool.submit(importlib.import_module, "hikube_local.manifests.validate")
            await self._wait(runner, uploads)

    def _close(self) -> None:
        self.keeper.end()
        self.sampler.end()
        self.hub.end()
        self.streams.end()
        for pool in (self.pool, self.slow):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _wait(self, *runners: web.AppRunner) -> None:
        while not self.stopped.is_set():
            self.strangers.sweep(*(r.server for r in (*runners, self.page) if r is not None))
            if self.page is not None and self.sessions.empty:
                await self._close_page(idle=True)
            idle = self.options.idle
            busy = self.watching.open or self.streams.open or self.guests.followers or self.uploads.open
            if idle is not None and not busy and time.monotonic() - self.last > idle:
                return
            try:
                await asyncio.wait_for(self.stopped.wait(), 1.0)
            except TimeoutError:
                continue

    def stop(self) -> None:
        self.keeper.end()
        self.hub.end()
        self.streams.end()
        self.stopped.set()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=BODY)
        app.on_response_prepare.append(_tell_browsers)
        for path in OPEN[:3]:
            app.router.add_get(path, self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/hikube/v1/page", self._page)
        app.add_routes([*self.beside.routes(), *self.site.routes()])
        app.router.add_route("*", "/{path:.*}", self._any)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._admit(request)
            return await handler(request)
        except Refused as e:
            return messages.refusal(e)
        except web.HTTPException as e:
            return messages.refusal(Refused(e.status, MISSING if e.status == 404 else e.reason))
        except (HikubeError, NotRead) as e:
            return messages.refusal(messages.translated(e))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as e:
            LOG.exception("%s %s", request.method, request.path)
            return messages.refusal(Refused(500, f"a bug in hikube-local: {type(e).__name__}; see the output of serve"))

    def _admit(self, request: web.Request) -> None:
        """Who may ask: nobody through a name that was bent to us, no foreign page, nobody unknown.

        Known is the page by its two halves, and whoever has the token and is no page: a page is never to have it.
        """
        if told := walls.refused(request.scheme, request.headers):
            raise Refused(*told)
        if request.path.rstrip("/") in OPEN or self.site.is_open(request.path):
            return
        if session := signed_in(request, self.sessions):
            session.carries(request.protocol)
        else:
            token = walls.bearer(request.headers).encode("utf-8", "surrogateescape")
            known = secrets.compare_digest(token, self.credentials.token.encode())
            if not known or "Origin" in request.headers or OF_PAGE in request.app:
                raise Refused(401, "Unauthorized")
        self.strangers.welcome(request)
        self.last = time.monotonic()

    async def _off(self, work: Callable[..., Any], *words: Any, **more: Any) -> Any:
        """Done in the pool: the loop waits for no disk, no lock and no libvirt."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, partial(work, *words, **more))

    async def _off_long(self, work: Callable[..., Any], *words: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.slow, partial(work, *words))

    # the page

    async def _page(self, request: web.Request) -> web.StreamResponse:
        """A link of one use for whoever has the token; the listener is opened with the first one.

        `tls`: at this very port instead, where a browser warns of our certificate.
        """
        if signed_in(request, self.sessions):
            raise Refused(403, "a page cannot ask for another one: run `hikube-local ui`")
        body = await messages.body(request)
        tls = isinstance(body, dict) and bool(body.get("tls"))
        return web.json_response({"url": await self.link(tls)}, status=201)

    async def link(self, tls: bool = False) -> str:
        """Where the page is, with a code of one use in the fragment, which no request and no log has."""
        code = self.sessions.code()  # first: a listener for which there is a code stays
        origin = f"https://127.0.0.1:{self.options.port}" if tls else await self._open_page()
        return f"{origin}{ROOT}#code={code}"

    async def _open_page(self) -> str:
        """Plain http at 127.0.0.1: a secure context for browsers, and nobody but root reads the loopback."""
        async with self._opening:
            if self.page is None:
                await self._off(site.files)
                app = self.app()
                app[OF_PAGE] = True
                runner = await _set_up(app)
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self.page = runner
            return f"http://127.0.0.1:{self.page.addresses[0][1]}"

    async def _close_page(self, idle: bool = False) -> None:
        async with self._opening:
            if idle and not self.sessions.empty:
                return
            runner, self.page = self.page, None
            if runner is not None:
                await runner.cleanup()

    # requests

    @staticmethod
    async def _health(request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    async def _any(self, request: web.Request) -> web.StreamResponse:
        """Everything that has the form of Kubernetes' API."""
        target = parse(request.method, request.path, request.query)
        if target is None:
            return self.publication.answer(request)
        self._permit(target)
        answer = await self._carried_out(request, target)
        told = self.options.apps.differences and self.options.role is Role.OPERATOR
        if told and not answer.prepared and roles.beyond(target):
            name = f"{target.what}.{target.group}" if target.group else target.what
            messages.warn(answer, [messages.differs("HK523", f"tenant users there may not {target.verb} {name}")])
        return answer

    def _permit(self, target: Target) -> None:
        if not roles.allowed(self.options.role, target):
            raise roles.refusal(self.options.role, target)

    async def _carried_out(self, request: web.Request, target: Target) -> web.StreamResponse:
        if target.group == kinds.SUBRESOURCES:
            return await self._below_a_machine(request, target)
        resource = target.resource
        if target.group == kinds.VOLUMES.group and (target.verb, target.plural, target.name) == (
            "get",
            "cdiconfigs",
            "config",
        ):
            return web.json_response(self.uploads.config())
        if resource is None:
            raise Refused(404, MISSING)
        if target.subresource:
            if resource is kinds.PODS and target.subresource == "log":
                return await self.guests.logs(request, target)
            if resource is kinds.PODS and (instead := _INSTEAD.get(target.subresource)):
                raise Refused(403, f"tenant users have no access to pods/{target.subresource}: use {instead}")
            raise Refused(404, MISSING)
        if target.verb not in resource.verbs or (
            target.verb != "create" and not target.name and target.verb in apps.ONE
        ):
            raise Refused(405, f"{target.verb} is not supported for {resource.full}, only {', '.join(resource.verbs)}")
        if target.verb in kinds.LOOKS:
            return await self.looks.serve(request, resource, target)
        return await self._written(request, resource, target)

    async def _written(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        if resource is kinds.ACCESS or resource is kinds.RULES:
            review = roles.access_review if resource is kinds.ACCESS else roles.rules_review
            return web.json_response(review(self.options.role, await messages.body(request)), status=201)
        if resource is kinds.UPLOAD_TOKENS:
            return await self.uploads.token(request, target)
        if resource is kinds.VOLUMES:
            return await self.uploads.create_volume(request, target)
        room: Any = self.apps if resource.own else self.kept
        answer: web.StreamResponse = await getattr(room, target.verb)(request, resource, target)
        return answer

    async def _below_a_machine(self, request: web.Request, target: Target) -> web.StreamResponse:
        if target.plural == "version" and not target.namespace:
            return web.json_response(discovery.kubevirt_version())
        if target.plural not in (kinds.VMS.plural, kinds.VMIS.plural) or not target.subresource:
            raise Refused(404, MISSING)
        return await self.guests.serve(request, target)

    # figures

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        self._permit(Target("get", "metrics.k8s.io", "v1beta1", "pods"))
        objects = await self._off(self.session.store.objects, INSTANCE)
        text = metrics.exposition(self.sampler.newest, objects)
        return web.Response(body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _raise_limit() -> None:
    """Each watch, each stream and each connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _make_room(path: Path) -> None:
    """Remove what an endpoint that was killed has left at this path; what is anything else stays."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise UsageError("HK810", f"{path} exists and is not a socket", fix="choose another path for --socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise UsageError("HK810", f"another process is listening on {path}", fix="choose another path for --socket")


async def _running(stack: contextlib.AsyncExitStack, app: web.Application) -> web.AppRunner:
    runner = await _set_up(app)
    stack.push_async_callback(runner.cleanup)
    return runner


async def _set_up(app: web.Application) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=CONNECTIONS_IDLE)
    await runner.setup()
    return runner


async def _tell_browsers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in walls.HEADERS.items():
        response.headers.setdefault(name, value)


def _if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


async def _on_socket(stack: contextlib.AsyncExitStack, runner: web.AppRunner, path: Path) -> None:
    """A Unix socket for its owner alone, without TLS; the token is asked for there too."""
    _make_room(path)
    before = os.umask(0o177)
    try:
        await web.UnixSite(runner, str(path)).start()
    finally:
        os.umask(before)
    stack.callback(path.unlink, missing_ok=True)
