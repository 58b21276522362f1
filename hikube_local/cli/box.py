"""`box`: what the other end of an ssh context runs. Not typed by people.

`box run` takes a command as data: one line of JSON, then the files that it names; it answers in frames (kind, length, bytes), so
that output, errors, files and the exit code come back through one pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from hikube_local import __version__
from hikube_local.cli.app import App
from hikube_local.cli.ask_box import BLOCK, ERR, EXIT, FILE, NEED, OUT, PASSED, frame, inside
from hikube_local.cli.options import common
from hikube_local.errors import ExitCode, HikubeError, unexpected
from hikube_local.paths import Layout
from hikube_local.run import program

IDLE = "30m"
MOST_LINE = 1 << 20  # bytes of the line that says what is wanted


@click.group("box", hidden=True)
def box() -> None:
    """The other end of `--context` over ssh."""


@box.command("hello")
@common
def hello(app: App) -> int:
    """Say where the endpoint is, started if none runs."""
    from hikube_local.engine.reach import PROTOCOL

    row: dict[str, Any] = {"protocol": PROTOCOL, "version": __version__}
    try:
        path = _endpoint(app)
        token = (app.layout.serve / "token").read_text().strip()
        row |= {"socket": str(path), "token": token, "namespace": app.default_namespace}
    except HikubeError as e:
        row["error"] = _error(e)
    print(json.dumps(row))
    return ExitCode.DONE


def _error(e: HikubeError) -> dict[str, str]:
    return {"code": e.code, "what": e.what, "why": e.why, "fix": e.fix}


def _endpoint(app: App) -> Path:
    """The socket of the endpoint of this state root; one is started, which ends when nobody asks any more."""
    from hikube_local.cli.serve import library
    from hikube_local.kube.lock import SOCKET
    from hikube_local.paths import make_runtime

    library()
    path = make_runtime(app.layout) / SOCKET
    if _listens(path):
        return path
    said = path.with_suffix(".log")
    argv = [*program(), "--context", "local", "serve", "--no-port", "--exit-when-idle", IDLE]
    with open(said, "wb", opener=lambda p, f: os.open(p, f, 0o600)) as out:
        quiet = subprocess.DEVNULL
        started = subprocess.Popen(argv, stdin=quiet, stdout=out, stderr=out, start_new_session=True)
    end = time.monotonic() + 60
    while not _listens(path):
        if started.poll() is not None or time.monotonic() > end:
            why = said.read_text(errors="replace")[-600:]
            raise HikubeError("HK821", "its endpoint did not start", why, "run hikube-local serve there")
        time.sleep(0.05)
    return path


def _listens(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
        return True
    return False


@box.command("ports")
@common
def ports(app: App) -> int:
    """On the side that asks: hold the open ports of the box's machines on this loopback."""
    from hikube_local.engine import local_ports
    from hikube_local.engine.elsewhere import Elsewhere

    assert isinstance(app.session, Elsewhere)
    local_ports.hold(app.session)
    return ExitCode.DONE


@box.command("dial")
@common
def dial(app: App) -> int:
    """One connection to the endpoint, on standard input and output."""
    from hikube_local.access.forward import both
    from hikube_local.kube.lock import SOCKET

    with socket.socket(socket.AF_UNIX) as there:
        there.connect(str(app.layout.runtime / SOCKET))
        with socket.socket(fileno=os.dup(0)) if _is_socket(0) else contextlib.nullcontext() as here:
            if here is not None:
                both(here, there)
                return ExitCode.DONE
        _pipes(there)
    return ExitCode.DONE


def _is_socket(fd: int) -> bool:
    import stat

    return stat.S_ISSOCK(os.fstat(fd).st_mode) and os.fstat(fd).st_ino == os.fstat(1).st_ino


def _pipes(there: socket.socket) -> None:
    sources: list[Any] = [0, there]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if there in ready:
            block = there.recv(BLOCK)
            if not block:
                return
            _all(1, block)
        if 0 in ready:
            typed = os.read(0, BLOCK)
            if not typed:
                there.shutdown(socket.SHUT_WR)
                sources.remove(0)
            else:
                there.sendall(typed)


def _all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


@box.command("run")
@common
def run(app: App) -> int:
    """Run a command that comes as data; it is ended when whoever asked is gone."""

    wanted = json.loads(_line(0))
    try:
        with tempfile.TemporaryDirectory(prefix="hikube-local-box-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            try:
                _take_in(app.layout, wanted["files"], folder)
            except Exception as e:
                of = unexpected(e)
                what = f"the box could not take the files in: {of.what}"
                raise HikubeError(of.code, what, of.why, of.fix, of.exit_code) from None
            code = _carry(_started(wanted, folder))
            for name in wanted["outputs"]:
                _send_back(inside(folder, name), name)
        _all(1, frame(EXIT, str(code).encode()))
    except Exception as e:
        error = unexpected(e)
        _all(1, frame(ERR, f"{error.render()}\n".encode()) + frame(EXIT, str(int(error.exit_code)).encode()))
    return ExitCode.DONE


def _take_in(layout: Layout, rows: list[dict[str, Any]], folder: Path) -> None:
    """The files that come behind the command; large ones only where they are not here yet."""
    from hikube_local.engine import sent

    large = {str(r["sha256"]): int(r["size"]) for r in rows if "sha256" in r}
    missing = [digest for digest, size in large.items() if not sent.has(layout, digest, size)]
    if large:
        _all(1, frame(NEED, json.dumps(missing).encode()))
    read = partial(os.read, 0)
    for row in rows:
        digest, size, target = str(row.get("sha256", "")), int(row["size"]), inside(folder, row["path"])
        target.parent.mkdir(parents=True, exist_ok=True)
        if not digest:
            sent.receive(target, size, read)
            continue
        if digest in missing:
            missing.remove(digest)
            sent.keep(layout, digest, size, read)
        sent.place(layout, digest, target)
    sent.bound(layout)


def _started(wanted: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    argv = [*program(), *map(str, wanted["argv"])]
    env = {k: v for k, v in os.environ.items() if k not in ("HIKUBE_LOCAL_CONTEXT", "HIKUBE_LOCAL_HOST")}
    env |= {k: str(v) for k, v in wanted["environment"].items() if k in PASSED}
    env["HIKUBE_LOCAL_CONTEXT"] = "local"  # whatever `context use` chose here
    given = folder / ".stdin"
    with open(given if given.exists() else os.devnull, "rb") as stdin:
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, cwd=folder, env=env, stdin=stdin, stdout=pipe, stderr=pipe)


@box.command("agent")
@common
def agent(app: App) -> int:
    """One question to the agent in a guest, as data."""
    from hikube_local.engine.reach import answered

    wanted = json.loads(_line(0))
    try:
        obj = app.find("VMInstance", str(wanted["name"]), str(wanted["namespace"]))
        row = {"answer": answered(app.session, obj, str(wanted["call"]), dict(wanted["arguments"]))}
    except HikubeError as e:
        row = {"error": _error(e)}
    print(json.dumps(row))
    return ExitCode.DONE


def _line(fd: int) -> bytes:
    """One byte at a time: what comes behind it is a file's."""
    out = bytearray()
    while not out.endswith(b"\n"):
        block = os.read(fd, 1)
        if not block or len(out) > MOST_LINE:
            raise HikubeError("HK810", "box run is given a command as data")
        out += block
    return bytes(out)


def _carry(child: subprocess.Popen[bytes]) -> int:
    """What it writes, as frames. Whoever asked holds our standard input open: its end is theirs."""
    assert child.stdout is not None and child.stderr is not None
    kinds = {child.stdout.fileno(): OUT, child.stderr.fileno(): ERR}
    watched = [0, *kinds]
    try:
        while any(fd in kinds for fd in watched):
            ready, _, _ = select.select(watched, [], [])
            for fd in ready:
                block = os.read(fd, BLOCK)
                if fd == 0:
                    if not block:
                        watched.remove(0)
                        child.send_signal(signal.SIGINT)
                elif block:
                    _all(1, frame(kinds[fd], block))
                else:
                    watched.remove(fd)
    except BrokenPipeError:
        child.send_signal(signal.SIGINT)
    return child.wait()


def _send_back(path: Path, name: str) -> None:
    """A file that the command has written, or all of a folder."""
    for found in sorted(
        p for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file() and not p.is_symlink()
    ):
        below = f"{name}/{found.relative_to(path)}" if found != path else name
        head = json.dumps({"path": below, "size": found.stat().st_size}).encode()
        with open(found, "rb") as content:  # before it is promised
            _all(1, frame(FILE, head))
            while block := content.read(1 << 20):
                _all(1, block)
