"""Run by tests/e2e/test_serve.py inside its host: a client of `serve` that speaks as virtctl, kubectl and Prometheus do."""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

VMI = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm-instance-web"
CDI = "/apis/cdi.kubevirt.io/v1beta1/namespaces/default"


async def main(folder: str, port: str, image: str, patience: str) -> None:
    serve = Path(folder)
    context = ssl.create_default_context(cafile=str(serve / "ca.crt"))
    head = {"Authorization": f"Bearer {(serve / 'token').read_text()}"}
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(f"https://127.0.0.1:{port}", headers=head, connector=connector) as client:
        await streams(client)
        await figures(client, float(patience))
        await upload(client, Path(image), float(patience))
        async with client.put(f"{VMI}/softreboot", json={}) as answer:
            print("soft reboot:", answer.status)


async def streams(client: aiohttp.ClientSession) -> None:
    async with client.ws_connect(f"{VMI}/portforward/80/tcp", protocols=("plain.kubevirt.io",)) as ws:
        assert ws.protocol == "plain.kubevirt.io"
        await ws.send_bytes(b"GET / HTTP/1.0\r\n\r\n")
        page = await until(ws, b"hello from")
        print("page:", page.decode(errors="replace").splitlines()[-1])
    async with client.ws_connect(f"{VMI}/console", protocols=("plain.kubevirt.io",)) as ws:
        await ws.send_bytes(b"\necho typed-$((6*7))\n")
        await until(ws, b"typed-42")
        print("console: typed-42")
    async with client.ws_connect(f"{VMI}/vnc", protocols=("plain.kubevirt.io",)) as ws:
        print("vnc:", (await until(ws, b"RFB 003")).decode(errors="replace").strip())
    async with client.get(f"{VMI}/vnc/screenshot") as answer:
        print("screenshot:", (await answer.read())[1:4].decode())
    async with client.get(f"{VMI}/console") as answer:
        print("plain GET:", answer.status)
    async with client.get(f"{VMI}/guestosinfo") as answer:
        print("no agent:", answer.status)


async def until(ws: aiohttp.ClientWebSocketResponse, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        seen += await ws.receive_bytes(timeout=60)
    return seen


async def get(client: aiohttp.ClientSession, path: str) -> Any:
    async with client.get(path) as answer:
        return await answer.json() if answer.content_type == "application/json" else await answer.text()


async def come(client: aiohttp.ClientSession, path: str, holds: Any, patience: float) -> Any:
    """What a GET answers, once it holds."""
    deadline = time.monotonic() + 60 * patience
    while not holds(found := await get(client, path)):
        assert time.monotonic() < deadline, f"{path}: {found}"
        await asyncio.sleep(0.5)
    return found


async def figures(client: aiohttp.ClientSession, patience: float) -> None:
    (pod,) = (await get(client, "/api/v1/namespaces/default/pods"))["items"]
    name = pod["metadata"]["name"]
    log = await get(client, f"/api/v1/namespaces/default/pods/{name}/log?container=compute&tailLines=400")
    print("log:", "typed-42" in log)
    metrics = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods"
    rows = await come(client, metrics, lambda v: v["items"], patience)
    print("top:", rows["items"][0]["metadata"]["name"] == name, rows["items"][0]["containers"][0]["usage"]["memory"])
    text = await get(client, "/metrics")
    for metric in ("cpu_usage_seconds_total", "network_receive_bytes_total", "storage_read_traffic_bytes_total"):
        row = next(line for line in text.splitlines() if line.startswith(f"kubevirt_vmi_{metric}{{"))
        print(f"{metric}:", float(row.rpartition(" ")[2]) > 0)
    history = "/hikube/v1/namespaces/default/vminstances/web/history?since=5m"
    found = await come(client, history, lambda v: v["time"], patience)
    print("history:", len({len(found[k]) for k in found if k != "step"}) == 1)


async def upload(client: aiohttp.ClientSession, image: Path, patience: float) -> None:
    """As virtctl image-upload does, step by step."""
    volume = {
        "apiVersion": "cdi.kubevirt.io/v1beta1",
        "kind": "DataVolume",
        "metadata": {"name": "vm-disk-up"},
        "spec": {"source": {"upload": {}}, "storage": {"resources": {"requests": {"storage": "1Gi"}}}},
    }
    async with client.post(f"{CDI}/datavolumes", json=volume) as answer:
        assert answer.status == 201, await answer.text()
    one = f"{CDI}/datavolumes/vm-disk-up"
    await come(client, one, lambda v: v["status"]["phase"] == "UploadReady", patience)
    proxy = (await get(client, "/apis/cdi.kubevirt.io/v1beta1/cdiconfigs/config"))["status"]["uploadProxyURL"]
    asked = {"metadata": {"name": "up"}, "spec": {"pvcName": "vm-disk-up"}}
    path = "/apis/upload.cdi.kubevirt.io/v1beta1/namespaces/default/uploadtokenrequests"
    async with client.post(path, json=asked) as answer:
        token = (await answer.json())["status"]["token"]
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as proxied:
        async with proxied.head(f"{proxy}/v1beta1/upload-async") as answer:
            assert answer.status == 200
        with open(image, "rb") as body:
            async with proxied.post(f"{proxy}/v1beta1/upload-async", data=body) as answer:
                assert answer.status == 200, await answer.text()
    claim = "/api/v1/namespaces/default/persistentvolumeclaims/vm-disk-up"
    phase = "cdi.kubevirt.io/storage.pod.phase"
    await come(client, claim, lambda v: v["metadata"]["annotations"][phase] == "Succeeded", patience)
    print("upload: Succeeded")


asyncio.run(main(*sys.argv[1:]))
