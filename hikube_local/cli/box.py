"""`box`: what the other end of an ssh context runs. Not typed by people.

`box run` takes a command as data: one line of JSON, then the files that it names; it answers in frames (kind, length, bytes), so
that output, errors, files and the exit code come back through one pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

import click

from hikube_local import __version__
from hikube_local.cli.app import App
from hikube_local.cli.options import common
from hikube_local.errors import ExitCode, HikubeError
from hikube_local.text import Cleaner, in_actions

OUT, ERR, FILE, EXIT = b"o", b"e", b"f", b"x"
HEAD = struct.Struct("!cQ")
IDLE = "30m"
BLOCK = 1 << 16
MOST_LINE = 1 << 20  # bytes of the line that says what is wanted


@click.group("box", hidden=True)
def box() -> None:
    """The other end of `--context` over ssh."""


@box.command("hello")
@common
def hello(app: App) -> int:
    """Say where the endpoint is, started if none runs."""
    from hikube_local.engine.reach import PROTOCOL, failure

    row: dict[str, Any] = {"protocol": PROTOCOL, "version": __version__}
    try:
        path = _endpoint(app)
        token = (app.layout.serve / "token").read_text().strip()
        row |= {"socket": str(path), "token": token, "namespace": app.default_namespace}
    except HikubeError as e:
        row["error"] = failure(e)
    print(json.dumps(row))
    return ExitCode.DONE


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
    argv = [sys.executable, "-P", "-m", "hikube_local", "--context", "local", "serve"]
    argv += ["--no-port", "--exit-when-idle", IDLE]
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


def frame(kind: bytes, data: bytes) -> bytes:
    return HEAD.pack(kind, len(data)) + data


@box.command("run")
@common
def run(app: App) -> int:
    """Run a command that comes as data; it is ended when whoever asked is gone."""
    wanted = json.loads(_line(0))
    folder = Path(tempfile.mkdtemp(prefix="hikube-local-box-"))
    try:
        for row in wanted["files"]:
            _receive(0, inside(folder, row["path"]), int(row["size"]))
        given = folder / ".stdin"
        argv = [sys.executable, "-P", "-m", "hikube_local", *map(str, wanted["argv"])]
        env = {k: v for k, v in os.environ.items() if k not in ("HIKUBE_LOCAL_CONTEXT", "HIKUBE_LOCAL_HOST")}
        env |= {k: str(v) for k, v in wanted["environment"].items() if k in PASSED}
        env["HIKUBE_LOCAL_CONTEXT"] = "local"  # whatever `context use` chose here
        with open(given if given.exists() else os.devnull, "rb") as stdin:
            child = subprocess.Popen(
                argv, cwd=folder, env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        code = _carry(child)
        for name in wanted["outputs"]:
            _send_back(inside(folder, name), name)
        _all(1, frame(EXIT, str(code).encode()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ExitCode.DONE


@box.command("agent")
@common
def agent(app: App) -> int:
    """One question to the agent in a guest, as data."""
    from hikube_local.engine.reach import answered, failure

    wanted = json.loads(_line(0))
    try:
        obj = app.find("VMInstance", str(wanted["name"]), str(wanted["namespace"]))
        row = {"answer": answered(app.session, obj, str(wanted["call"]), dict(wanted["arguments"]))}
    except HikubeError as e:
        row = {"error": failure(e)}
    print(json.dumps(row))
    return ExitCode.DONE


# Of the environment of whoever asks, what is about how things are shown.
PASSED = ("COLUMNS", "LANG", "LC_ALL", "LC_MESSAGES", "LANGUAGE", "HIKUBE_LOCAL_LANG", "NO_COLOR", "TERM")


def inside(folder: Path, name: str) -> Path:
    """A path below the folder, and no other."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        raise HikubeError("HK810", f"{name[:80]!r} is not below the folder of the command")
    return folder.joinpath(*parts)


def _line(fd: int) -> bytes:
    """One byte at a time: what comes behind it is a file's."""
    out = bytearray()
    while not out.endswith(b"\n"):
        block = os.read(fd, 1)
        if not block or len(out) > MOST_LINE:
            raise HikubeError("HK810", "box run is given a command as data")
        out += block
    return bytes(out)


def _receive(fd: int, path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb", opener=lambda p, f: os.open(p, f, 0o600)) as out:
        while size:
            block = os.read(fd, min(size, 1 << 20))
            if not block:
                raise HikubeError("HK821", "the connection ended in the middle of a file")
            out.write(block)
            size -= len(block)


def _carry(child: subprocess.Popen[bytes]) -> int:
    """What it writes, as frames. Whoever asked holds our standard input open: its end is theirs."""
    assert child.stdout is not None and child.stderr is not None
    kinds = {child.stdout.fileno(): OUT, child.stderr.fileno(): ERR}
    watched = [0, *kinds]
    try:
        while len(watched) > 1 or (watched and watched != [0]):
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
            if watched == [0]:
                break
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
        _all(1, frame(FILE, head))
        with open(found, "rb") as content:
            while block := content.read(1 << 20):
                _all(1, block)


# the end that asks

# Options whose value is a file or folder that the command writes.
WRITES = ("--junit", "--html", "--artifacts", "--to", "--record")


def ask(argv: list[str], words: list[str]) -> int:
    """Run the words on the box, through the ssh that `argv` is; what they write is written here. The exit code is theirs."""
    sent, outputs, given = _packed(words)
    environment = {k: v for k in PASSED if (v := os.environ.get(k))}
    wanted = {
        "argv": given,
        "files": [{"path": n, "size": s} for n, _, s in sent],
        "outputs": list(outputs),
        "environment": environment,
    }
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):  # the answer says why
            process.stdin.write(json.dumps(wanted).encode() + b"\n")
            for _, content, size in sent:
                _pour(content, size, process.stdin)
            process.stdin.flush()
        code = _answered(process.stdout, outputs)
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()  # the command is ended there
        process.wait()
    if code is None:
        raise HikubeError(
            "HK821", "the connection ended before the command did", fix="run it again; what was done there stays done"
        )
    return code


def _pour(content: Path | bytes, size: int, into: Any) -> None:
    if isinstance(content, bytes):
        into.write(content)
        return
    with open(content, "rb") as f:
        left = size
        while left and (block := f.read(min(left, 1 << 20))):
            into.write(block)
            left -= len(block)
        into.write(b"\0" * left)  # it became shorter meanwhile: its length is promised


def _packed(words: list[str]) -> tuple[list[tuple[str, Path | bytes, int]], dict[str, Path], list[str]]:
    """(files to send: name there, content, bytes; files to be written: name there, path here; the words as they are there)."""
    sent: list[tuple[str, Path | bytes, int]] = []
    outputs: dict[str, Path] = {}
    given: list[str] = []
    before = ""
    verb = words[0] if words else ""
    for at, word in enumerate(words):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if (option if equals else before) in WRITES and value != "-":
            name = value if _plain(Path(value)) else f"out{len(outputs)}/{Path(value).name}"
            outputs[name] = Path(value)
            given.append(f"{option}={name}" if equals else name)
        elif at and before not in NAMES and (equals or not word.startswith("-")) and _is_file(value, verb):
            name = _send(Path(value), sent)
            given.append(f"{option}={name}" if equals else name)
        else:
            if word == "-":
                content = sys.stdin.buffer.read()
                sent.append((".stdin", content, len(content)))
            given.append(word)
        before = word
    return sent, outputs, given


# Options whose value is a name, and verbs whose words may be folders of manifests; elsewhere a folder that happens to be called
# like a machine stays here.
NAMES = ("-n", "--namespace", "-l", "--selector", "--name", "-o", "--output")
FOLDERS = ("test", "bundle", "images")


def _is_file(word: str, verb: str) -> bool:
    if not word or word == "-" or not Path(word).name:
        return False
    return os.path.isfile(word) or (verb in FOLDERS and os.path.isdir(word) and Path(word).name != "..")


def _send(path: Path, sent: list[tuple[str, Path | bytes, int]]) -> str:
    """A file, or all of a folder; relative ones keep their name, so that what is said of them is true here, too."""
    name = path.as_posix() if _plain(path) else f"in{len(sent)}/{path.name}"
    inside_of = path.resolve()
    for found in sorted(p for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file()):
        if found != path and not found.resolve().is_relative_to(inside_of):
            continue  # a link that leads out of the folder
        below = f"{name}/{found.relative_to(path).as_posix()}" if found != path else name
        sent.append((below, found, found.stat().st_size))
    return name


def _plain(path: Path) -> bool:
    """Whether it can have the same name there."""
    return not path.is_absolute() and ".." not in path.parts


def _answered(answer: IO[bytes], outputs: dict[str, Path]) -> int | None:
    """The exit code; None where the connection ended before it came. Only what was asked for is written here, and nothing that a
    terminal or a CI would read as a command is shown."""
    shown = {OUT: _showing(sys.stdout), ERR: _showing(sys.stderr)}
    while True:
        head = answer.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        kind, n = HEAD.unpack(head)
        if n > BLOCK:  # none of ours is
            raise HikubeError("HK821", "the box did not answer as hikube-local does")
        data = answer.read(n)
        if len(data) < n:
            return None
        try:
            if kind == EXIT:
                code = int(data)
                return code if code >= 0 else 128 - code
            if kind == FILE:
                row = json.loads(data)
                _write(answer, str(row["path"]), int(row["size"]), outputs)
        except (ValueError, KeyError, TypeError):
            raise HikubeError("HK821", "the box did not answer as hikube-local does") from None
        if kind in shown:
            shown[kind](data)


def _showing(stream: Any) -> Callable[[bytes], None]:
    """Bytes as they are where a program reads them."""
    cleaner = Cleaner() if stream.isatty() or in_actions() else None

    def show(data: bytes) -> None:
        if cleaner:
            stream.write(cleaner.feed(data))
        else:
            stream.buffer.write(data)
        stream.flush()

    return show


def _write(answer: IO[bytes], name: str, size: int, outputs: dict[str, Path]) -> None:
    for promised, path in outputs.items():
        if name == promised or name.startswith(f"{promised}/"):
            target = path if name == promised else inside(path, name[len(promised) + 1 :])
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as out:
                _copy(answer, size, out)
            return
    with open(os.devnull, "wb") as nowhere:
        _copy(answer, size, nowhere)


def _copy(answer: IO[bytes], size: int, out: IO[bytes]) -> None:
    while size and (block := answer.read(min(size, 1 << 20))):
        out.write(block)
        size -= len(block)
