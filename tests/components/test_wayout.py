"""The API of slirp4netns, played by a real socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

from hikube_local.backends.qemu.wayout import WayOut


def test_many_that_ask_at_once_wait_in_the_short_queue(tmp_path: Path):
    """Machines that start together each open their ports: nobody is told that it does not answer."""
    out = WayOut(SimpleNamespace(run=tmp_path))  # type: ignore[arg-type]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(out.api))
        server.listen(0)

        def serve(count: int) -> None:
            time.sleep(0.3)  # busy with something else: the queue fills
            for _ in range(count):
                one, _ = server.accept()
                with one:
                    while one.recv(4096):
                        pass
                    one.sendall(json.dumps({"return": {"id": 1}}).encode())

        thread = threading.Thread(target=serve, args=(8,), daemon=True)
        thread.start()
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda _: out.call("add_hostfwd"), range(8))) == [{"id": 1}] * 8
        thread.join(10)
