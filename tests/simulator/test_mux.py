"""Connections of ssh that stay for the next ones, against a real sshd: who shares them, who ends them, what is told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hikube_local import mux
from hikube_local.backends.qemu.network.namespace import ENTER
from hikube_local.paths import Layout, layout
from tests import sshbox
from tests.conftest import ROOT, Program
from tests.growth import patience
from tests.sshbox import Box, Wire

pytestmark = pytest.mark.skipif(sshbox.server() is None, reason="OpenSSH's server could not be fetched")
UID = "0123456789"


@pytest.fixture(scope="module")
def box(tmp_path_factory) -> Iterator[Box]:
    made = Box(Program(tmp_path_factory.mktemp("there")), Program(tmp_path_factory.mktemp("here")))
    yield made
    made.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Layout]:
    found = layout({"HIKUBE_LOCAL_HOME": str(tmp_path)})
    yield found
    mux.close(found, UID)
    for path in found.runtime.glob("mux-*"):
        path.unlink()
    if found.runtime.exists():
        found.runtime.rmdir()


def words(box: Box, port: int | None = None) -> list[str]:
    """As access/ssh.py has them, through the program that carries."""
    through = f"{sys.executable} -I -S {ENTER} 0 connect 127.0.0.1 {port or box.port}"
    alias = f"HostKeyAlias=[127.0.0.1]:{box.port}"
    return ["ssh", "-F", str(box.folder / "config"), "-o", f"ProxyCommand={through}", "-o", alias, "root@guest"]


def place(own: Layout, boot: float = 1.0) -> Path:
    found = mux.path(own, UID, boot, "root")
    assert found is not None
    return found


def asked(box: Box, path: Path, command: str) -> subprocess.CompletedProcess[str]:
    first, *rest = words(box)
    argv = [first, *mux.options(path), *rest, "--", command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=patience(50))


def test_the_next_one_shares_it_and_nobodys_output_is_held_open(box: Box, own: Layout):
    path = place(own)
    assert mux.opened(path, words(box)) == (0, "")
    one, two = (asked(box, path, "echo $SSH_CONNECTION").stdout for _ in "12")
    assert one == two and one.count(" ") == 3
    assert mux.is_open(path)  # the pipes ended, and the connection did not
    assert asked(box, path, "exit 7").returncode == 7
    assert place(own, 2.0) != path  # after another boot it is another one


def test_of_several_at_once_one_makes_it(box: Box, own: Layout):
    path = place(own)
    before = box.log.read_text().count("Accepted publickey")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: mux.opened(path, words(box)), range(6)))
    assert found == [(0, "")] * 6
    assert box.log.read_text().count("Accepted publickey") == before + 1


def test_what_ends_the_command_that_made_it_ends_no_other(box: Box, own: Layout):
    path = place(own)
    script = "import sys, time; from pathlib import Path; from hikube_local import mux; print(mux.opened(Path(sys.argv[1]), sys.argv[2:])[0], flush=True); time.sleep(600)"
    argv = [sys.executable, "-c", script, str(path), *words(box)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True, env=env) as first:
        assert first.stdout is not None and first.stdout.readline() == "0\n"
        for sign in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.killpg(first.pid, sign)
        first.wait(patience(20))
    assert asked(box, path, "echo there").stdout == "there\n"


def test_a_machine_that_ends_takes_its_connections_with_it(box: Box, own: Layout):
    path, other = place(own), mux.path(own, "another-uid", 1.0, "root")
    assert other is not None
    assert mux.opened(path, words(box))[0] == mux.opened(other, words(box))[0] == 0
    mux.close(own, UID)
    deadline = time.monotonic() + patience(20)
    while mux.is_open(path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert mux.is_open(other)
    mux.close(own, "another-uid")


def test_a_server_that_starts_again_is_awaited_for_a_moment(box: Box, own: Layout):
    """As cloud-init's set_passwords starts the guest's again, just when the machine is ready."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    threading.Timer(0.7, Wire, (box.port, 0.0, port)).start()
    assert mux.opened(place(own), words(box, port)) == (0, "")


def test_why_there_is_none_is_told_although_ssh_would_not_show_it(box: Box, own: Layout):
    code, said = mux.opened(place(own), words(box, port=1))
    assert code and "port 1 of the guest cannot be reached: Connection refused" in said
    assert not mux.is_open(place(own))


def test_whatever_keeps_a_command_of_ours_from_connecting_is_told(
    box: Box, own: Layout, monkeypatch: pytest.MonkeyPatch
):
    """As ssh-config has it: the whole program stands between, and fails before it connects to anything."""
    monkeypatch.setenv("HIKUBE_LOCAL_HOME", str(box.here.home))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    through = f"{sys.executable} -m hikube_local --context local port-forward nobody 22 --stdio"
    code, said = mux.opened(place(own), ["ssh", "-F", "none", "-o", f"ProxyCommand={through}", "root@guest"])
    assert code and "[HK804]" in said and "nobody" in said, said


def test_a_path_that_is_too_long_for_a_socket_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mux, "make_runtime", lambda _: tmp_path / ("d" * 80))
    assert mux.path(layout({}), UID, 1.0, "root") is None


def test_what_carries_ends_with_ssh_whatever_the_other_side_does():
    """A guest that is gone says nothing any more: nobody waits for it."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        # comm is what tells that ssh connects through it
        script = f"import subprocess, sys; open('/proc/self/comm', 'w').write('ssh'); sys.exit(subprocess.run([sys.executable, '-I', '-S', {str(ENTER)!r}, '0', 'connect', '127.0.0.1', '{port}'], stdin=-3).returncode)"
        done = subprocess.run([sys.executable, "-c", script], timeout=patience(30), capture_output=True)
        assert done.returncode == 0, done.stderr
