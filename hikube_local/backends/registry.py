"""The backends by their names, made when first used; the one place where a name becomes a backend."""

from __future__ import annotations

import importlib
import sys
from typing import TypeVar

from hikube_local.api.objects import DEFAULT_BACKEND
from hikube_local.backends.capabilities import NOUNS
from hikube_local.backends.protocol import Backend, Settings
from hikube_local.errors import HikubeError, UsageError
from hikube_local.osdep import UNIX
from hikube_local.paths import Layout
from hikube_local.store.db import Store

_MODULES = {"qemu": "hikube_local.backends.qemu.backend", "simulator": "hikube_local.backends.simulator"}
_ON_LINUX = ("qemu",)
Able = TypeVar("Able")


def names(here: bool = False) -> list[str]:
    """`here`: those that this system can have."""
    return sorted(n for n in _MODULES if not here or n not in _ON_LINUX or _is_linux())


def register(name: str, module: str) -> None:
    """A further one: a module with `make(layout, store, settings)`."""
    _MODULES[name] = module


def make(name: str, layout: Layout, store: Store, settings: Settings) -> Backend:
    """The backend of this name over one state root; HK807 where nobody knows it."""
    if name not in _MODULES:
        raise UsageError("HK807", f"there is no backend {name!r}", fix=f"one of {', '.join(names())}")
    if name in _ON_LINUX:
        require_linux()
    backend: Backend = importlib.import_module(_MODULES[name]).make(layout, store, settings)
    return backend


def _is_linux() -> bool:
    return UNIX and sys.platform.startswith("linux")


def require_linux() -> None:
    """HK611 where no guest can run."""
    if not _is_linux():
        fix = "act on a Linux machine (context create), or try the manifest without guests: --backend simulator"
        raise HikubeError("HK611", "guests run on Linux with QEMU, and this system is none", fix=fix)


def require(backend: Backend, capability: type[Able], who: str = "it") -> Able:
    """The backend as one that has the capability, or HK510."""
    if isinstance(backend, capability):
        return backend
    what = f"{who} uses the backend {backend.name}, which does not support {NOUNS.get(capability, capability.__name__)}"
    fix = f"bring it up with --backend {DEFAULT_BACKEND}" if backend.name != DEFAULT_BACKEND else ""
    raise HikubeError("HK510", what, fix=fix)
