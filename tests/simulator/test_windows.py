"""A tenant from Windows, as far as Linux can show it: what its Python lacks is hidden from our modules (tests/windows)."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
import time
import tty

import pytest

from tests.conftest import ROOT, Program
from tests.endpoint import BASE
from tests.growth import patience
from tests.tenant import MANIFEST, Elsewhere


@pytest.fixture
def windows(elsewhere: Elsewhere) -> Elsewhere:
    elsewhere.here.env["PYTHONPATH"] = f"{ROOT / 'tests' / 'windows'}:{ROOT}"
    elsewhere.here.env.pop("XDG_RUNTIME_DIR", None)
    return elsewhere


def test_what_windows_lacks_is_hidden(windows: Elsewhere):
    """Else nothing below shows anything."""
    code = "import sitecustomize, hikube_local.osdep as o, hikube_local.sockets as s; print(o.UNIX, hasattr(o.os, 'geteuid'), hasattr(s.socket, 'AF_UNIX'))"
    done = subprocess.run([sys.executable, "-c", code], env=windows.here.env, capture_output=True, text=True)
    assert done.stdout == "False False False\n", done.stderr


def test_a_life_in_a_tenant_from_windows(windows: Elsewhere):
    path = windows.here.file("m.yaml", MANIFEST)
    assert windows("context", "check").code == 0
    assert windows("validate", path).code == 0
    assert "2 of 2 objects need changes" in windows("plan", path).out
    up = windows("up", path)
    assert up.code == 0 and "vminstance/web: ready" in up.err, up.err
    assert windows("get", "vm").out.splitlines()[1].split()[:2] == ["web", "Running"]
    assert windows("wait", "vm/web", "--for=condition=Ready").code == 0
    assert windows("describe", "vm", "web").code == 0 and windows("events").code == 0
    assert windows("stop", "web").code == 0 and windows("start", "web").code == 0
    config = windows("ssh-config").out
    assert "Host web" in config and "ControlMaster" not in config and "ProxyCommand env" not in config, config
    assert windows("restart", "web").code == 0
    assert windows("down", "web", "--yes").code == 0
    assert windows.endpoint("GET", f"{BASE}/vminstances").json()["items"] == []


def test_what_needs_no_guest_works_on_windows_itself(windows: Elsewhere):
    here = windows.here
    path = here.file("m.yaml", MANIFEST)
    assert here("plan", path, "--backend", "simulator").code == 0
    assert here("render", path, "--to", "-").code == 0
    assert here("up", path, "--backend", "simulator").code == 0
    assert here("get", "vm").out.splitlines()[1].split()[:2] == ["web", "Running"]
    assert here("cloudinit", "check", path).code == 0 and here("explain", "vminstance").code == 0
    assert here("restart", "web").code == 0
    assert here("down", "--disks", "--yes").code == 0
    purged = here("purge", "-A", "--disks", "--yes")
    assert purged.code == 0, purged.err


def refused(done, what: str) -> None:
    assert done.code in (1, 2) and f"error[HK611]: {what}" in done.err and "Traceback" not in done.err, done.err


def test_what_is_not_possible_is_told_with_the_way_that_is(windows: Elsewhere):
    here = windows.here
    path = here.file("m.yaml", MANIFEST)
    for words in (("up", path), ("plan", path), ("doctor",)):
        refused(here(*words), "guests run on Linux with QEMU")
    refused(here("context", "create", "box", "--ssh", "me@box"), "a box over ssh is not possible from Windows")
    refused(here("--host", "ssh://me@box", "get"), "a box over ssh")
    refused(windows("test", path), "a test in a tenant")
    refused(windows("compare", path), "to compare machines")


def test_two_commands_at_once_wait_for_one_another_on_windows(windows: Elsewhere):
    """The locks are a library's there."""
    code = (
        "import sys, time; from pathlib import Path; from hikube_local.locks import holder, locked\n"
        "with locked(Path(sys.argv[1])): print('mine', flush=True); sys.stdin.read()"
    )
    path = windows.here.home / "a-lock"
    words = [sys.executable, "-c", code, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": windows.here.env, "text": True}
    first = subprocess.Popen(words, **pipes)
    assert first.stdout.readline() == "mine\n"
    second = subprocess.Popen(words, **pipes)
    said: list[str] = []
    threading.Thread(target=lambda: said.append(second.stdout.readline()), daemon=True).start()
    look = (
        "import sys; from pathlib import Path; from hikube_local.locks import holder; print(holder(Path(sys.argv[1])))"
    )
    who = subprocess.run([sys.executable, "-c", look, path], env=windows.here.env, capture_output=True, text=True)
    assert who.stdout.startswith("-c") and not said, who
    first.communicate("")
    end = time.monotonic() + patience(10)
    while not said:
        assert time.monotonic() < end
        time.sleep(0.02)
    second.communicate("")


def test_a_console_without_unix_sockets(tmp_path, hikube: Program):
    """A port of the loopback stands for a socket in a folder; who does not know the word that lies in the folder gets no further."""
    code = """if True:
        import socket, sys, threading
        from pathlib import Path
        from hikube_local import sockets
        from hikube_local.access import console
        from hikube_local.backends.remote import relay
        path = Path(sys.argv[1]) / "c.sock"
        def guest(s):
            s.sendall(b"login: ")
            while block := s.recv(100):
                s.sendall(b"<" + block + b">")
                if b"end" in block:
                    return
        relay.on_socket(path, guest)
        port, word = path.read_text().split()
        with socket.create_connection(("127.0.0.1", int(port))) as stranger:
            stranger.sendall(b"x" * len(word))
            assert stranger.recv(10) == b"", "a stranger was let in"
        silent = socket.create_connection(("127.0.0.1", int(port)))  # nobody waits for it
        with sockets.connect(path) as other:
            assert other.recv(7) == b"login: "
        silent.setblocking(False)
        try:
            raise AssertionError(f"it was heard out first: {silent.recv(1)}")
        except BlockingIOError:
            pass
        console.attach(path, "web")
        print("left")
    """
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests' / 'windows'}:{ROOT}"}
    piped = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        env=env,
        input="hello\nend\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert piped.stdout.startswith("login: <hello\n") and "left" in piped.stdout, piped
    parent, child = pty.openpty()
    tty.setraw(child)
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], env=env, stdin=child, stdout=child, stderr=child
    ) as on:
        os.close(child)
        seen = b""
        for typed, wanted in ((b"", b"login: "), (b"a", b"<a>"), (b"\x1d", b"left")):
            os.write(parent, typed)
            end = time.monotonic() + patience(20)
            while wanted not in seen:
                assert time.monotonic() < end, seen
                seen += os.read(parent, 1000)
        on.wait()
    os.close(parent)
