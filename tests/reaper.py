"""Run a command to its end, and end whatever it started and left behind: also what made itself a daemon, also when the
command is interrupted or dies. Runtime folders of state roots in the temporary folder and throw-away users go with it.

    python -m tests.reaper COMMAND...

Everything that loses its parent becomes a child of ours (PR_SET_CHILD_SUBREAPER, Linux), so it can be told from what others
started.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hikube_local.backends.qemu.network.leftovers import processes
from hikube_local.paths import layout

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def descendants(of: int) -> list[int]:
    """The processes below `of`, by /proc; without zombies."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
                if state != "Z":
                    parents[int(entry.name)] = int(parent)
    found, new = [], [of]
    while new:
        new = [pid for pid, parent in parents.items() if parent in new]
        found += new
    return found


RUNTIME = layout({}).runtime.parent
DEEP = 6  # folders below the temporary one in which tests have their state roots


def state_roots(folder: Path, deep: int = DEEP) -> Iterator[Path]:
    """What tests gave as HIKUBE_LOCAL_HOME below `folder`; links are not followed."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                if entry.name == "state":
                    yield folder
                    yield from state_roots(Path(entry.path, "lab"), 1)  # the throw-away roots of `test`
                elif deep:
                    yield from state_roots(Path(entry.path), deep - 1)


def left_folders(before: set[str]) -> list[Path]:
    """Runtime folders that were not there before and belong to a state root of a test that was cut short.

    Those in which something lives are another run's: of ours nothing does any more.
    """
    now = {p.name for p in RUNTIME.glob("*")} - before
    homes = state_roots(Path(tempfile.gettempdir())) if now else ()
    found = (layout({"HIKUBE_LOCAL_HOME": str(home)}) for home in homes)
    ours = {p.runtime for p in found if p.runtime.parent == RUNTIME and p.runtime.name in now and not processes(p)}
    return sorted(ours)


def throw_away_users() -> set[str]:
    """The accounts that tests make: named hkt or hkp and the number of the process that made them."""
    return {u.pw_name for u in pwd.getpwall() if re.fullmatch(r"hk[tp]\d+", u.pw_name)}


def left_users(before: set[str]) -> list[str]:
    """Those that came since, and whose maker lives no more: of a test that was cut short."""
    return sorted(u for u in throw_away_users() - before if not Path("/proc", u[3:]).exists())


def main(argv: list[str]) -> int:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started: list[int] = []
    before, users = {p.name for p in RUNTIME.glob("*")}, throw_away_users()
    # Ctrl-C reaches the command by itself; what is meant for one process is handed on.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(pid, signal.SIGTERM) for pid in started])
    child = subprocess.Popen(argv)
    started.append(child.pid)
    pid, status = 0, 0
    while pid != child.pid:  # orphans are buried on the way
        pid, status = os.wait()
    told: set[int] = set()
    while left := descendants(os.getpid()):  # until they are gone, which takes some a moment
        if new := [p for p in left if p not in told]:
            names = ", ".join(f"{p} {_name(p)}" for p in new)
            print(f"left over and ended now: {names}", file=sys.stderr)
            told.update(new)
        for p in left:
            with contextlib.suppress(OSError):
                os.kill(p, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.wait()
    with contextlib.suppress(ChildProcessError):
        while True:  # who was ended and is not buried still has its folder in /proc
            os.wait()
    for folder in left_folders(before):
        print(f"left over and removed now: {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
    for user in left_users(users):
        print(f"left over and removed now: the user {user}", file=sys.stderr)
        subprocess.run(["userdel", "--remove", "--force", user], capture_output=True)
    return os.waitstatus_to_exitcode(status)


def _name(pid: int) -> str:
    """Its words: whoever reads it looks for the test that started it."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return b" ".join(words).decode("utf-8", "replace").strip()[:160]
    return "?"


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.exit(code if code >= 0 else 128 - code)
