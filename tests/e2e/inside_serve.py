"""Run by tests/e2e/test_serve.py inside its host: a client of `serve` that speaks websockets as virtctl does."""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

import aiohttp


async def main(folder: str, port: str) -> None:
    serve = Path(folder)
    context = ssl.create_default_context(cafile=str(serve / "ca.crt"))
    head = {"Authorization": f"Bearer {(serve / 'token').read_text()}"}
    base = f"https://127.0.0.1:{port}/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm-instance-web"
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(headers=head, connector=connector) as client:
        async with client.ws_connect(f"{base}/portforward/80/tcp", protocols=("plain.kubevirt.io",)) as ws:
            assert ws.protocol == "plain.kubevirt.io"
            await ws.send_bytes(b"GET / HTTP/1.0\r\n\r\n")
            page = await until(ws, b"hello from")
            print("page:", page.decode(errors="replace").splitlines()[-1])
        async with client.ws_connect(f"{base}/console", protocols=("plain.kubevirt.io",)) as ws:
            await ws.send_bytes(b"\necho typed-$((6*7))\n")
            await until(ws, b"typed-42")
            print("console: typed-42")
        async with client.ws_connect(f"{base}/vnc", protocols=("plain.kubevirt.io",)) as ws:
            print("vnc:", (await until(ws, b"RFB 003")).decode(errors="replace").strip())
        async with client.get(f"{base}/vnc/screenshot") as answer:
            print("screenshot:", (await answer.read())[1:4].decode())
        async with client.get(f"{base}/console") as answer:
            print("plain GET:", answer.status)


async def until(ws: aiohttp.ClientWebSocketResponse, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        seen += await ws.receive_bytes(timeout=60)
    return seen


asyncio.run(main(*sys.argv[1:]))
