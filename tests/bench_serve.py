"""`make bench`, the endpoint: how soon it answers, what many objects and many watches cost."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from hikube_local.api.objects import DISK, Object
from hikube_local.manifests.models import read_spec
from hikube_local.paths import layout
from hikube_local.store.db import Store
from tests import clients
from tests.conftest import PAIR, Program
from tests.endpoint import BASE, Endpoint, disk

OBJECTS, WATCHES, CHANGES, MACHINES = 1000, 200, 1000, 10
Row = Callable[..., None]


def serving(work: Path, row: Row) -> None:
    program = Program(work / "serve")
    begin = time.perf_counter()
    endpoint = Endpoint(program)
    endpoint("GET", "/livez")
    took = time.perf_counter() - begin
    client = _kubectl()
    base = _time(client, "version", "--client") if client else None
    row("serve: from its start to an answer", took, base, "kubectl version --client")
    try:
        _fill(program)
        _settled(endpoint)
        _looks(endpoint, row, client, base)
        asyncio.run(_watches(endpoint, row))
        row("serve: memory (GB)", _rss(endpoint.process.pid) / 1e9)
    finally:
        endpoint.close()
    _idle(work, row)


def _kubectl() -> Path | None:
    found = clients.fetch(34)
    return found.kubectl if found else None


def _time(client: Path, *words: str, env: dict[str, str] | None = None) -> float:
    begin = time.perf_counter()
    subprocess.run([client, *words], check=True, stdout=subprocess.DEVNULL, env=env)
    return time.perf_counter() - begin


def _fill(program: Program) -> None:
    """Objects straight into the store: it is the endpoint that is measured."""
    spec = read_spec(DISK, {"storage": "1Gi"})
    store = Store(layout({"HIKUBE_LOCAL_HOME": str(program.home)}))
    made = [
        Object(kind=DISK, namespace="default", name=f"o{n}", spec=spec, backend="simulator") for n in range(OBJECTS)
    ]
    store.put(made)


def _settled(endpoint: Endpoint) -> None:
    """Until the keeper has looked at all of them once: objects that nobody had looked at are no usual state."""
    before = ""
    while (now := endpoint("GET", f"{BASE}/vmdisks").json()["metadata"]["resourceVersion"]) != before:
        before = now
        time.sleep(3)


def _looks(endpoint: Endpoint, row: Row, client: Path | None, base: float | None) -> None:
    endpoint("GET", f"{BASE}/vmdisks")  # forms are made once a revision
    begin = time.perf_counter()
    assert len(endpoint("GET", f"{BASE}/vmdisks").json()["items"]) >= OBJECTS
    row(f"serve: get of {OBJECTS} objects (JSON)", time.perf_counter() - begin, base, "kubectl version --client")
    if client is not None:
        config = endpoint.program("kubeconfig", "--env").out.split("=", 1)[1].strip()
        env = {**os.environ, "KUBECONFIG": config, "HOME": str(endpoint.program.home)}
        _time(client, "get", "vmdisks", env=env)
        words = f"serve: kubectl get of {OBJECTS} objects"
        row(words, _time(client, "get", "vmdisks", env=env), base, "kubectl version --client")


async def _watches(endpoint: Endpoint, row: Row) -> None:
    context = ssl.create_default_context(cafile=str(endpoint.folder / "ca.crt"))
    head = {"Authorization": str(endpoint.http.headers["Authorization"])}
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    forever = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(endpoint.url, headers=head, connector=connector, timeout=forever) as client:
        async with client.get(f"{BASE}/vmdisks") as answer:
            revision = (await answer.json())["metadata"]["resourceVersion"]
        first: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        params = {"watch": "true", "resourceVersion": revision}

        async def watch() -> list[tuple[str, str]]:
            seen: list[tuple[str, str]] = []
            async with client.get(f"{BASE}/vmdisks", params=params) as answer:
                async for line in answer.content:
                    value = json.loads(line)["object"]["metadata"]
                    if value["name"] == "first" and not first.done():
                        first.set_result(time.perf_counter())
                    seen.append((value["name"], value["resourceVersion"]))
                    if value["name"] == "last":
                        return seen
            return seen

        row("serve: write to a watch's event", await _one_watch(client, params))
        tasks = [asyncio.ensure_future(watch()) for _ in range(WATCHES)]
        await asyncio.sleep(2)
        begin = time.perf_counter()
        async with client.post(f"{BASE}/vmdisks", json=disk("first")) as answer:
            assert answer.status == 201
        row(f"serve: write to the first of {WATCHES} watches' events", await first - begin)
        begin = time.perf_counter()
        for n in range(CHANGES):
            body = {"metadata": {"labels": {"n": str(n)}}}
            type = {"Content-Type": "application/merge-patch+json"}
            async with client.patch(f"{BASE}/vmdisks/o{n % OBJECTS}", data=json.dumps(body), headers=type) as answer:
                assert answer.status == 200
        async with client.post(f"{BASE}/vmdisks", json=disk("last")) as answer:
            assert answer.status == 201
        seen = await asyncio.wait_for(asyncio.gather(*tasks), 600)
        twice = sum(len(rows) - len(set(rows)) for rows in seen)
        patched = [sum(name.startswith("o") for name, _ in rows) for rows in seen]
        words = f"serve: {CHANGES} changes, each seen by {WATCHES} watches"
        row(words, time.perf_counter() - begin)
        words = f"  told twice: {twice}; of {CHANGES} changes each watch saw {min(patched)} to {max(patched)}"
        print(words, file=sys.__stdout__, flush=True)


async def _one_watch(client: aiohttp.ClientSession, params: dict[str, str], rounds: int = 15) -> float:
    """Seconds from a write's first byte to its event at a watch beside it: the median."""
    took = []
    async with client.get(f"{BASE}/vmdisks", params=params) as events:
        for n in range(rounds):
            begin = time.perf_counter()
            async with client.post(f"{BASE}/vmdisks", json=disk(f"one-{n}")) as answer:
                assert answer.status == 201
            while json.loads(await events.content.readline())["object"]["metadata"]["name"] != f"one-{n}":
                pass
            took.append(time.perf_counter() - begin)
            await asyncio.sleep(0.2)
    return statistics.median(took)


def _rss(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def _idle(work: Path, row: Row) -> None:
    program = Program(work / "idle")
    both = PAIR.split("---\n")
    text = "---\n".join(
        p.replace("name: sys", f"name: s{n}").replace("name: web", f"name: w{n}").replace("sys", f"s{n}")
        for n in range(MACHINES)
        for p in both
    )
    program("up", program.file("ten.yaml", text), "--backend", "simulator")
    endpoint = Endpoint(program)
    try:
        time.sleep(5)
        before = _ticks(endpoint.process.pid)
        time.sleep(20)
        spent = (_ticks(endpoint.process.pid) - before) / os.sysconf("SC_CLK_TCK") / 20
        row(f"serve: a core's share, {MACHINES} machines, idle", spent)
    finally:
        endpoint.close()


def _ticks(pid: int) -> int:
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(parts[11]) + int(parts[12])
