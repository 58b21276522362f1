"""Commands in a running machine over ssh, as its user: the way in that a laptop, a box and a tenant have in common."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hikube_local import log, mux
from hikube_local.access import ssh
from hikube_local.api.objects import Object
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError
from hikube_local.lab.overssh import bounded
from hikube_local.osdep import require_unix
from hikube_local.run import clean_environment, find, left_behind
from hikube_local.text import one_line, sanitize


class BySsh:
    """One connection, over which every command goes."""

    def __init__(self, words: list[str], target: str, name: str) -> None:
        self._words, self._target, self._name = words, target, name

    def run(self, command: str, timeout: float = 60.0) -> tuple[int, bytes, bytes]:
        """(exit code, stdout, stderr) of a line for the guest's shell; HK806 when it cannot be run."""
        argv = [*self._words, self._target, f"/bin/sh -c {shlex.quote(command)}"]
        begin = time.monotonic()
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        with subprocess.Popen(argv, stdin=quiet, stdout=pipe, stderr=pipe, env=clean_environment()) as process:
            try:
                out, err = bounded(process, begin + timeout)
            except TimeoutError:
                process.kill()
                what = f"`{command[:60]}` did not end within {timeout:.0f} s in {self._name}"
                raise HikubeError("HK806", what) from None
            code = process.wait()
        log.ended(argv, code, begin)
        if code == 255:
            raise HikubeError("HK806", f"{self._name} is not reached over ssh", one_line(sanitize(err))[:300])
        return code, out, err


@contextlib.contextmanager
def entered(
    session: Session, obj: Object, folder: Path, say: Callable[[str], None], identity: Path | None = None
) -> Iterator[BySsh]:
    """The machine, entered as `ssh NAME` would, or with this private key; `folder`: short, for the connection's socket."""
    require_unix("a shared connection of ssh's")
    user, options, _ = ssh.prepare(session, obj, "", identity, say)
    program, control = find("ssh"), folder / "c"
    shared = ["-o", f"ControlPath={control}", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30"]
    target = f"{user}@{obj.name}"
    opened = [program, *options, *shared, "-f", "-N", "-M", "-o", "ControlPersist=yes", target]
    code, words = left_behind(opened, env=clean_environment(), patience=ssh.OPENING)
    if code:
        raise HikubeError("HK806", f"{obj.name} is not reached over ssh", words[:300], f"hikube-local ssh {obj.name}")
    try:
        yield BySsh([program, *options, *shared, "-o", "ControlMaster=no", "-o", "LogLevel=ERROR"], target, obj.name)
    finally:
        mux.end(control)
