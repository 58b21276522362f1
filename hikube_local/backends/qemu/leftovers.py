"""What of ours is on this host, found without asking libvirt or the store: for `purge`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hikube_local import files
from hikube_local.backends.qemu import helpers, owners
from hikube_local.paths import Layout

if TYPE_CHECKING:
    from hikube_local.backends.qemu.carrier import Carrier

PROGRAMS = ("qemu-system", "libvirtd", "virtlogd", "dnsmasq", "slirp4netns", "sleep", "tini", "swtpm", "rootlesskit")


def processes(layout: Layout) -> list[tuple[int, str]]:
    """Processes of ours of this state root: a lock of it is their standard input, or a path of it stands in their words."""
    found = []
    root = os.fsencode(layout.runtime)
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            name = os.path.basename(os.readlink(f"/proc/{entry}/exe")).removesuffix(" (deleted)")
            if not name.startswith(PROGRAMS) or (
                os.stat(f"/proc/{entry}").st_uid != os.geteuid()
                and not (layout.root and owners.is_ours(os.stat(f"/proc/{entry}").st_uid))
            ):
                continue
            words = Path(f"/proc/{entry}/cmdline").read_bytes()
            stdin = os.fsencode(os.readlink(f"/proc/{entry}/fd/0"))
            if stdin.startswith(root + b"/") or root + b"/" in words:
                found.append((int(entry), name))
    return sorted(found)


def end(carrier: Carrier) -> None:
    """End the helpers in their order, then whatever is still there."""
    if carrier.run.exists():
        carrier.finish()
    for sent in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 5
        for pid, _ in (left := processes(carrier.layout)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            left = processes(carrier.layout)
    for lock in carrier.run.glob("*.lock"):
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
