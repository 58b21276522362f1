"""virtctl's streams: a machine's console, its screen, and its ports, over a websocket that carries bytes as they are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from hikube_local.api.objects import Object
from hikube_local.engine.session import Session, capabilities
from hikube_local.kube.status import Refused
from hikube_local.run import clean_environment

PROTOCOL = "plain.kubevirt.io"
BLOCK = 1 << 16
PATIENCE = 20.0  # seconds that a client may take to accept a block
OPEN = 200  # streams at once


class Reader(Protocol):
    """asyncio's StreamReader, as far as it is used."""

    async def read(self, n: int = -1) -> bytes: ...


class Writer(Protocol):
    """asyncio's StreamWriter, as far as it is used."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...


class Streams:
    """All streams that are open."""

    def __init__(self, session: Session, off: Callable[..., Any]) -> None:
        self.session, self._off, self.open = session, off, 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, request: web.Request, obj: Object, what: str, port: int = 0) -> web.StreamResponse:
        """`what`: console, vnc or portforward. What cannot be reached is an answer of HTTP, not of the stream."""
        if self.open >= OPEN:
            raise Refused(503, f"the limit of {OPEN} open streams is reached")
        if not web.WebSocketResponse().can_prepare(request):
            raise Refused(400, f"{what} needs a websocket ({PROTOCOL})")
        self.open += 1
        try:
            async with contextlib.AsyncExitStack() as stack:
                reader, writer = await stack.enter_async_context(self._reach(obj, what, port))
                socket = web.WebSocketResponse(protocols=(PROTOCOL,), max_msg_size=1 << 20, heartbeat=30.0)
                await socket.prepare(request)
                await self._carry(socket, reader, writer)
                return socket
        finally:
            self.open -= 1

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()

    @contextlib.asynccontextmanager
    async def _reach(self, obj: Object, what: str, port: int) -> AsyncIterator[tuple[Reader, Writer]]:
        if what == "portforward":
            dials = self.session.require(obj, capabilities.Dials)
            with dials.connector(obj, port) as words:
                pipe = asyncio.subprocess.PIPE
                process = await asyncio.create_subprocess_exec(
                    *words, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, env=clean_environment()
                )
                assert process.stdin is not None and process.stdout is not None
                try:
                    yield process.stdout, process.stdin
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
            return
        if what == "console":
            path = await self._off(self.session.require(obj, capabilities.Consoles).console, obj)
        else:
            path = await self._off(self.session.require(obj, capabilities.Screens).screen, obj)
        try:
            reader, writer = await asyncio.open_unix_connection(str(path))
        except OSError as e:
            raise Refused(409, f"the {what} of {obj.name} cannot be opened: {e.strerror}") from None
        try:
            yield reader, writer
        finally:
            writer.close()

    async def _carry(self, socket: web.WebSocketResponse, reader: Reader, writer: Writer) -> None:
        """Both ways, until one of them ends."""

        async def out() -> None:
            while block := await reader.read(BLOCK):
                await asyncio.wait_for(socket.send_bytes(block), PATIENCE)

        async def into() -> None:
            async for message in socket:
                if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                    return
                writer.write(message.data if isinstance(message.data, bytes) else message.data.encode())
                await writer.drain()

        tasks = {asyncio.ensure_future(out()), asyncio.ensure_future(into())}
        self._tasks |= tasks
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks -= tasks
            with contextlib.suppress(ConnectionError, asyncio.TimeoutError, RuntimeError):
                await asyncio.wait_for(socket.close(), 2.0)
