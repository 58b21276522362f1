"""A tenant behind an API, which is our own endpoint over the simulator here, and one with bad days between both."""

from __future__ import annotations

import json
import os
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from tests.conftest import Program
from tests.endpoint import Endpoint
from tests.growth import patience

MANIFEST = """\
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata: {name: sys}
spec: {source: {image: {name: debian-12}}, storage: 5Gi, storageClass: replicated}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {name: web, labels: {team: a}}
spec: {instanceType: u1.nano, instanceProfile: debian, disks: [sys], externalPorts: [80], external: true, cloudInit: "#cloud-config\\n{}"}
"""


class Elsewhere:
    """A program whose context `prod` leads to the endpoint of another state root."""

    def __init__(self, endpoint: Endpoint, here: Program) -> None:
        self.endpoint, self.here = endpoint, here
        self.kubeconfig = here.folder / "kubeconfig"
        self.write()
        made = here("context", "create", "prod", "--kubeconfig", self.kubeconfig, "--kube-context", "tenant")
        assert made.code == 0, made.err

    def write(self, user: dict | None = None, **other: object) -> None:
        token = (self.endpoint.folder / "token").read_text()
        ca = self.endpoint.folder / "ca.crt"
        cluster = {"server": self.endpoint.url, "certificate-authority": os.path.relpath(ca, self.here.folder)}
        nowhere = {"server": "https://127.0.0.1:1"}
        text = {
            "current-context": "production",
            "contexts": [
                {
                    "name": "production",
                    "context": {"cluster": "nowhere", "user": "me", "namespace": "tenant-production"},
                },
                {"name": "tenant", "context": {"cluster": "here", "user": "me", "namespace": "default"}},
            ],
            "clusters": [{"name": "here", "cluster": cluster | other}, {"name": "nowhere", "cluster": nowhere}],
            "users": [{"name": "me", "user": user or {"token": token}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(text))

    def __call__(self, *words: object, **more: object):
        return self.here("--context", "prod", *words, **more)


@pytest.fixture
def here(tmp_path_factory) -> Program:
    return Program(tmp_path_factory.mktemp("here"))


@pytest.fixture
def elsewhere(endpoint: Endpoint, here: Program) -> Iterator[Elsewhere]:
    made = Elsewhere(endpoint, here)
    yield made
    here("context", "rm", "prod")


@pytest.fixture
def odd(elsewhere: Elsewhere) -> Iterator[tuple[Elsewhere, list]]:
    """Between both an API that has bad days: what the list says it does to the next requests, one after the other."""
    days: list = []
    asked: list = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else None
            asked.append((self.command, self.path))
            mine = elsewhere.of_watches if "watch=true" in self.path else days
            day = mine.pop(0) if mine else None
            plural = self.path.partition("?")[0].rpartition("/")[2]
            if elsewhere.quotas and plural == "resourcequotas":
                self._answer(200, json.dumps({"items": elsewhere.quotas}).encode(), {})
                return
            if self.command == "DELETE" and elsewhere.kept and f"/{elsewhere.kept}/" in self.path:
                self._answer(403, b'{"kind": "Status", "message": "no"}', {})
                return
            if elsewhere.options and plural == "options":
                self._answer(200, json.dumps({"items": elsewhere.options}).encode(), {})
                return
            if plural == elsewhere.hidden:
                self._answer(403, b'{"kind": "Status", "message": "no"}', {})
                return
            if body and any(word in body for word in elsewhere.refused):
                self._answer(422, json.dumps({"kind": "Status", "message": "no room for it"}).encode(), {})
                return
            if (left := elsewhere.conflicts.get(self.command, 0)) and "/namespaces/" in self.path:
                elsewhere.conflicts[self.command] = left - 1
                said = {"kind": "Status", "code": 409, "reason": "Conflict", "message": "the object has been modified"}
                self._answer(409, json.dumps(said).encode(), {})
                return
            if day == "cut":
                self.close_connection = True
                return
            if isinstance(day, int):
                self._answer(
                    day,
                    json.dumps({"kind": "Status", "code": day, "message": f"a {day}"}).encode(),
                    {"Retry-After": "0"},
                )
                return
            headers = {
                "Authorization": self.headers.get("Authorization", ""),
                "Content-Type": self.headers.get("Content-Type", ""),
            }
            if "watch=true" in self.path:
                self._stream(headers)
                return
            answer = elsewhere.endpoint.http.request(
                self.command, elsewhere.endpoint.url + self.path, data=body, headers=headers, timeout=patience(20)
            )
            if day == "lost":  # done, and nobody hears of it
                self.close_connection = True
                return
            self._answer(answer.status_code, answer.content, {"Content-Type": "application/json"})

        def _stream(self, headers: dict) -> None:
            """Line by line, for so long as the watches here are to live (`elsewhere.watches`: events of each)."""
            self.close_connection = True
            url = elsewhere.endpoint.url + self.path
            with elsewhere.endpoint.http.get(url, headers=headers, stream=True, timeout=None) as answer:
                self.send_response(answer.status_code)
                self.end_headers()
                for n, line in enumerate(answer.iter_lines(chunk_size=1), 1):
                    self.wfile.write(line + b"\n")
                    if n == elsewhere.watches:
                        return

        def _answer(self, status: int, body: bytes, headers: dict) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _any

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(elsewhere.endpoint.folder / "server.crt", elsewhere.endpoint.folder / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    elsewhere.write(server=f"https://127.0.0.1:{server.server_port}")
    assert elsewhere.here("context", "rm", "prod").code == 0
    assert (
        elsewhere.here(
            "context", "create", "prod", "--kubeconfig", elsewhere.kubeconfig, "--kube-context", "tenant"
        ).code
        == 0
    )
    elsewhere.asked, elsewhere.refused, elsewhere.quotas, elsewhere.options = asked, [], [], []
    elsewhere.hidden = elsewhere.kept = ""
    elsewhere.conflicts = {}  # by method, how many of the next writes meet another one
    elsewhere.of_watches, elsewhere.watches = [], 0  # days of theirs alone; events of each, then it is cut
    yield elsewhere, days
    server.shutdown()
    server.server_close()
