"""Files that are whole or not there: write beside, fsync, rename, fsync the folder."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hikube_local.errors import HikubeError
from hikube_local.osdep import BINARY, UNIX

PARTIAL = ".partial-"


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable; Windows has no such call."""
    if not UNIX:
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path, mode: int = 0o700) -> Path:
    """Make `folder` (and its parents) with `mode`, whatever the umask says; an existing one keeps its mode."""
    if not folder.is_dir():
        make_folder(folder.parent, mode)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, mode)
            os.chmod(folder, mode)
    return folder


def open_to(folder: Path, mode: int) -> None:
    """Give a folder of ours at least `mode`: an earlier command may have made it with less."""
    have = os.stat(folder).st_mode & 0o7777
    if have & mode != mode:
        os.chmod(folder, have | mode)


@contextlib.contextmanager
def beside(path: Path, mode: int = 0o600, name_too: bool = True) -> Iterator[Path]:
    """A temporary name in the same folder that becomes `path` when the block ends well, and goes away when not.

    Without `name_too` the caller makes the name durable, with `fsync_folder`.
    """
    make_folder(path.parent)
    temporary = path.parent / f"{PARTIAL}{secrets.token_hex(4)}-{path.name}"[:250]
    try:
        yield temporary
        fd = os.open(temporary, os.O_RDONLY if UNIX else os.O_RDWR)
        try:
            os.chmod(temporary, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
        if name_too:
            fsync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write(path: Path, content: bytes | str, mode: int = 0o600) -> None:
    """Replace the content of `path` in one step."""
    data = content.encode() if isinstance(content, str) else content
    with beside(path, mode) as temporary:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
        with os.fdopen(fd, "wb") as f:
            f.write(data)


def write_json(path: Path, value: Any, mode: int = 0o600) -> None:
    write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", mode)


def read_json(path: Path) -> Any:
    """The value in `path`, or None when there is no such file or it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def sweep_partials(folder: Path) -> list[str]:
    """Remove what an interrupted `beside` left in `folder`; only under the lock of its owner."""
    gone = []
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if entry.name.startswith(PARTIAL) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
                    gone.append(entry.name)
    return gone


def own_way(path: Path, under: Path) -> None:
    """HK608 where a link stands on the way from `under` to `path`: what lies behind it is not ours."""
    here = under
    for part in path.relative_to(under).parts:
        here = here / part
        try:
            if stat.S_ISLNK(os.lstat(here).st_mode):
                what = f"{here} is a symbolic link that leads out of hikube-local's own files"
                raise HikubeError("HK608", what, fix=f"remove the link, or move its target to {here}")
        except FileNotFoundError:
            return


def remove_folder(folder: Path, under: Path) -> None:
    """Delete `folder`, a plain child somewhere below `under`, renamed first so that a half-deleted one never looks alive."""
    relative = folder.relative_to(under)
    if not relative.parts or ".." in relative.parts:
        raise ValueError(f"{folder} is not below {under}")
    own_way(folder.parent, under)
    try:
        if stat.S_ISLNK(os.lstat(folder).st_mode):
            os.unlink(folder)
            return
    except FileNotFoundError:
        return
    trash = folder.parent / f".trash-{secrets.token_hex(4)}"
    try:
        os.rename(folder, trash)
    except FileNotFoundError:
        return  # somebody else removes it
    fsync_folder(folder.parent)
    shutil.rmtree(trash, ignore_errors=True)


def remove_object(folder: Path, under: Path) -> None:
    """`remove_folder`, and the rest of deletions beside it that were cut short."""
    remove_folder(folder, under)
    sweep_trash(folder.parent)


def sweep_trash(folder: Path) -> None:
    """Finish deletions that were cut short."""
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if entry.name.startswith(".trash-"):
                shutil.rmtree(entry.path, ignore_errors=True)
