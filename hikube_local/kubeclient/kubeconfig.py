"""kubeconfig files as kubectl reads them (kubernetes.io, "Organizing Cluster Access Using kubeconfig Files"); pure, but for reading.

The context is always named by whoever asks: `current-context` is whatever another terminal chose last, and is never used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from hikube_local.errors import UsageError
from hikube_local.records import dataclass

MOST = 4 << 20  # bytes of one file
EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


@dataclass(frozen=True, slots=True)
class Plugin:
    """A program that logs in (an exec plugin): its words, what it wants in its environment, and who may talk to it."""

    words: tuple[str, ...]
    version: str
    environment: dict[str, str] = field(default_factory=dict)
    interactive: str = "IfAvailable"
    cluster: bool = False  # it wants to be told of the cluster
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """How one shows who one is: one of these."""

    token: str = field(default="", repr=False)
    token_file: Path | None = None
    certificate: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)
    plugin: Plugin | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a context leads, and as whom. `ca`: PEM, empty for the host's own CAs; `server_name`: checked instead of the URL's."""

    context: str
    server: str
    namespace: str = ""
    user: str = ""
    ca: bytes = b""
    server_name: str = ""
    proxy: str = ""
    login: Login = Login()

    @property
    def fingerprint(self) -> str:
        """Of the CA: what tells one cluster behind a name from another."""
        return hashlib.sha256(self.ca).hexdigest() if self.ca else ""


def read(paths: list[Path], name: str) -> Target:
    """The context of this name; HK820 with the names that there are. Of several files the first that says something counts."""
    merged = _merged(paths)
    known = ", ".join(sorted(merged["contexts"])) or "none"
    if name not in merged["contexts"]:
        fix = "name one of them with --kube-context"
        raise _off(f"there is no context {name!r} in {_where(paths)}", f"there are: {known}", fix)
    folder, context = merged["contexts"][name]
    cluster_folder, cluster = _named(merged, "clusters", context.get("cluster"), name)
    user_folder, user = _named(merged, "users", context.get("user"), name) if context.get("user") else (folder, {})
    server = _text(cluster, "server").rstrip("/")
    if not _server(server):
        raise _off(f"context {name}: the server {server[:120]!r} is not an https:// address", "", "mend the kubeconfig")
    if cluster.get("insecure-skip-tls-verify"):
        what = f"context {name}: insecure-skip-tls-verify lets anybody answer in the cluster's place"
        raise _off(what, "", "put the cluster's CA into certificate-authority-data")
    return Target(
        name,
        server,
        _text(context, "namespace"),
        _text(context, "user"),
        _content(cluster, "certificate-authority", cluster_folder),
        _text(cluster, "tls-server-name"),
        _text(cluster, "proxy-url"),
        _login(user, user_folder, name),
    )


def names(paths: list[Path]) -> list[str]:
    """Of all contexts in these files."""
    return sorted(_merged(paths)["contexts"])


def _merged(paths: list[Path]) -> dict[str, dict[str, tuple[Path, dict[str, Any]]]]:
    """Each entry by its name, with the folder that its relative paths are relative to."""
    out: dict[str, dict[str, tuple[Path, dict[str, Any]]]] = {"contexts": {}, "clusters": {}, "users": {}}
    found = False
    for path in paths:
        try:
            if path.stat().st_size > MOST:
                raise _off(f"{path} is larger than {MOST} bytes", "", "name a kubeconfig")
            text = path.read_bytes()
        except FileNotFoundError:
            continue  # as kubectl: of a list those count that are there
        except OSError as e:
            raise _off(f"{path} cannot be read: {e.strerror}", "", "name a kubeconfig that you may read") from None
        found = True
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as e:
            raise _off(f"{path} is not YAML", str(e)[:300], "mend the kubeconfig") from None
        for kind, entries in out.items():
            rows = value.get(kind) if isinstance(value, dict) else None
            for row in rows if isinstance(rows, list) else []:
                if isinstance(row, dict) and isinstance(row.get("name"), str):
                    about = row.get(kind[:-1])
                    entries.setdefault(row["name"], (path.absolute().parent, about if isinstance(about, dict) else {}))
    if not found:
        raise _off(f"there is no kubeconfig {_where(paths)}", "", "name it with --kubeconfig FILE")
    return out


def _named(merged: dict[str, Any], kind: str, name: Any, context: str) -> tuple[Path, dict[str, Any]]:
    if not isinstance(name, str) or name not in merged[kind]:
        raise _off(f"context {context} names the {kind[:-1]} {name!r}, which is not there", "", "mend the kubeconfig")
    found: tuple[Path, dict[str, Any]] = merged[kind][name]
    return found


def _login(user: dict[str, Any], folder: Path, context: str) -> Login:
    if "auth-provider" in user:
        name = user["auth-provider"].get("name", "?") if isinstance(user["auth-provider"], dict) else "?"
        what = f"context {context}: the auth-provider {str(name)[:60]!r} is not supported"
        raise _off(what, "kubectl dropped auth-providers in 1.26", "use an exec plugin, such as kubectl oidc-login")
    certificate = _content(user, "client-certificate", folder)
    key = _content(user, "client-key", folder)
    if user.get("username"):
        raise _off(f"context {context}: a user name and a password are not supported", "", "use a token")
    token_file = _text(user, "tokenFile")
    plugin = _plugin(user["exec"], folder, context) if isinstance(user.get("exec"), dict) else None
    return Login(_text(user, "token"), folder / token_file if token_file else None, certificate, key, plugin)


def _plugin(row: dict[str, Any], folder: Path, context: str) -> Plugin:
    version, command = _text(row, "apiVersion"), _text(row, "command")
    if version not in EXEC_VERSIONS:
        what = f"context {context}: the exec plugin speaks {version[:80]!r}"
        raise _off(what, "", f"one of {', '.join(EXEC_VERSIONS)}")
    if "/" in command:  # as kubectl: one with a slash lies beside the file that names it
        command = str(folder / command)
    words = tuple(str(w) for w in _list(row, "args"))
    pairs = {str(r["name"]): str(r.get("value", "")) for r in _list(row, "env") if isinstance(r, dict) and "name" in r}
    interactive = _text(row, "interactiveMode") or "IfAvailable"
    hint = _text(row, "installHint")
    return Plugin((command, *words), version, pairs, interactive, row.get("provideClusterInfo") is True, hint)


def _content(row: dict[str, Any], name: str, folder: Path) -> bytes:
    """Of NAME-data, or of the file that NAME names."""
    if data := _text(row, f"{name}-data"):
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error:
            raise _off(f"{name}-data is not base64", "", "mend the kubeconfig") from None
    if not (path := _text(row, name)):
        return b""
    try:
        return (folder / path).read_bytes()
    except OSError as e:
        raise _off(f"{name} {folder / path} cannot be read: {e.strerror}", "", "mend the kubeconfig") from None


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _list(row: dict[str, Any], name: str) -> list[Any]:
    value = row.get(name)
    return value if isinstance(value, list) else []


def _server(url: str) -> bool:
    """Whether it is an address as this client takes it: without a password in it, and with a port that is one."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc and (parts.port or 443) > 0
    except ValueError:
        return False


def _where(paths: list[Path]) -> str:
    return ", ".join(map(str, paths))


def _off(what: str, why: str, fix: str) -> UsageError:
    return UsageError("HK820", what, why, fix)
