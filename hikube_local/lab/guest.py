"""Ways to run commands in a guest that leave user-data, users and keys as they are, and testinfra's backend over them."""

from __future__ import annotations

import importlib.util
import secrets
import shlex
from typing import Any, Protocol

from hikube_local.backends.capabilities import MOST
from hikube_local.errors import HikubeError


class Guest(Protocol):
    """Whoever runs commands in a guest."""

    def run(self, command: str, timeout: float = 60.0) -> tuple[int, bytes, bytes]:
        """(exit code, stdout, stderr) of a line for the guest's shell; HK806 when it cannot be run."""
        ...


def read(guest: Guest, *paths: str) -> list[bytes]:
    """Files of the guest, in one question where they are short; of those over MOST bytes the ends; empty where there is none."""
    mark = f"--{secrets.token_hex(16)}--"  # no file holds it: it is made anew for each question
    most = MOST // len(paths) - 64
    lines = [f"tail -c {most} {shlex.quote(path)} 2>/dev/null; echo {mark}" for path in paths]
    parts = guest.run("; ".join(lines))[1].split(mark.encode() + b"\n")
    found = (parts + [b""] * len(paths))[: len(paths)]
    for n, path in enumerate(paths):
        if len(paths) > 1 and len(found[n]) >= most:
            found[n] = read(guest, path)[0]
    return found


def cut(content: bytes) -> bool:
    """Whether what `read` gave is the end of a longer file."""
    return len(content) >= MOST - 64


def needs(package: str, what: str) -> None:
    """HK601 where a package of the extra [test] is not installed."""
    if importlib.util.find_spec(package) is None:
        fix = "install hikube-local with its extra [test]: in a checkout, pip install -e '.[test]'"
        raise HikubeError("HK601", f"{what} {package}, which is not installed", fix=fix)


def host(guest: Guest, name: str) -> Any:
    """The machine as testinfra's host: `host.service("nginx").is_running`."""
    needs("testinfra", "checks need")
    import testinfra.host
    from testinfra.backend.base import BaseBackend

    class Backend(BaseBackend):
        NAME = "hikube-local"

        def __init__(self) -> None:
            super().__init__(name)

        def run(self, command: str, *args: str, **_: Any) -> Any:
            line = self.get_command(command, *args)
            code, out, err = guest.run(line)
            return self.result(code, self.encode(line), out, err)

    return testinfra.host.Host(Backend())
