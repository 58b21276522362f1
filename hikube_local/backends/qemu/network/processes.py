"""Processes of ours on this host, found without asking libvirt or the store."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hikube_local.backends.qemu import owners
from hikube_local.paths import Layout

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
