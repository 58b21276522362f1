"""Into a guest without an agent: ssh as root, with a key that systemd lays into /run before sshd starts.

The key comes in as a credential in SMBIOS' OEM strings, which systemd 252 and newer takes (systemd.system-credentials(7):
tmpfiles.extra), so user-data, users and their keys stay as they are. sshd reads the file beside its own configuration.
"""

from __future__ import annotations

import base64
import contextlib
import os
import selectors
import shlex
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hikube_local import log
from hikube_local.backends.capabilities import MOST
from hikube_local.errors import HikubeError
from hikube_local.run import clean_environment, find
from hikube_local.text import sanitize

FOLDER = "/run/hikube-local"
AGAIN = 20.0  # seconds to get in again
# Beside the keys that root has, whatever the image's own settings say of them.
_KEYS = f".ssh/authorized_keys .ssh/authorized_keys2 {FOLDER}/keys"
_SSHD = rf"Match User root\nAuthorizedKeysFile {_KEYS}\nPermitRootLogin prohibit-password\n"
SAID = (
    "ssh as root, with an extra key in /run and a drop-in for sshd, both from a credential "
    "(user-data, users and their keys are untouched)"
)
Connector = Callable[[], AbstractContextManager[list[str]]]


def credential(public: str) -> str:
    """The OEM string that lets this key in (tmpfiles.d(5): f writes a file that is not there; % is its own)."""
    rows = (
        f"d {FOLDER} 0755 root root -",
        f"f {FOLDER}/keys 0600 root root - {public.strip().replace('%', '%%')}",
        f"f /etc/ssh/sshd_config.d/00-hikube-local.conf 0600 root root - {_SSHD}",
    )
    text = "".join(f"{row}\n" for row in rows)
    return f"io.systemd.credential.binary:tmpfiles.extra={base64.b64encode(text.encode()).decode()}"


class OverSsh:
    """One connection to root, over which every command goes."""

    def __init__(self, connector: Connector, key: Path, folder: Path, slowness: float = 1.0) -> None:
        self._stack = contextlib.ExitStack()
        self._connector = connector
        self.slowness = slowness
        self._socket = folder / "in.sock"
        self._words = [
            find("ssh"),
            "-F",
            "none",
            "-S",
            str(self._socket),
            "-o",
            "LogLevel=ERROR",
            "-o",
            "BatchMode=yes",
        ]
        self._open = ["-M", "-N", "-i", str(key), "-o", "IdentitiesOnly=yes"]
        # A throw-away machine in a network of its own: nobody else can answer there.
        self._open += ["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"]
        self._master: subprocess.Popen[bytes] | None = None

    def open(self, patience: float) -> OverSsh:
        """Get in; HK806 says why not."""
        deadline, why = time.monotonic() + patience * self.slowness, ""
        words = self._stack.enter_context(self._connector())
        proxy = "ProxyCommand=" + shlex.join(map(str, words)).replace("%", "%%")
        while time.monotonic() < deadline:
            self._socket.unlink(missing_ok=True)
            self._master = subprocess.Popen(
                [*self._words, *self._open, "-o", proxy, "root@guest"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=clean_environment(),
            )
            log.started(self._words)
            while self._master.poll() is None and time.monotonic() < deadline:
                if self._socket.exists():
                    return self
                time.sleep(0.05)
            if self._master.poll() is None:
                why = "sshd did not answer in time"
                break
            assert self._master.stderr is not None
            said = sanitize(self._master.stderr.read(2000)).strip().splitlines()
            why = said[-1] if said else "ssh ended without output"
            if "denied" in why:
                break  # it answers, and does not know the key: no systemd that takes credentials
            time.sleep(0.5)
        self.close()
        raise HikubeError("HK806", f"ssh as root failed: {why[:160]}")

    def close(self) -> None:
        """End the connection."""
        if self._master is not None:
            self._master.terminate()
            self._master.wait()
            self._master = None
        self._stack.close()
        self._stack = contextlib.ExitStack()

    def run(self, command: str, timeout: float = 60.0) -> tuple[int, bytes, bytes]:
        """(exit code, stdout, stderr) of a line for the guest's shell."""
        limit = timeout * self.slowness
        if self._master is None or self._master.poll() is not None:
            self.close()
            self.open(AGAIN)  # the guest was rebooted, or its sshd
        # Over the connection that is there and no other: without it ssh would look for a host of that name.
        argv = [*self._words, "-o", "ProxyCommand=false", "root@guest", f"/bin/sh -c {shlex.quote(command)}"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        begin = time.monotonic()
        with subprocess.Popen(argv, env=clean_environment(), **quiet) as process:  # type: ignore[call-overload]
            try:
                out, err = bounded(process, time.monotonic() + limit)
            except TimeoutError:
                process.kill()
                raise HikubeError("HK806", f"`{command[:60]}` did not end within {limit:.0f} s in the guest") from None
            code = process.wait()
            log.ended(argv, code, begin)
        if code == 255 and (self._master is None or self._master.poll() is not None):
            raise HikubeError("HK806", "the connection to the guest was lost")
        return code, out, err


def bounded(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes]:
    """What it writes, of each stream the first 4 MiB: the guest decides how much there is."""
    kept: dict[Any, bytes] = {process.stdout: b"", process.stderr: b""}
    with selectors.DefaultSelector() as waiting:
        for stream in kept:
            waiting.register(stream, selectors.EVENT_READ)
        while waiting.get_map():
            if (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError
            for key, _ in waiting.select(left):
                block = os.read(key.fd, 1 << 16)
                if not block:
                    waiting.unregister(key.fileobj)
                kept[key.fileobj] += block[: MOST - len(kept[key.fileobj])]
    return kept[process.stdout], kept[process.stderr]
