"""One endpoint for a state root; who looks learns its port."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from hikube_local import files, locks
from hikube_local.errors import HikubeError
from hikube_local.paths import Layout

SOCKET = "api.sock"  # in the runtime folder of the state root: for this user's own programs, such as an ssh context
PORT = 26443  # of its own: kubectl keeps what it learned of a server by its port


@contextlib.contextmanager
def held(layout: Layout, port: int | None) -> Iterator[None]:
    """Hold the lock of this state root's endpoint; HK609 with its port where another one runs."""
    path = layout.locks / "serve"
    if locks.holder(path) is not None:
        there = _noted(layout)
        fix = f'use it with: eval "$(hikube-local kubeconfig --env)"; stop it with: kill {there.get("pid", "PID")}'
        what = f"serve is already running for {layout.state}, on port {there.get('port', '?')}"
        raise HikubeError("HK609", what, fix=fix)
    with locks.locked(path, patience=2.0):
        files.write_json(layout.serve / "serve.json", {"pid": os.getpid(), "port": port})
        yield


def _noted(layout: Layout) -> dict[str, int]:
    row = files.read_json(layout.serve / "serve.json")
    return row if isinstance(row, dict) else {}


def running(layout: Layout) -> int | None:
    """The port of the endpoint that runs now."""
    return port(layout) if locks.holder(layout.locks / "serve") is not None else None


def port(layout: Layout) -> int | None:
    """The port of the endpoint that runs, or of the one that ran last."""
    return _noted(layout).get("port")
