"""Where things are kept: XDG folders for a user, /var/lib, /var/cache and /run for root, or all in HIKUBE_LOCAL_HOME.

Unix sockets are limited to 108 bytes, so they live under a short runtime folder, one for each state root.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from hikube_local.errors import HikubeError, UsageError
from hikube_local.files import make_folder, open_to
from hikube_local.osdep import UNIX, euid
from hikube_local.records import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one state root."""

    state: Path
    cache: Path
    config: Path
    runtime: Path
    root: bool
    shared: bool = False  # state and cache lie in one folder of the user's choice (HIKUBE_LOCAL_HOME)

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
    def serve(self) -> Path:
        """The token and the certificates of `serve`, and where it runs."""
        return self.state / "serve"

    @property
    def images(self) -> Path:
        return self.cache / "images"

    @property
    def warm(self) -> Path:
        """States of machines after their first boot, for warm starts; worth nothing but time."""
        return self.state / "warm"

    @property
    def known_hosts(self) -> Path:
        return self.state / "ssh" / "known_hosts"

    @property
    def own_key(self) -> Path:
        return self.state / "ssh" / "id_ed25519"

    @property
    def ssh_config(self) -> Path:
        """Where the blocks of all machines lie; it is there once `ssh-config --install` made it."""
        return self.state / "ssh" / "config"

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
        """Make the folders: 0700 for a user, 0711 for root (QEMU runs as another user there); HK608 for a stranger's.

        Existing ones that QEMU's user could not pass are opened as far as new ones are: a state root is the same
        whichever command made it.
        """
        for folder in (self.state, self.cache):
            make_folder(folder, self.mode)
            if self.shared:
                _trusted(folder.parent, (0, euid()))
            _trusted(folder, (euid(),))
            open_to(folder, self.mode)
        return self


def layout(environ: dict[str, str] | None = None) -> Layout:
    """The layout that this environment asks for; nothing is made."""
    env = os.environ if environ is None else environ
    root = euid() == 0
    if home := env.get("HIKUBE_LOCAL_HOME"):
        if any(c in home for c in '"\\\n\r') or any(
            ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in home
        ):
            what = "HIKUBE_LOCAL_HOME holds a quote, a backslash, a control character or bytes that are not UTF-8"
            raise UsageError("HK112", what, fix="name another folder")
        try:
            base = Path(home).expanduser().absolute()
        except RuntimeError:
            raise UsageError("HK112", "HIKUBE_LOCAL_HOME refers to the home of a user that does not exist") from None
        state, cache, config = base / "state", base / "cache", base / "config.yaml"
    elif root:
        state, cache = Path("/var/lib/hikube-local"), Path("/var/cache/hikube-local")
        config = Path("/etc/hikube-local/config.yaml")
    else:
        import platformdirs

        state = platformdirs.user_state_path("hikube-local")
        cache = platformdirs.user_cache_path("hikube-local")
        config = platformdirs.user_config_path("hikube-local") / "config.yaml"
    return Layout(state, cache, config, _runtime(env, root) / _tag(state), root, bool(home))


def document(name: str) -> str:
    """Where a page of the documentation lies: in the checkout, or beside an installed program."""
    here = Path(__file__).parent
    found = [p for p in (here.parent / "docs" / name, here / "_docs" / name) if p.is_file()]
    return str(found[0]) if found else f"docs/{name}"


def below(where: Layout, state: Path) -> Layout:
    """Another state root with the same images: its runtime folder lies beside."""
    return replace(where, state=state, runtime=where.runtime.parent / _tag(state), shared=False)


def _trusted(folder: Path, owners: tuple[int, ...]) -> None:
    """HK608 for a folder that somebody else owns or that every user may write to: what lies in it could be anybody's."""
    st = os.stat(folder)
    if not UNIX:
        return  # a person's folders are theirs alone
    if st.st_uid not in owners:
        what, fix = (
            f"belongs to another user (uid {st.st_uid})",
            "choose another HIKUBE_LOCAL_HOME, or run as that user",
        )
    elif st.st_mode & 0o002 and not st.st_mode & 0o1000:
        what, fix = "may be written to by every user of this host", f"chmod o-w {folder}"
    else:
        return
    raise HikubeError("HK608", f"{folder} {what}", fix=fix)


def _tag(state: Path) -> str:
    return hashlib.sha256(os.fsencode(state)).hexdigest()[:8]


def _runtime(env, root: bool) -> Path:
    if root:
        return Path("/run/hikube-local")
    given = env.get("XDG_RUNTIME_DIR", "")
    if given.startswith("/") and len(given) <= 30 and os.access(given, os.W_OK):
        return Path(given) / "hikube-local"
    if not UNIX:
        return Path(tempfile.gettempdir()) / "hikube-local"  # each person's own
    return Path(f"/tmp/hikube-local-{euid()}")


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
    if UNIX and (st.st_uid != euid() or (st.st_mode & 0o022) or not parent.is_dir() or parent.is_symlink()):
        raise HikubeError("HK608", f"{parent} is not private to you", fix=f"remove {parent} or set XDG_RUNTIME_DIR")
    return where.runtime
