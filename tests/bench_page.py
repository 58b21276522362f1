"""`make bench`, the page: what a browser needs for it (research/page.md's budgets), beside an empty page of the same server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import Program
from tests.endpoint import BASE, Endpoint, disk, machine
from tests.page import CHROMIUM, Look, browser, looking

LIST = f"{BASE}/vminstances"
MACHINES, CHANGES = 1000, 200
Row = Callable[..., None]


def looked_at(work: Path, row: Row) -> None:
    if CHROMIUM is None:
        return
    program = Program(work / "page")
    endpoint = Endpoint(program)
    try:
        with browser() as chromium:
            empty = _seconds(chromium, endpoint, lambda look: look.shows("no machines"))
            for i in range(10):
                endpoint("POST", f"{BASE}/vmdisks", disk(f"d{i}"))
                endpoint("POST", LIST, machine(f"vm-{i}", f"d{i}"))
            row(
                "page: to a list of 10",
                _seconds(chromium, endpoint, lambda look: look.shows("10 in all")),
                empty,
                "no machine",
            )
            row(f"page: to a list of {MACHINES}", *_many(chromium, endpoint, row), "no machine")
            _idle(chromium, endpoint, row)
    finally:
        endpoint.close()


def _link(endpoint: Endpoint) -> str:
    return str(endpoint("POST", "/hikube/v1/page", {}).json()["url"])


def _seconds(chromium: Any, endpoint: Endpoint, seen: Callable[[Look], None]) -> float:
    """From the navigation, signing in included; the middle of three."""
    found = []
    for _ in range(3):
        with looking(chromium) as look:
            link = _link(endpoint)
            begin = time.perf_counter()
            look.open(link)
            seen(look)
            found.append(time.perf_counter() - begin)
    return sorted(found)[1]


def _many(chromium: Any, endpoint: Endpoint, row: Row) -> tuple[float, float]:
    one = endpoint("GET", f"{LIST}/vm-0").json()
    items = []
    for i in range(MACHINES):
        item = json.loads(json.dumps(one))
        item["metadata"] |= {"name": f"vm-{i:04}", "resourceVersion": str(i + 1)}
        items.append(item)
    body = json.dumps({"items": items, "metadata": {"resourceVersion": "1001"}})
    took, sockets = [], []
    for _ in range(3):
        with looking(chromium) as look:
            look.page.route(
                re.compile(r"/vminstances\?$"), lambda r: r.fulfill(body=body, content_type="application/json")
            )
            look.page.route_web_socket(re.compile(r"/vminstances\?watch"), lambda ws: sockets.append(ws))
            link = _link(endpoint)
            begin = time.perf_counter()
            look.open(link)
            look.shows(f"{MACHINES} in all")
            took.append(time.perf_counter() - begin)
            if len(took) == 3:
                row(f"page: a renderer's memory with {MACHINES} machines (GB)", max(map(_pss, _renderers())) / 1e9)
                _changes(look, sockets[-1], items, row)
    with looking(chromium) as look:
        empty = _link(endpoint)
        begin = time.perf_counter()
        look.open(empty)
        look.shows("10 in all")
        return sorted(took)[1], time.perf_counter() - begin


def _changes(look: Look, socket: Any, items: list[dict], row: Row) -> None:
    """What the browser's own counters say that a batch of changes cost in script, and what the page holds."""
    cdp = look.context.new_cdp_session(look.page)
    cdp.send("Performance.enable")

    def counted(name: str) -> float:
        return next(m["value"] for m in cdp.send("Performance.getMetrics")["metrics"] if m["name"] == name)

    before = counted("ScriptDuration")
    for i in range(CHANGES):
        items[i]["metadata"]["resourceVersion"] = str(9000 + i)
        items[i]["status"]["printableStatus"] = "Stopped"
        socket.send(json.dumps({"type": "MODIFIED", "object": items[i]}))
    look.until(lambda: look.page.locator(".state.off").count() == CHANGES, "the changes")
    row(f"page: script for {CHANGES} changes", counted("ScriptDuration") - before)
    row(f"page: JavaScript heap with {MACHINES} machines (GB)", counted("JSHeapUsedSize") / 1e9)


def _idle(chromium: Any, endpoint: Endpoint, row: Row) -> None:
    """The share of a core that `serve` takes with ten tabs open, and that the page's script takes."""
    with looking(chromium) as look:
        look.open(_link(endpoint)).shows("10 in all")
        for _ in range(9):
            tab = look.context.new_page()
            tab.goto(look.page.url)
        look.page.wait_for_timeout(3000)
        begin, spent, drawn = time.perf_counter(), _cpu(endpoint.process.pid), sum(map(_cpu, _renderers()))
        look.page.wait_for_timeout(10000)
        passed = time.perf_counter() - begin
        row("page: a core's share of serve with ten tabs", (_cpu(endpoint.process.pid) - spent) / passed)
        row("page: a core's share of ten idle tabs", (sum(map(_cpu, _renderers())) - drawn) / passed)
    begin = time.perf_counter()
    with looking(chromium) as look:
        look.open(_link(endpoint)).shows("10 in all")
        begin = time.perf_counter()
        endpoint.process.terminate()
        endpoint.process.wait()
        row("page: serve's end with a tab open", time.perf_counter() - begin)


def _renderers() -> list[int]:
    """The processes of the browser that this one drives."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"--type=renderer" in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def _pss(pid: int) -> int:
    """Bytes, what it shares counted by its share (proc(5), smaps_rollup)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", text, re.M)[1]) << 10  # type: ignore[index]


def _cpu(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
