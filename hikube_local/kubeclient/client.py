"""Requests to an API server, and what it refuses in its own words. A write is sent once; a look is tried again."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from hikube_local import __version__, log
from hikube_local.errors import HikubeError
from hikube_local.kubeclient.kubeconfig import Target
from hikube_local.kubeclient.login import Logins, Proof
from hikube_local.records import dataclass
from hikube_local.text import one_line, sanitize

CONNECT, READ = 10.0, 60.0  # seconds
MOST = 64 << 20  # bytes of one answer
TRIES = 4  # of a look
WAIT_MOST = 30.0  # seconds that a server may make us wait between two of them
MERGE = "application/merge-patch+json"


@dataclass
class Refused(HikubeError):
    """The server's own answer: its status (HTTP) and reason (Kubernetes' word), beside what it said."""

    status: int = 0
    reason: str = ""

    def __reduce__(self):
        return (type(self), (self.code, self.what, self.why, self.fix, self.exit_code, self.status, self.reason))


class Client:
    """One API server, as one person. `socket`: a Unix socket that leads there in plain http, whatever the URL says.

    Never with current-context, ~/.netrc or anything else that was not asked for; proxies as the environment or the
    kubeconfig says.
    """

    def __init__(self, target: Target, folder: Path, socket: Path | None = None) -> None:
        self.target, self.socket = target, socket
        self.logins = Logins(target, folder)
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers["User-Agent"] = f"hikube-local/{__version__}"
        if socket is not None:
            self._http.mount("http://", _OnSocket(socket))
        elif target.server_name:
            self._http.mount("https://", _Named(target.server_name))

    @property
    def base(self) -> str:
        return "http://localhost" if self.socket is not None else self.target.server

    def proxies(self) -> dict[str, str]:
        if self.socket is not None:
            return {}
        if self.target.proxy:
            return {"https": self.target.proxy}
        return dict(requests.utils.get_environ_proxies(self.base))

    # requests

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        return self._json(self.send("GET", path, query))

    def find(self, path: str, **query: Any) -> dict[str, Any] | None:
        """The same; None where there is no such object."""
        try:
            return self.get(path, **query)
        except Refused as e:
            if e.status == 404:
                return None
            raise

    def text(self, path: str, **query: Any) -> str:
        return _bytes(self.send("GET", path, query)).decode("utf-8", "replace")

    def list(self, path: str, **query: Any) -> tuple[str, list[dict[str, Any]]]:
        """(revision, items), page by page."""
        items: list[dict[str, Any]] = []
        more: dict[str, Any] = {"limit": 500}
        while True:
            page = self.get(path, **query, **more)
            items += [i for i in page.get("items") or [] if isinstance(i, dict)]
            about = page.get("metadata") or {}
            if not about.get("continue"):
                return str(about.get("resourceVersion", "")), items
            more["continue"] = about["continue"]

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._json(self.send("POST", path, body=body))

    def merge(self, path: str, patch: dict[str, Any]) -> dict[str, Any]:
        """RFC 7386. Never as a dry run: Cozystack's API server carries one out (cozystack#2981)."""
        return self._json(self.send("PATCH", path, body=patch, content=MERGE))

    def put(self, path: str, body: dict[str, Any]) -> None:
        self.send("PUT", path, body=body).close()

    def delete(self, path: str, uid: str = "") -> None:
        """`uid`: of the one that is meant, where another of its name may have come meanwhile."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        self.send("DELETE", path, body=body | ({"preconditions": {"uid": uid}} if uid else {})).close()

    def revision(self, path: str) -> str:
        """Of a list, as it is now."""
        return str((self.get(path, limit=1).get("metadata") or {}).get("resourceVersion", ""))

    def follow(self, path: str, read: float | None = None, **query: Any) -> Iterator[str]:
        """The lines of an answer that goes on, as they come. `read`: seconds of silence after which it counts as cut."""
        with contextlib.closing(self.send("GET", path, query, stream=True, read=read)) as answer:
            try:
                # Without chunks a read waits until it has all that it asks for.
                left = bytearray()
                for block in answer.iter_content(512 if answer.raw.chunked else 1):
                    left += block
                    if b"\n" in block:
                        *whole, rest = bytes(left).split(b"\n")
                        left = bytearray(rest)
                        for line in whole:
                            for part in line.removesuffix(b"\r").splitlines() or [b""]:
                                yield part.decode("utf-8", "replace")
                if left:
                    yield bytes(left).decode("utf-8", "replace")
            except requests.RequestException:
                return  # cut: whoever follows asks again

    def watch(self, path: str, revision: str, seconds: int = 300) -> Iterator[dict[str, Any]]:
        """Changes after the revision, until the server ends it; Refused (410) where it does not know the revision any more."""
        query = {"watch": "true", "resourceVersion": revision, "allowWatchBookmarks": "true", "timeoutSeconds": seconds}
        for line in self.follow(path, seconds + READ, **query):
            if not line:
                continue
            event = json.loads(line)
            if event.get("type") == "ERROR":
                raise refusal(int(event["object"].get("code") or 410), event["object"], self.target)
            yield event

    def send(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: Any = None,
        content: str = "application/json",
        stream: bool = False,
        read: float | None = READ,
    ) -> requests.Response:
        """The answer to one request. What is no look is sent once: whether a lost one was done, only a look can tell."""
        looks = method == "GET"
        refused: Proof | None = None
        tries = 0
        while True:
            tries += 1
            try:
                proof = self.logins.proof(refused)
                answer = self._once(method, path, query or {}, body, content, stream, read, proof)
            except requests.RequestException as e:
                if looks and tries < TRIES:
                    time.sleep(0.3 * tries)
                    continue
                raise self._unreachable(e, sent=not looks and not isinstance(e, requests.ConnectTimeout)) from None
            if answer.status_code == 401 and refused is None and self.target.login.plugin:
                refused = proof
                answer.close()
                continue
            if answer.status_code in (429, 503) and tries < TRIES and (looks or answer.status_code == 429):
                wait = _seconds(answer.headers.get("Retry-After", "1"))
                answer.close()
                time.sleep(wait)
                continue
            if not 200 <= answer.status_code < 300:  # a redirect is no answer: nothing was done
                raise refusal(answer.status_code, _status(answer), self.target)
            return answer

    def _once(
        self,
        method: str,
        path: str,
        query: dict[str, Any],
        body: Any,
        content: str,
        stream: bool,
        read: float | None,
        proof: Proof,
    ) -> requests.Response:
        headers = {"Accept": "application/json"}
        if proof.token:
            headers["Authorization"] = f"Bearer {proof.token}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = content
        url = f"{self.base}{path}" + (f"?{urlencode(query)}" if query else "")
        begin = time.monotonic()
        answer = self._http.request(
            method,
            url,
            data=data,
            headers=headers,
            timeout=(CONNECT, read),
            allow_redirects=False,
            stream=True,
            verify=self.logins.ca() or ssl.get_default_verify_paths().cafile or True,
            cert=self.logins.files(proof),
            proxies=self.proxies(),
        )
        log.SENT.debug("%s %s: %s in %.3f s", method, path, answer.status_code, time.monotonic() - begin)
        if not stream:
            _bytes(answer)
        return answer

    def _json(self, answer: requests.Response) -> dict[str, Any]:
        try:
            value = json.loads(_bytes(answer))
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise HikubeError("HK822", f"{self.target.server} did not answer as a Kubernetes API does")
        return value

    def _unreachable(self, error: Exception, sent: bool) -> HikubeError:
        what = f"{self.target.server} cannot be reached"
        if isinstance(error, requests.exceptions.SSLError):
            what = f"{self.target.server} does not show a certificate of the CA that the context has"
        fix = "whether it was done is not known: look with `get` before it is run again" if sent else "run it again"
        return HikubeError("HK821", what, one_line(str(error))[:300], fix)


def _bytes(answer: requests.Response) -> bytes:
    """The body, once, and never without end."""
    if answer._content is False:  # not read yet
        raw = b""
        for block in answer.iter_content(1 << 16):
            raw += block
            if len(raw) > MOST:
                answer.close()
                raise HikubeError("HK822", f"the answer is larger than {MOST >> 20} MiB")
        answer._content = raw
    return answer.content or b""


def _seconds(text: str) -> float:
    try:
        return min(WAIT_MOST, max(0.1, float(text)))
    except ValueError:
        return 1.0


def _status(answer: requests.Response) -> dict[str, Any]:
    raw = _bytes(answer)
    with contextlib.suppress(ValueError):
        value = json.loads(raw)
        if isinstance(value, dict) and value.get("kind") == "Status":
            return value
    return {"message": raw[:300].decode("utf-8", "replace")}


def refusal(code: int, status: dict[str, Any], target: Target) -> Refused:
    said = one_line(sanitize(str(status.get("message") or f"HTTP {code}")))[:2000]
    reason = str(status.get("reason") or "")
    if code == 401:
        fix = "log in again as the kubeconfig says, or make the context anew"
        return Refused(
            "HK823",
            f"{target.server} does not know {target.user or 'this user'}",
            said,
            fix,
            status=code,
            reason=reason,
        )
    fix = "ask for the role in your tenant that this needs" if code == 403 else ""
    return Refused("HK822", said, fix=fix, status=code, reason=reason)


class _Named(HTTPAdapter):
    """The certificate is of another name than the URL has (tls-server-name)."""

    def __init__(self, name: str) -> None:
        self._name = name
        super().__init__()

    def init_poolmanager(self, *words: Any, **more: Any) -> Any:
        return super().init_poolmanager(*words, server_hostname=self._name, assert_hostname=self._name, **more)


class _OnSocket(HTTPAdapter):
    """http over a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__()

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return _Pool(self._path)

    get_connection = get_connection_with_tls_context


class _Pool(HTTPConnectionPool):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> HTTPConnection:
        made = _Connection("localhost")
        made.unix = self._path
        return made


class _Connection(HTTPConnection):
    unix: Path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(CONNECT)
        self.sock.connect(str(self.unix))
        self.sock.settimeout(self.timeout if isinstance(self.timeout, int | float) else None)


def host(server: str) -> tuple[str, int]:
    """(name, port) of an https address."""
    parts = urlsplit(server)
    return parts.hostname or "", parts.port or 443
