"""The header, or the certificate, that shows who one is; a plugin is run again when what it gave has ended."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hikube_local import log
from hikube_local.errors import HikubeError
from hikube_local.files import make_folder, write
from hikube_local.kubeclient.kubeconfig import Plugin, Target
from hikube_local.locks import locked
from hikube_local.records import dataclass
from hikube_local.text import one_line

EARLY = 10.0  # seconds before its end that a credential is renewed
MOST = 1 << 20  # bytes that a plugin may answer


@dataclass(frozen=True, slots=True)
class Proof:
    """What goes with a request. `ends`: Unix seconds, None for never; certificate and key are PEM."""

    token: str = ""
    certificate: bytes = b""
    key: bytes = b""
    ends: float | None = None


class Logins:
    """One person at one cluster. `folder`: of this context alone, where keys and certificates lie as files (0600) until the context is removed."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self._folder = target, folder
        self._kept: Proof | None = None
        self._turn = threading.Lock()

    def proof(self, refused: Proof | None = None) -> Proof:
        """`refused`: what is not taken any more. Of several that had it one asks for another, which the others get, too."""
        login = self.target.login
        if login.plugin is None:
            token = login.token
            if login.token_file is not None:  # read each time: it is renewed by others
                try:
                    token = login.token_file.read_text().strip()
                except OSError as e:
                    raise HikubeError("HK823", f"{login.token_file} cannot be read: {e.strerror}") from None
            return Proof(token, login.certificate, login.key)
        with self._turn:
            ended = self._kept and self._kept.ends is not None and self._kept.ends - EARLY < time.time()
            if self._kept is None or ended or self._kept is refused:
                self._kept = self._asked(login.plugin)
            return self._kept

    def files(self, proof: Proof) -> tuple[str, str] | None:
        """Certificate and key as files, which is how TLS takes them: under a name of this pair's own, since another thread or
        command may have a newer one."""
        if not proof.certificate:
            return None
        folder = make_folder(self._folder, 0o700)
        mark = hashlib.sha256(proof.certificate + proof.key).hexdigest()[:16]
        pair = folder / f"client-{mark}"
        paths = pair.with_suffix(".crt"), pair.with_suffix(".key")
        for path, content in zip(paths, (proof.certificate, proof.key), strict=True):
            if path.exists():
                continue
            write(path, content, 0o600)
            for other in folder.glob(f"client*{path.suffix}"):  # of a pair that ended long ago
                with contextlib.suppress(OSError):
                    if other.stat().st_mtime < time.time() - 86400:
                        other.unlink()
        return str(paths[0]), str(paths[1])

    def ca(self) -> str | None:
        """The cluster's CA as a file; None for the host's own CAs."""
        if not self.target.ca:
            return None
        path = make_folder(self._folder, 0o700) / "ca.crt"
        if not path.exists() or path.read_bytes() != self.target.ca:
            write(path, self.target.ca, 0o600)
        return str(path)

    def _asked(self, plugin: Plugin) -> Proof:
        """The plugin's own answer. One runs at a time: kubelogin listens on a port of its own. What it says to the person
        (a link to log in with) goes through; it may take as long as the person takes."""
        terminal = sys.stdin.isatty()
        if plugin.interactive == "Always" and not terminal:
            raise HikubeError(
                "HK823",
                f"{plugin.words[0]} wants a terminal to log in",
                fix="run any command of this context on a terminal first",
            )
        talks = terminal and plugin.interactive != "Never"
        about: dict[str, Any] = {"interactive": talks}
        if plugin.cluster:
            about["cluster"] = _cluster(self.target)
        info = {"apiVersion": plugin.version, "kind": "ExecCredential", "spec": about}
        environment = {**os.environ, **plugin.environment, "KUBERNETES_EXEC_INFO": json.dumps(info)}
        with self._alone():
            begin = time.monotonic()
            log.started(plugin.words[:1])  # its arguments may hold a secret
            try:
                done = subprocess.run(
                    plugin.words, env=environment, stdin=None if talks else subprocess.DEVNULL, stdout=subprocess.PIPE
                )
            except OSError as e:
                what = f"{plugin.words[0]} cannot be run: {e.strerror}"
                fix = one_line(plugin.hint)[:300] or "install the program that the kubeconfig names"
                raise HikubeError("HK823", what, fix=fix) from None
            log.ended(plugin.words[:1], done.returncode, begin)
        if done.returncode:
            raise HikubeError("HK823", f"{plugin.words[0]} ended with {done.returncode}: nobody is logged in")
        return _credential(done.stdout[:MOST], plugin)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        make_folder(self._folder, 0o700)
        with locked(self._folder / "login"):
            yield


def _cluster(target: Target) -> dict[str, Any]:
    import base64

    out: dict[str, Any] = {"server": target.server}
    if target.ca:
        out["certificate-authority-data"] = base64.b64encode(target.ca).decode()
    for name, value in (("tls-server-name", target.server_name), ("proxy-url", target.proxy)):
        if value:
            out[name] = value
    return out


def _credential(raw: bytes, plugin: Plugin) -> Proof:
    """An ExecCredential (client.authentication.k8s.io), as plugins write it."""
    bad = HikubeError("HK823", f"{plugin.words[0]} did not write an ExecCredential")
    try:
        value = json.loads(raw)
        if value["kind"] != "ExecCredential" or value["apiVersion"] != plugin.version:
            raise bad
        status = value["status"]
        token, certificate, key = (
            str(status.get(n) or "") for n in ("token", "clientCertificateData", "clientKeyData")
        )
        ends = status.get("expirationTimestamp")
        when = datetime.datetime.fromisoformat(str(ends)).timestamp() if ends else None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise bad from None
    if not token and not (certificate and key):
        raise bad
    return Proof(token, certificate.encode(), key.encode(), when)
