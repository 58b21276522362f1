"""What of ours is on this host, found without asking libvirt or the store: for `purge`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

from hikube_local import files
from hikube_local.backends.qemu.network import helpers
from hikube_local.backends.qemu.network.processes import processes
from hikube_local.backends.qemu.network.sandbox import Sandbox
from hikube_local.paths import Layout


def end(sandbox: Sandbox) -> None:
    """End the helpers in their order, then whatever is still there."""
    if sandbox.run.exists():
        sandbox.finish()
    for sent in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 5
        for pid, _ in (left := processes(sandbox.layout)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            left = processes(sandbox.layout)
    for lock in sandbox.run.glob("*.lock"):
        helpers.end(lock)


def folders(layout: Layout, state: bool, images: bool) -> list[Path]:
    """The folders that go: sockets and machines always, the whole state with its disks or the cache only when asked."""
    wanted = [layout.runtime, *([layout.state] if state else [layout.state / "machines"])]
    wanted += [layout.cache] if images else []
    return [p for p in wanted if p.exists()]


def remove(layout: Layout, state: bool, images: bool) -> None:
    for folder in folders(layout, state, images):
        if folder == layout.state / "machines":
            files.remove_folder(folder, layout.state)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        layout.runtime.parent.rmdir()  # other state roots may have theirs there
