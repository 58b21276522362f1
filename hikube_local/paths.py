"""Where things are kept: XDG folders for a user, /var/lib, /var/cache and /run for root, or all in HIKUBE_LOCAL_HOME.

Unix sockets are limited to 108 bytes, so they live under a short runtime folder, one for each state root.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from hikube_local.errors import HikubeError
from hikube_local.files import make_folder


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one state root."""

    state: Path
    cache: Path
    config: Path
    runtime: Path
    root: bool

    @property
    def id(self) -> str:
        """Eight hex digits that stand for this state root in names on the host."""
        return _tag(self.state)

    @property
    def store(self) -> Path:
        return self.state / "store.sqlite"

    @property
    def locks(self) -> Path:
        return self.state / "locks"

    @property
    def images(self) -> Path:
        return self.cache / "images"

    @property
    def known_hosts(self) -> Path:
        return self.state / "ssh" / "known_hosts"

    @property
    def own_key(self) -> Path:
        return self.state / "ssh" / "id_ed25519"

    @property
    def mode(self) -> int:
        """Of folders: nobody else's, but as root QEMU's user must pass through them."""
        return 0o711 if self.root else 0o700

    def machine(self, namespace: str, name: str) -> Path:
        return self.state / "machines" / namespace / name

    def disk(self, namespace: str, name: str) -> Path:
        return self.state / "disks" / namespace / name

    def lock(self, kind: str, namespace: str, name: str) -> Path:
        return self.locks / f"{kind.lower()}.{namespace}.{name}"

    def make(self) -> Layout:
        """Make the folders: 0700 for a user, 0711 for root (QEMU runs as another user there)."""
        for folder in (self.state, self.cache):
            make_folder(folder, self.mode)
            if os.stat(folder).st_uid != os.geteuid():
                raise HikubeError(
                    "HK608",
                    f"{folder} belongs to another user (uid {os.stat(folder).st_uid})",
                    fix="choose another HIKUBE_LOCAL_HOME, or run as that user",
                )
        return self


def layout(environ: dict[str, str] | None = None) -> Layout:
    """The layout that this environment asks for; nothing is made."""
    env = os.environ if environ is None else environ
    root = os.geteuid() == 0
    if home := env.get("HIKUBE_LOCAL_HOME"):
        base = Path(home).expanduser().absolute()
        state, cache, config = base / "state", base / "cache", base / "config.yaml"
    elif root:
        state, cache = Path("/var/lib/hikube-local"), Path("/var/cache/hikube-local")
        config = Path("/etc/hikube-local/config.yaml")
    else:
        import platformdirs

        state = platformdirs.user_state_path("hikube-local")
        cache = platformdirs.user_cache_path("hikube-local")
        config = platformdirs.user_config_path("hikube-local") / "config.yaml"
    return Layout(state, cache, config, _runtime(env, root) / _tag(state), root)


def below(where: Layout, state: Path) -> Layout:
    """Another state root with the same images: its runtime folder lies beside."""
    return replace(where, state=state, runtime=where.runtime.parent / _tag(state))


def _tag(state: Path) -> str:
    return hashlib.sha256(os.fsencode(state)).hexdigest()[:8]


def _runtime(env, root: bool) -> Path:
    if root:
        return Path("/run/hikube-local")
    given = env.get("XDG_RUNTIME_DIR", "")
    if given.startswith("/") and len(given) <= 30 and os.access(given, os.W_OK):
        return Path(given) / "hikube-local"
    return Path(f"/tmp/hikube-local-{os.geteuid()}")


def make_runtime(where: Layout) -> Path:
    """The runtime folder, made and checked: it must be ours, since /tmp is everybody's."""
    parent = where.runtime.parent
    for last in (False, True):
        try:
            make_folder(parent, where.mode)
            st = os.lstat(parent)
            make_folder(where.runtime, where.mode)
            break
        except FileNotFoundError:  # a `purge` took the empty folder away
            if last:
                raise
    if st.st_uid != os.geteuid() or (st.st_mode & 0o022) or not parent.is_dir() or parent.is_symlink():
        raise HikubeError("HK608", f"{parent} is not ours alone", fix=f"remove {parent} or set XDG_RUNTIME_DIR")
    return where.runtime
