"""Reads never write: the verbs that only look, and two proofs of it, by content and by system calls."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

# Every verb that looks, in the forms that take different ways through the program. FILE stands for the manifest.
LOOKS: tuple[tuple[str, ...], ...] = (
    ("get", "-A"),
    ("get", "vm", "-o", "json"),
    ("get", "vm", "web", "-o", "yaml"),
    ("get", "vmdisk", "-o", "wide"),
    ("describe", "all"),
    ("plan", "FILE"),
    ("up", "FILE", "--dry-run"),
    ("up", "FILE", "--restart", "--prune", "--dry-run"),
    ("events",),
    ("logs", "web"),
    ("ports", "-A"),
    ("top",),
    ("validate", "FILE"),
    ("images", "list"),
    ("snapshot", "list", "web"),
    ("render", "FILE"),
    ("explain", "vm.spec.disks"),
    ("cloudinit", "check", "FILE"),
)
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)")
_OPENS = ("open", "openat", "creat")
# What changes a folder or a file's attributes by its name.
CHANGES = (
    "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,chmod,fchmodat,chown,lchown,fchownat,truncate,link,linkat,"
    "symlink,symlinkat,mknod,mknodat,utimensat,setxattr,lsetxattr"
)
TRACE = ["strace", "-f", "-qq", "-s", "4096", "-e", "signal=none", "-e", f"trace={','.join(_OPENS)},{CHANGES}"]


def content(folders: Iterable[Path]) -> dict[str, tuple]:
    """Everything below the folders: kind, mode, owner, time of change, and the content of files."""
    found = {}
    for folder in folders:
        for path in sorted((folder, *folder.rglob("*"))):
            about = path.lstat()
            kept = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(about.st_mode) else ""
            found[str(path)] = (about.st_mode, about.st_uid, about.st_mtime_ns, about.st_ino, kept)
    return found


def writes(trace: Path, below: Iterable[Path]) -> Iterator[str]:
    """The calls of a trace that wrote, or could have, to something below the folders."""
    roots = tuple(os.fspath(p) for p in below)
    for line in trace.read_text(errors="replace").splitlines():
        m = _CALL.match(line)
        if not m or not any(f'"{root}' in m[2] for root in roots) or " = -1 " in line:
            continue
        if m[1] not in _OPENS or re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", m[2]) or m[1] == "creat":
            yield line
