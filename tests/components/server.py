"""A web server on loopback that behaves as told."""

from __future__ import annotations

import contextlib
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Act:
    """How one request is answered; what is not said is as the file has it."""

    status: int = 0
    cut: int | None = None  # the connection ends after so many bytes of the body
    length: int | str | None = "true"  # Content-Length: the true one, another, or none
    headers: dict[str, str] = field(default_factory=dict)
    redirect: str = ""
    stall: float = 0.0  # seconds before the body's second half
    drip: int = 0  # bytes at a time, with a moment between
    body: bytes | None = None


@dataclass
class Served:
    """What the server does: content by path; `script` holds the next answers to requests for images (SUMS apart)."""

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str = ""
    modified: str = ""
    ranges: bool = True
    delay: float = 0.0
    default: Act = field(default_factory=Act)
    script: list[Act] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    seen: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def fetched(self) -> list[str]:
        """The requests for files that are there: those for checksum files that are not left out."""
        return [r for r in self.requests if r in self.files]


@contextlib.contextmanager
def serving(tls: Path | None = None) -> Iterator[Served]:
    """Run a server while the block runs; with `tls` (a folder of `authority`) over TLS."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            content = served.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            served.seen.append(dict(self.headers))
            act = served.script.pop(0) if served.script and "SUMS" not in self.path else served.default
            time.sleep(served.delay)
            self.answer(content, act)

        def answer(self, content: bytes, act: Act) -> None:
            if act.redirect:
                self.send_response(302)
                self.send_header("Location", act.redirect)
                self.end_headers()
                return
            if act.status and act.status not in (200, 206):
                self.send_response(act.status)
                for pair in act.headers.items():
                    self.send_header(*pair)
                self.end_headers()
                return
            body, headers, status = content if act.body is None else act.body, {}, 200
            if served.etag and self.headers.get("If-None-Match") == served.etag:
                self.send_response(304)
                self.end_headers()
                return
            wanted = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
            fits = self.headers.get("If-Range") in (None, served.etag, served.modified)
            if wanted and served.ranges and fits:
                start = int(wanted[1])
                status = 206
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                body = body[start:]
            if served.etag:
                headers["ETag"] = served.etag
            if served.modified:
                headers["Last-Modified"] = served.modified
            if act.length == "true":
                headers["Content-Length"] = str(len(body))
            elif isinstance(act.length, int):
                headers["Content-Length"] = str(act.length)
            self.send_response(act.status or status)
            for pair in {**headers, **act.headers}.items():
                self.send_header(*pair)
            self.end_headers()
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.body(body[: act.cut], act)

        def body(self, body: bytes, act: Act) -> None:
            if act.drip:
                for at in range(0, len(body), act.drip):
                    self.wfile.write(body[at : at + act.drip])
                    self.wfile.flush()
                    time.sleep(0.02)
                return
            half = len(body) // 2 if act.stall else len(body)
            self.wfile.write(body[:half])
            self.wfile.flush()
            if act.stall:
                time.sleep(act.stall)
                self.wfile.write(body[half:])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "server.pem", tls / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def authority(folder: Path) -> Path:
    """A CA of our own (ca.pem) and a server's certificate for 127.0.0.1 that it signed."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(
        *new,
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=Test CA",
        "-addext",
        "keyUsage=critical,keyCertSign",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    )
    openssl(*new, "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr")
    (folder / "san").write_text(
        "subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n"
    )  # as strict clients (Python 3.13) want
    sign = ("x509", "-req", "-days", "2", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "san")
    openssl(*sign, "-in", "server.csr", "-out", "server.pem")
    return folder


def serve_file(served: Served, path: Path, name: str) -> str:
    served.files[f"/{name}"] = path.read_bytes()
    return f"{served.url}/{name}"
