"""The API of slirp4netns, played by a real socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from hikube_local.api.objects import Object
from hikube_local.backends.qemu.network.port_forwards import PortForwards
from hikube_local.backends.qemu.network.slirp import Slirp
from hikube_local.errors import HikubeError
from hikube_local.manifests.models import read_spec
from hikube_local.paths import Layout
from hikube_local.store.db import Store


def test_many_that_ask_at_once_wait_in_the_short_queue(tmp_path: Path):
    """Machines that start together each open their ports: nobody is told that it does not answer."""
    out = Slirp(SimpleNamespace(run=tmp_path))  # type: ignore[arg-type]
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


def test_no_port_moves_for_a_way_out_that_does_not_answer(tmp_path: Path):
    """What was noted is taken to stand: a machine whose ports cannot be asked for can be stopped all the same."""
    address = "127.77.254.3"
    with socket.socket() as taken:  # as the way out holds it
        taken.bind((address, 0))
        taken.listen()
        port = taken.getsockname()[1]
        store = Store(Layout(tmp_path / "s", tmp_path / "c", tmp_path / "config.yaml", tmp_path / "r", False))
        spec = read_spec("VMInstance", {"external": True, "externalPorts": [port]})
        (obj,) = store.put([Object(kind="VMInstance", namespace="default", name="web", spec=spec)])
        store.keep(obj.key, forwards={"address": address, "ports": {str(port): port}})
        out = Slirp(SimpleNamespace(run=tmp_path))  # type: ignore[arg-type]
        out.runs = lambda: True  # type: ignore[method-assign]
        ways = PortForwards(out, store, "root")
        with pytest.raises(HikubeError, match="does not answer"):
            out.forwards()
        (forward,) = ways.allocate(obj, print)
        assert (forward.address, forward.host_port, forward.port) == (address, port, port)
        assert ways.observed("10.0.0.2") == frozenset()
