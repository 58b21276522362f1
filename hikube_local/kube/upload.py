"""virtctl's image-upload: a DataVolume is a VMDisk that waits; its content comes to a listener of its own, by a token of one use.

The listener speaks plain http at 127.0.0.1: virtctl would refuse a certificate that it does not know.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from hikube_local.api import names
from hikube_local.api.objects import DISK, Key, Object
from hikube_local.api.sources import FromUpload
from hikube_local.engine import upload as engine
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError
from hikube_local.events import ignore
from hikube_local.kube import kinds, messages
from hikube_local.kube.paths import Target
from hikube_local.kube.query import dry
from hikube_local.kube.status import Cause, Refused
from hikube_local.kube.strangers import Strangers
from hikube_local.render.machine import storage_bytes

VALID = 300.0  # seconds of a token
TOKENS = 1000
SLACK = 1 << 30  # bytes that a file may be larger than its disk: an image in a format has a header and tables
BLOCK = 1 << 20
PATHS = ("/v1beta1/upload", "/v1beta1/upload-async")
PARTIAL = "upload-"  # the names of files that are on their way


class Uploads:
    """Tokens that were given out, and what comes by them.

    `address`: of the listener, once it listens; `backend`: of new disks, None for the usual.
    """

    def __init__(
        self,
        session: Session,
        off: Callable[..., Any],
        long: Callable[..., Any],
        strangers: Strangers,
        backend: str | None,
    ) -> None:
        self.session, self._off, self._long = session, off, long
        self._strangers, self._backend = strangers, backend
        self.address = ""
        self.open = 0  # files that are on their way
        self._tokens: dict[str, tuple[Key, float]] = {}

    def sweep(self) -> None:
        """Remove what an endpoint that was killed had received."""
        for file in self.session.layout.serve.glob(f"{PARTIAL}*"):
            file.unlink(missing_ok=True)

    # on the API

    async def create_volume(self, request: web.Request, target: Target) -> web.StreamResponse:
        """POST of a DataVolume whose content is uploaded."""
        body = await messages.body(request)
        meta = body.get("metadata") if isinstance(body, dict) else None
        spec = body.get("spec") if isinstance(body, dict) else None
        if not isinstance(meta, dict) or not isinstance(spec, dict) or not isinstance(meta.get("name"), str):
            raise Refused(400, "the body is not a DataVolume")
        name = meta["name"]
        wrong = []
        if not name.startswith(names.volume("")):
            wrong.append(
                Cause(f"a DataVolume belongs to a VMDisk here: its name begins with {names.volume('')}", "name")
            )
        source = spec.get("source")
        if not isinstance(source, dict) or set(source) != {"upload"}:
            wrong.append(Cause("only upload; for other sources apply a VMDisk", "spec.source"))
        asked = spec.get("storage") or spec.get("pvc") or {}
        size = asked
        for step in ("resources", "requests", "storage"):
            size = size.get(step) if isinstance(size, dict) else None
        if not isinstance(size, str | int):
            wrong.append(Cause("Required value", "spec.storage.resources.requests.storage"))
        if wrong:
            what = "; ".join(f"{c.field}: {c.message}" for c in wrong)
            raise Refused(422, f'DataVolume "{name[:80]}" is invalid: {what}', causes=tuple(wrong))

        def work() -> Object:
            key = Key(DISK, target.namespace, name.removeprefix(names.volume("")))
            if self.session.store.get(key):
                details = kinds.VOLUMES.details(name)
                raise Refused(409, f'{kinds.VOLUMES.full} "{name}" already exists', "AlreadyExists", details=details)
            disk = engine.new_disk(self.session, target.namespace, key.name, str(size), self._backend)
            self.session.statuses.keep(disk)
            return disk

        if not dry(request.query):
            await self._off(work)
        return web.json_response(body, status=201)

    async def token(self, request: web.Request, target: Target) -> web.StreamResponse:
        """POST of an UploadTokenRequest."""
        body = await messages.body(request)
        spec = body.get("spec") if isinstance(body, dict) else None
        claim = spec.get("pvcName") if isinstance(spec, dict) else None
        key = Key(DISK, target.namespace, str(claim).removeprefix(names.volume("")))
        disk = await self._off(self.session.store.get, key)
        if not isinstance(claim, str) or disk is None:
            raise Refused(404, f'{kinds.CLAIMS.full} "{str(claim)[:80]}" not found')
        if not isinstance(disk.disk.content, FromUpload):
            raise Refused(409, f"{key.ref} does not wait for an upload")
        now = time.monotonic()
        self._tokens = {t: row for t, row in self._tokens.items() if row[1] > now}
        if len(self._tokens) >= TOKENS:
            raise Refused(503, f"the limit of {TOKENS} pending uploads is reached")
        token = secrets.token_urlsafe(32)
        self._tokens[token] = (key, now + VALID)
        return web.json_response({**body, "status": {"token": token}}, status=201)

    def config(self) -> dict[str, Any]:
        """CDI's configuration, where virtctl reads the address of the listener."""
        metadata = {"name": "config", "uid": "cdi", "resourceVersion": "1"}
        status = {"uploadProxyURL": self.address}
        return {"apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "CDIConfig", "metadata": metadata, "status": status}

    # on the listener

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BLOCK)
        for path in PATHS:
            app.router.add_route("HEAD", path, self._head)
            app.router.add_post(path, self._receive)
            app.router.add_put(path, self._receive)
        return app

    def _admitted(self, request: web.Request) -> Key:
        host = request.headers.get("Host", "").rpartition(":")[0]
        if host not in ("127.0.0.1", "localhost") or "Origin" in request.headers:
            raise web.HTTPForbidden(text="this listener accepts uploads only from programs on this host\n")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        row = self._tokens.get(token.strip()) if scheme.lower() == "bearer" else None
        if row is None or row[1] < time.monotonic():
            raise web.HTTPUnauthorized(text="the token is missing or not valid\n")
        self._strangers.welcome(request)
        return row[0]

    async def _head(self, request: web.Request) -> web.StreamResponse:
        self._admitted(request)
        return web.Response()

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        self.open += 1
        try:
            return await self._received(request)
        finally:
            self.open -= 1

    async def _received(self, request: web.Request) -> web.StreamResponse:
        key = self._admitted(request)
        del self._tokens[request.headers["Authorization"].partition(" ")[2].strip()]
        disk = await self._off(self.session.store.get, key)
        if disk is None:
            raise web.HTTPNotFound(text=f"{key.ref} is gone\n")
        most = storage_bytes(disk) + SLACK
        with tempfile.NamedTemporaryFile(dir=self.session.layout.serve, prefix=PARTIAL) as file:
            count = 0
            try:
                async for block in request.content.iter_chunked(BLOCK):
                    count += len(block)
                    if count > most:
                        raise web.HTTPRequestEntityTooLarge(most, count, text=f"larger than {key.ref}\n")
                    await self._off(file.write, block)
                await self._off(file.flush)
                await self._long(self._fill, disk, Path(file.name))
            except HikubeError as e:
                words = "; ".join(filter(None, (e.what, e.why, e.fix)))
                raise web.HTTPBadRequest(text=f"{words} [{e.code}]\n") from None
            except OSError as e:
                raise web.HTTPInsufficientStorage(text=f"the upload cannot be kept: {e.strerror}\n") from None
        return web.Response()

    def _fill(self, disk: Object, file: Path) -> None:
        engine.fill(self.session, disk, file, ignore)
        self.session.statuses.keep(disk)
        engine.go_on(self.session, disk, ignore)
