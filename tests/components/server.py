"""A web server on loopback that behaves as told."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Served:
    """What the server does: content by path, and how it misbehaves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None
        self.length: int | str | None = "true"
        self.status = 200
        self.delay = 0.0
        self.requests: list[str] = []
        self.url = ""


@contextlib.contextmanager
def serving() -> Iterator[Served]:
    """Run a server while the block runs."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            import time

            served.requests.append(self.path)
            content = served.files.get(self.path)
            time.sleep(served.delay)
            if content is None or served.status != 200:
                self.send_error(404 if content is None else served.status)
                return
            self.send_response(200)
            if served.length == "true":
                self.send_header("Content-Length", str(len(content)))
            elif isinstance(served.length, int):
                self.send_header("Content-Length", str(served.length))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(content[: served.cut])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def serve_file(served: Served, path: Path, name: str) -> str:
    served.files[f"/{name}"] = path.read_bytes()
    return f"{served.url}/{name}"
