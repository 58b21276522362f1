"""A box over ssh: a real OpenSSH server, its endpoint over the simulator, and the command line on both sides."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests import sshbox
from tests.conftest import Program
from tests.endpoint import disk
from tests.growth import patience
from tests.sshbox import Box, Wire
from tests.tenant import MANIFEST

pytestmark = [
    pytest.mark.skipif(sshbox.server() is None, reason="OpenSSH's server could not be fetched"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a server that anybody may log in to is root's"),
]


@pytest.fixture
def box(tmp_path_factory, request) -> Iterator[Box]:
    settings = getattr(request, "param", {})
    made = Box(Program(tmp_path_factory.mktemp("there")), Program(tmp_path_factory.mktemp("here")), **settings)
    yield made
    made.close()


def test_a_life_on_a_box(box: Box):
    path = box.here.file("m.yaml", MANIFEST)
    check = box("context", "check")
    assert check.code == 0 and f"ssh://root@127.0.0.1:{box.port}" in check.out, check.out
    up = box("up", path, "-n", "team-a")
    assert up.code == 0 and "vminstance/web: ready" in up.err, up.err
    assert f"context box: ssh://root@127.0.0.1:{box.port}" in up.err
    assert "HK504" in up.err  # a box is no Hikube: what differs is told
    assert box("get", "vm", "-A").out.splitlines()[1].split()[:3] == ["team-a", "web", "Running"]
    assert box.there("get", "vm", "-n", "team-a", "-o", "name").out == "vminstance.apps.cozystack.io/web\n"
    assert box("stop", "web", "-n", "team-a").code == 0
    # What was made on the box itself is one's own.
    assert box.there("up", box.there.file("d.json", json.dumps(disk("own"))), "--backend", "simulator").code == 0
    assert box("delete", "vmdisk/own", "--yes").code == 0
    assert box("down", "--disks", "--yes", "-n", "team-a").code == 0
    assert box.there("get", "-A").out == ""
    # One connection served all of it, and nothing listens on the box but its own socket.
    assert box.log.read_text().count("Accepted publickey") == 1
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True).stdout
    assert f"pid={box.endpoint()}," not in listening


def test_what_the_api_has_not_is_done_by_the_boxs_own_command_line(box: Box):
    """Files go there and come back; words are never read by a shell."""
    word = "a'; touch /tmp/hikube-box-was-here; echo '$(id)"
    odd = box("images", "list", word)
    assert odd.code == 2 and "unexpected extra argument" in odd.err, odd.err
    assert not os.path.exists("/tmp/hikube-box-was-here")
    listed = box("images", "list", "-o", "json")
    assert listed.code == 0 and listed.json == []
    df = box("system", "df")
    assert df.code == 0 and "Disks" in df.out
    report = box("report", "--yes", "--to", "report.tar.gz")
    assert report.code == 0 and (box.here.folder / "report.tar.gz").stat().st_size > 1000, report.err
    # What is not understood is said as it is said here, with the name that was typed.
    assert box("cloudinit", "check", "nowhere.yaml").code == 2


def test_a_file_that_goes_to_the_box_is_the_same_there(box: Box, tmp_path):
    content = os.urandom(3 << 20)
    image = box.here.folder / "some image.raw"
    image.write_bytes(content)
    done = box("images", "import", "some image.raw", "--name", "mine")
    assert done.code == 0, done.err
    assert [row["name"] for row in box("images", "list", "-o", "json").json if "name" in row][:1] or "mine" in box(
        "images", "list"
    ).out


def test_a_large_file_is_sent_once(box: Box):
    """What the box has by its digest is not sent again: here it is put in by hand, and found to be used."""
    image = box.here.folder / "a.raw"
    image.write_bytes(os.urandom(2 << 20))
    assert box("images", "import", "a.raw", "--name", "one").code == 0
    (kept,) = [p for p in (box.there.home / "cache" / "sent").iterdir() if not p.name.startswith(".")]
    assert kept.read_bytes() == image.read_bytes() and kept.stat().st_mode & 0o777 == 0o400
    small = box.here.folder / "small.raw"
    small.write_bytes(b"\0" * 4096)
    box("images", "import", "small.raw", "--name", "small")
    planted = os.urandom(2 << 20)
    kept.chmod(0o600)
    kept.write_bytes(planted)
    assert box("images", "import", "a.raw", "--name", "two").code == 0
    rows = {r["name"]: r["digest"] for r in box("images", "list", "-o", "json").json}
    assert rows["one"] != rows["two"]
    used = box("system", "df", "-o", "json").json
    assert next(r for r in used if r["kind"] == "Files sent to this box")["total"] == 1
    assert box("system", "prune", "--yes").code == 0 and not kept.exists()


def test_a_file_that_is_not_what_was_said_is_kept_nowhere(tmp_path):
    from hikube_local.engine import sent
    from hikube_local.errors import HikubeError
    from hikube_local.paths import layout

    own = layout({"HIKUBE_LOCAL_HOME": str(tmp_path)})
    for blocks in ([b"x" * 10], [b"x" * 5, b""]):
        come = iter(blocks)
        with pytest.raises(HikubeError):
            sent.keep(own, "0" * 64, 10, lambda n, come=come: next(come))
    for odd in ("../../etc/passwd", "", "A" * 64):
        with pytest.raises(HikubeError):
            sent.has(own, odd, 1)
    assert list(sent.folder(own).iterdir()) == []
    for name in "abc":
        path = sent.folder(own) / (name * 64)
        path.write_bytes(b"y" * 100)
        os.utime(path, (time.time() - (200 - ord(name)), time.time() - (200 - ord(name))))
    sent.bound(own, 250)
    assert [p.name[0] for p in sent.all(own)] == ["b", "c"]


@pytest.mark.parametrize("box", [{"AllowStreamLocalForwarding": "no"}, {"DisableForwarding": "yes"}], indirect=True)
def test_where_the_server_forwards_nothing_it_works_all_the_same(box: Box):
    """ssh says that all is well then; only a request shows it."""
    assert box("up", box.here.file("d.json", json.dumps(disk("d")))).code == 0
    assert box("get", "vmdisk", "-o", "name").out == "vmdisk.apps.cozystack.io/d\n"


def test_a_box_without_the_program_and_no_box_are_told(box: Box, here: Program):
    nobody = box.here("--host", "ssh://root@127.0.0.1:1", "get")
    assert nobody.code == 1 and "HK821" in nobody.err and "ssh ssh://root@127.0.0.1:1" in nobody.err
    box("get")
    box.here("context", "rm", "box")
    box.environment["PATH"] = "/usr/bin:/bin"
    box.cut()
    box.start()
    missing = box.here("--host", f"ssh://root@127.0.0.1:{box.port}", "get")
    assert missing.code == 1 and "not installed" in missing.err and "Traceback" not in missing.err, missing.err


@pytest.mark.parametrize(
    ("protocol", "fix"), [(3, "upgrade this one"), (1, "upgrade it there"), (None, "does not answer")]
)
def test_a_box_that_is_not_understood_is_told_with_what_mends_it(box: Box, protocol: int | None, fix: str):
    binary = box.folder / "bin"
    binary.mkdir()
    answer = json.dumps({"protocol": protocol, "version": "9.9"}) if protocol is not None else "welcome"
    (binary / "hikube-local").write_text(f"#!/bin/sh\necho '{answer}'\n")
    (binary / "hikube-local").chmod(0o755)
    box.environment["PATH"] = f"{binary}:{box.environment['PATH']}"
    box.cut()
    box.start()
    told = box("get")
    assert told.code == 1 and "HK821" in told.err and fix in told.err, told.err


@pytest.fixture
def here(tmp_path_factory) -> Program:
    return Program(tmp_path_factory.mktemp("other"))


def test_a_connection_that_was_cut_is_made_again_and_the_boxs_machines_go_on(box: Box):
    path = box.here.file("m.yaml", MANIFEST)
    assert box("up", path).code == 0
    box.cut()
    gone = box("get")
    assert gone.code == 1 and "HK821" in gone.err, gone.err
    assert box.there("get", "vm").out.splitlines()[1].split()[1] == "Running"
    box.start()
    assert box("get", "vm").out.splitlines()[1].split()[1] == "Running"


@pytest.fixture
def wire(box: Box) -> Iterator[Wire]:
    """The box in a context `far`, at the end of a wire."""
    made = Wire(box.port)
    box.knows(made.port)
    yield made
    box.here("context", "rm", "far")
    made.close()


def test_over_a_slow_wire_it_is_slow_and_works(box: Box, wire: Wire):
    """0.2 s there and back, as between continents."""
    wire.delay = 0.1
    far = partial(box.here, "--context", "far")
    assert box.here("context", "create", "far", "--ssh", f"root@127.0.0.1:{wire.port}").code == 0
    up = far("up", box.here.file("m.yaml", MANIFEST))
    assert up.code == 0 and "vminstance/web: ready" in up.err, up.err
    assert far("get", "vm").out.splitlines()[1].split()[1] == "Running"
    image = box.here.folder / "a.raw"
    image.write_bytes(os.urandom(3 << 20))
    assert far("images", "import", "a.raw", "--name", "one").code == 0
    assert far("down", "--disks", "--yes").code == 0


@pytest.mark.full
def test_a_wire_that_falls_silent_is_noticed_and_gone_on_with(box: Box, wire: Wire):
    """No connection is closed, nothing comes any more: ssh's own keepalives notice it (15 s)."""
    far = partial(box.here, "--context", "far")
    assert box.here("context", "create", "far", "--ssh", f"root@127.0.0.1:{wire.port}").code == 0
    assert far("up", box.here.file("m.yaml", MANIFEST)).code == 0
    wire.silent(True)
    try:
        gone = far("stop", "web")
        assert gone.code == 1 and "HK821" in gone.err and "Traceback" not in gone.err, gone.err
    finally:
        wire.silent(False)
    assert box.there("get", "vm").out.splitlines()[1].split()[1] == "Running"  # machines go on
    again = far("stop", "web")
    assert again.code == 0, box.log.read_text()[-3000:]
    assert far("get", "vm").out.splitlines()[1].split()[1] == "Stopped"


@pytest.mark.parametrize("box", [{"room": "2m"}], indirect=True)
def test_a_full_disk_on_the_box_is_told_as_the_boxs(box: Box):
    image = box.here.folder / "a.raw"
    image.write_bytes(os.urandom(3 << 20))
    done = box("images", "import", "a.raw", "--name", "one")
    assert done.code == 1 and "Traceback" not in done.err, done.err
    (line,) = (line for line in done.err.splitlines() if line.startswith("error"))
    assert line == "error[HK604]: the box could not take the files in: no space: the file system is full", done.err
    image.write_bytes(os.urandom(4096))  # the command's own word of it comes as it is
    assert "HK604" in box("images", "import", "a.raw", "--name", "one").err
    assert box("get").code == 0


def test_an_endpoint_that_ended_is_started_again(box: Box):
    assert box("get").code == 0
    first = box.endpoint()
    os.kill(first, signal.SIGKILL)
    end = time.monotonic() + patience(10)
    while box.endpoint() == first:  # a zombie has no words
        assert time.monotonic() < end
        time.sleep(0.05)
    assert box("get").code == 0
    assert box.endpoint() not in (0, first)


def test_who_asked_and_is_gone_ends_what_the_box_runs(box: Box):
    """Ctrl-C here ends the command there: a `top` that would go on for ever."""
    assert box("get").code == 0
    argv = [sys.executable, "-m", "hikube_local", "--context", "box", "top", "-w"]
    asked = subprocess.Popen(argv, env=box.here.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def there() -> str:
        return subprocess.run(["pgrep", "-f", "hikube_local top -w"], capture_output=True, text=True).stdout

    end = time.monotonic() + patience(20)
    while not there() and asked.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    asked.kill()
    asked.wait()
    while there():
        assert time.monotonic() < end + patience(20)
        time.sleep(0.05)


def test_the_boxs_own_context_is_not_what_is_asked_about(box: Box, here: Program):
    """Whoever has the box may have chosen another place there."""
    assert box.there("context", "create", "third", "--ssh", "root@127.0.0.1:1").code == 0
    assert box.there("context", "use", "third").code == 0
    assert box("get").code == 0
    assert box("system", "df").code == 0


@pytest.mark.parametrize("socket", ["/tmp/${HOME}", "s", "/a b", "/x:/y", "/" + "a" * 120])
def test_what_a_box_calls_its_socket_is_read_as_nothing_else(box: Box, socket: str):
    binary = box.folder / "bin"
    binary.mkdir()
    answer = json.dumps({"protocol": 2, "version": "1", "socket": socket, "token": "t", "namespace": "default"})
    (binary / "hikube-local").write_text(f"#!/bin/sh\necho '{answer}'\n")
    (binary / "hikube-local").chmod(0o755)
    box.environment["PATH"] = f"{binary}:{box.environment['PATH']}"
    box.cut()
    box.start()
    told = box("get")
    assert told.code == 1 and "HK821" in told.err and "does not answer" in told.err, told.err


def test_only_files_that_are_meant_go_to_the_box(tmp_path, monkeypatch):
    from hikube_local.cli.ask_box import _packed

    monkeypatch.chdir(tmp_path)
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / ".env").write_text("secret")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "m.yaml").write_text("a")
    (tmp_path / "dir" / "out").symlink_to("/etc/hostname")
    assert _packed(["snapshot", "create", "db", "first", "-n", "db"])[0] == []
    sent, outputs, given = _packed(["test", "dir", "--junit", "j.xml"])
    assert [name for name, _, _ in sent] == ["dir/m.yaml"] and list(outputs) == ["j.xml"] and given[1] == "dir"


@pytest.mark.parametrize("answer", [b"x" + b"\xff" * 8, b"x\0\0\0\0\0\0\0\x01?", b"f\0\0\0\0\0\0\0\x02[]"])
def test_what_is_no_answer_of_a_box_is_told(answer: bytes):
    import io

    from hikube_local.cli.ask_box import _answered
    from hikube_local.errors import HikubeError

    with pytest.raises(HikubeError, match="did not answer"):
        _answered(io.BytesIO(answer), {}, [])


def test_nothing_listens_where_only_a_box_says_so():
    from hikube_local.engine.local_ports import _ours, _port

    assert _ours("127.77.3.4") and not any(
        map(_ours, ("127.0.0.1", "127.77.x.evil.example", "0.0.0.0", "10.0.0.1", ""))
    )
    assert _port(80) and not any(map(_port, (0, 70000, "80", None)))


def test_a_secret_of_the_box_is_read_by_nobody_else(box: Box):
    assert box("get").code == 0
    token = (box.there.home / "state" / "serve" / "token").read_text()
    for path in (p for p in box.here.home.rglob("*") if p.is_file()):
        assert token.encode() not in path.read_bytes(), path
    done = box("get", "--debug")
    assert token not in done.out + done.err


def test_a_boxs_ports_stand_on_this_loopback_as_machines_come_and_go(box: Box):
    """At the box's own addresses where they are free here (it is this host: the simulator binds none)."""
    path = box.here.file("m.yaml", MANIFEST)
    assert box("up", path).code == 0
    row = box("get", "vm", "web", "-o", "json").json["status"]["access"][0]
    address, port = row["address"], row["hostPort"]
    assert row["port"] == 80 and address.startswith("127.")

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((address, port)) == 0

    wait(listens)
    assert box("stop", "web").code == 0
    wait(lambda: not listens())
    assert box("start", "web").code == 0
    wait(listens)
    # The address is somebody else's meanwhile: a port of its own, which it keeps.
    assert box("stop", "web").code == 0
    wait(lambda: not listens())
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((address, port))
        other.listen()
        assert box("start", "web").code == 0
        wait(lambda: box("get", "vm", "web", "-o", "json").json["status"]["access"][0]["address"] == "127.0.0.1")
    own = box("get", "vm", "web", "-o", "json").json["status"]["access"][0]["hostPort"]
    assert own >= 20000
    box.here("context", "rm", "box")
    argv = ["pgrep", "-f", "context box box ports"]
    wait(lambda: not subprocess.run(argv, capture_output=True).stdout)


def wait(holds) -> None:
    end = time.monotonic() + patience(30)
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)
