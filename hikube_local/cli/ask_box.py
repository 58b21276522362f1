"""What a verb does on a box that the API has no words for: the command as data, with the files that it names, and the answer in frames.

A frame is a kind, a length and bytes; the other end is `box run` (box.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from hikube_local.errors import HikubeError
from hikube_local.text import Cleaner, in_actions

OUT, ERR, FILE, EXIT, NEED = b"o", b"e", b"f", b"x", b"n"
LARGE = 1 << 20  # bytes from which on a file is offered by its digest, and sent only where the box does not have it
HEAD = struct.Struct("!cQ")
BLOCK = 1 << 16
Frame = tuple[bytes, bytes]
# Of the environment of whoever asks, what is about how things are shown.
PASSED = ("COLUMNS", "LANG", "LC_ALL", "LC_MESSAGES", "LANGUAGE", "HIKUBE_LOCAL_LANG", "NO_COLOR", "TERM")


def frame(kind: bytes, data: bytes) -> bytes:
    return HEAD.pack(kind, len(data)) + data


def inside(folder: Path, name: str) -> Path:
    """A path below the folder, and no other."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        raise HikubeError("HK810", f"{name[:80]!r} is not below the folder of the command")
    return folder.joinpath(*parts)


# Options whose value is a file or folder that the command writes.
WRITES = ("--junit", "--html", "--artifacts", "--to", "--record")


def ask(argv: list[str], words: list[str]) -> int:
    """Run the words on the box, through the ssh that `argv` is; what they write is written here. The exit code is theirs."""
    sent, outputs, given = _packed(words)
    environment = {k: v for k in PASSED if (v := os.environ.get(k))}
    digests: dict[str, str] = {}
    for name, content, size in sent:
        if isinstance(content, Path) and size >= LARGE:
            from hikube_local.images.cache import digest_of

            digests[name] = digest_of(content)
    wanted = {
        "argv": given,
        "files": [{"path": n, "size": s, **({"sha256": digests[n]} if n in digests else {})} for n, _, s in sent],
        "outputs": list(outputs),
        "environment": environment,
    }
    needed: set[str] = set()
    said: list[Frame] = []
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):  # the answer says why
            process.stdin.write(json.dumps(wanted).encode() + b"\n")
            process.stdin.flush()
            if digests:
                needed, said = _needed(process.stdout)
            for name, content, size in sent:
                if name not in digests or digests[name] in needed:
                    needed.discard(digests.get(name, ""))  # once, under however many names
                    _pour(content, size, process.stdin)
            process.stdin.flush()
        code = _answered(process.stdout, outputs, said)
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()  # the command is ended there
        process.wait()
    if code is None:
        raise HikubeError(
            "HK821", "the connection ended before the command did", fix="run it again; what was done there stays done"
        )
    return code


def _needed(answer: IO[bytes]) -> tuple[set[str], list[Frame]]:
    """(the digests that the box does not have, what it said instead)."""
    first = _frame(answer)
    if first is None or first[0] != NEED:
        return set(), [first] if first else []
    rows = json.loads(first[1] or b"[]")
    return {str(row) for row in rows} if isinstance(rows, list) else set(), []


def _frame(answer: IO[bytes]) -> Frame | None:
    """The next one; None where the connection ended before it was whole."""
    head = answer.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    kind, n = HEAD.unpack(head)
    if n > BLOCK:  # none of ours is
        raise HikubeError("HK821", "the box did not answer as hikube-local does")
    data = answer.read(n)
    return (kind, data) if len(data) == n else None


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


def _answered(answer: IO[bytes], outputs: dict[str, Path], before: list[Frame]) -> int | None:
    """The exit code; None where the connection ended before it came. Only what was asked for is written here, and nothing that a
    terminal or a CI would read as a command is shown."""
    shown = {OUT: _showing(sys.stdout), ERR: _showing(sys.stderr)}
    while (frame := before.pop(0) if before else _frame(answer)) is not None:
        kind, data = frame
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
    return None


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
