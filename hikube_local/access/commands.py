"""Commands in a running machine over ssh, as its user: the way in that a laptop, a box and a tenant have in common."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hikube_local import log
from hikube_local.access import ssh
from hikube_local.api.objects import Object
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError
from hikube_local.run import clean_environment, find
from hikube_local.text import one_line, sanitize

MOST = 4 << 20  # bytes of an answer


class BySsh:
    """One connection, over which every command goes."""

    def __init__(self, words: list[str], target: str, name: str) -> None:
        self._words, self._target, self._name = words, target, name

    def run(self, command: str, timeout: float = 60.0) -> tuple[int, bytes, bytes]:
        """(exit code, stdout, stderr) of a line for the guest's shell; HK806 when it cannot be run."""
        argv = [*self._words, self._target, f"/bin/sh -c {shlex.quote(command)}"]
        begin = time.monotonic()
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, env=clean_environment()
            )
        except subprocess.TimeoutExpired:
            raise HikubeError("HK806", f"`{command[:60]}` did not end within {timeout:.0f} s in {self._name}") from None
        log.ended(argv, done.returncode, begin)
        if done.returncode == 255:
            raise HikubeError("HK806", f"{self._name} is not reached over ssh", one_line(sanitize(done.stderr))[:300])
        return done.returncode, done.stdout[:MOST], done.stderr[:MOST]


@contextlib.contextmanager
def entered(session: Session, obj: Object, folder: Path, say: Callable[[str], None]) -> Iterator[BySsh]:
    """The machine, entered as `ssh NAME` would; `folder`: short, for the connection's socket."""
    user, options = ssh.prepare(session, obj, "", None, say)
    program, control = find("ssh"), folder / "c"
    shared = ["-o", f"ControlPath={control}", "-o", "BatchMode=yes"]
    target = f"{user}@{obj.name}"
    quiet = subprocess.DEVNULL
    # What stays must hold no pipe of ours.
    opened = [program, *options, *shared, "-f", "-N", "-M", "-o", "ControlPersist=yes", target]
    with open(folder / "said", "w+b") as said:
        code = subprocess.run(opened, stdin=quiet, stdout=quiet, stderr=said, env=clean_environment()).returncode
        said.seek(0)
        words = one_line(sanitize(said.read(2000)))
    if code:
        raise HikubeError("HK806", f"{obj.name} is not reached over ssh", words[:300], f"hikube-local ssh {obj.name}")
    try:
        yield BySsh([program, *options, *shared, "-o", "ControlMaster=no", "-o", "LogLevel=ERROR"], target, obj.name)
    finally:
        subprocess.run([program, *shared, "-O", "exit", target], stdin=quiet, capture_output=True)
