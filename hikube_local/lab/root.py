"""Throw-away state roots: one for each run of `test`, removed at its end, and by the next run where it was killed."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from hikube_local import files
from hikube_local.api.objects import DEFAULT_BACKEND
from hikube_local.backends import registry
from hikube_local.backends.capabilities import OnThisHost
from hikube_local.backends.protocol import Settings
from hikube_local.locks import holder, locked
from hikube_local.paths import Layout, below
from hikube_local.store.db import Store

KEPT = "kept"  # a file in a root that --keep left


def folder(layout: Layout) -> Path:
    return layout.state / "lab"


def at(layout: Layout, name: str) -> Layout:
    """The layout of a throw-away root, as HIKUBE_LOCAL_HOME would have it; the images are shared."""
    return below(layout, folder(layout) / name / "state")


@contextlib.contextmanager
def made(layout: Layout, keep: bool = False) -> Iterator[Layout]:
    """A new root while the block runs; `keep` leaves it."""
    layout.make()
    sweep(layout)
    name = f"t{secrets.token_hex(3)}"
    with locked(_lock(layout, name)):
        base = files.make_folder(folder(layout) / name, layout.mode)
        if keep:
            files.write(base / KEPT, "")
            (base / "cache").symlink_to(layout.cache)
        own = at(layout, name).make()
        try:
            yield own
        finally:
            if not keep:
                remove(layout, name)


def idle(layout: Layout) -> list[str]:
    """The names of roots whose run is gone."""
    found = sorted(folder(layout).glob("t*")) if folder(layout).is_dir() else []
    return [path.name for path in found if path.is_dir() and holder(_lock(layout, path.name)) is None]


def stale(layout: Layout) -> list[str]:
    """The names of roots whose run is gone; those that --keep left stay until `purge -A --disks`."""
    return [name for name in idle(layout) if not (folder(layout) / name / KEPT).exists()]


def sweep(layout: Layout) -> list[str]:
    """Remove the stale ones."""
    gone = stale(layout)
    for name in gone:
        remove(layout, name)
    return gone


def runs(layout: Layout, name: str) -> bool:
    """Whether something of a root is still up."""
    own = at(layout, name)
    return own.runtime.exists() or bool(_host(own).processes())


def end(layout: Layout, name: str) -> None:
    """End everything of a root; its disks stay."""
    own = at(layout, name)
    _host(own).end()
    shutil.rmtree(own.runtime, ignore_errors=True)


def remove(layout: Layout, name: str) -> None:
    """End everything of a root and remove it."""
    end(layout, name)
    with contextlib.suppress(ValueError, FileNotFoundError):
        files.remove_folder(folder(layout) / name, layout.state)
    _lock(layout, name).unlink(missing_ok=True)


def _host(own: Layout) -> OnThisHost:
    """What ran the machines of a root."""
    return registry.require(registry.make(DEFAULT_BACKEND, own, Store(own), Settings()), OnThisHost)


def _lock(layout: Layout, name: str) -> Path:
    return folder(layout) / f"{name}.lock"
