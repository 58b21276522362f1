"""ssh's files of ours: a key of our own, host keys pinned under the machine's stable name, and ssh's settings."""

from __future__ import annotations

import re
from pathlib import Path

from hikube_local import files
from hikube_local.api.objects import Object
from hikube_local.locks import locked
from hikube_local.paths import Layout
from hikube_local.run import run

HOST_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+) ([A-Za-z0-9+/]+={0,3})")


def alias(obj: Object) -> str:
    """The name under which ssh knows the machine: web.default.hikube."""
    return f"{obj.name}.{obj.namespace}.hikube"


def own_key(layout: Layout) -> Path:
    """A key pair of ours, made at its first use (0600); its public half beside it as .pub."""
    path = layout.make().own_key
    if path.exists() and _public(path).exists():
        return path
    with locked(layout.locks / "own-key"):
        return pair(path)


def pair(path: Path) -> Path:
    """A key pair at this path (0600), its public half beside it as .pub: as it is there, else made."""
    files.make_folder(path.parent)
    if not path.exists():
        temporary = path.with_name(f"{files.PARTIAL}{path.name}")  # others make theirs in the same folder
        temporary.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hikube-local", "-f", temporary])
        _public(temporary).rename(_public(path))
        temporary.rename(path)
    elif not _public(path).exists():
        files.write(_public(path), run(["ssh-keygen", "-y", "-f", path]).stdout, 0o644)
    return path


def _public(path: Path) -> Path:
    return path.with_name(path.name + ".pub")


def public_of(path: Path) -> str:
    """The public half of a pair, as authorized_keys has it."""
    return _public(path).read_text().strip()


def public(layout: Layout) -> str:
    """The public half of our own key, as authorized_keys has it."""
    return public_of(own_key(layout))


def user_keys() -> list[Path]:
    """The private keys that ssh would try by itself."""
    folder = Path.home() / ".ssh"
    return [
        p for n in ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk") if (p := folder / n).exists()
    ]


def host_keys(text: str) -> list[str]:
    """The public host keys in a text (files of the guest, or its console), as `TYPE BLOB`."""
    from hikube_local.source.ssh_keys import KeyKind, examine

    found = [f"{kind} {blob}" for kind, blob in HOST_KEY.findall(text)]
    return [k for k in dict.fromkeys(found) if examine(k + " x") is KeyKind.GOOD]


def pinned(layout: Layout, obj: Object) -> list[str]:
    """The host keys that are pinned for the machine."""
    if not layout.known_hosts.exists():
        return []
    lines = layout.known_hosts.read_text(errors="replace").splitlines()
    return [line.split(" ", 1)[1] for line in lines if line.split(" ", 1)[0] == alias(obj) and " " in line]


def pin(layout: Layout, obj: Object, keys: list[str]) -> None:
    """Pin these host keys for the machine, in place of those before."""
    with locked(layout.locks / "known_hosts"):
        lines = layout.known_hosts.read_text(errors="replace").splitlines() if layout.known_hosts.exists() else []
        kept = [line for line in lines if line.split(" ", 1)[0] != alias(obj)]
        files.write(layout.known_hosts, "".join(f"{line}\n" for line in [*kept, *(f"{alias(obj)} {k}" for k in keys)]))
