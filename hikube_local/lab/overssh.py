"""Into a guest without an agent: ssh as root, with a key that systemd lays into /run before sshd starts.

The key comes in as a credential in SMBIOS' OEM strings, which systemd 252 and newer takes (systemd.system-credentials(7):
tmpfiles.extra), so user-data, users and their keys stay as they are. sshd reads the file beside its own configuration.
"""

from __future__ import annotations

import base64
import contextlib
import shlex
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from hikube_local.errors import HikubeError
from hikube_local.run import clean_environment, find
from hikube_local.text import sanitize

FOLDER = "/run/hikube-local"
_SSHD = rf"Match User root\nAuthorizedKeysFile {FOLDER}/keys\nPermitRootLogin prohibit-password\n"
SAID = "ssh as root, with a key in /run that came as a credential (user-data, users and their keys are untouched)"
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
        self.slowness = slowness
        self._socket = folder / "in.sock"
        words = self._stack.enter_context(connector())
        proxy = shlex.join(map(str, words)).replace("%", "%%")
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
        self._open = ["-M", "-N", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", f"ProxyCommand={proxy}"]
        # A throw-away machine in a network of its own: nobody else can answer there.
        self._open += ["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"]
        self._master: subprocess.Popen[bytes] | None = None

    def open(self, patience: float) -> OverSsh:
        """Get in; HK806 says why not."""
        deadline, why = time.monotonic() + patience * self.slowness, ""
        while time.monotonic() < deadline:
            self._socket.unlink(missing_ok=True)
            self._master = subprocess.Popen(
                [*self._words, *self._open, "root@guest"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=clean_environment(),
            )
            while self._master.poll() is None and time.monotonic() < deadline:
                if self._socket.exists():
                    return self
                time.sleep(0.05)
            if self._master.poll() is None:
                why = "sshd did not answer in time"
                break
            assert self._master.stderr is not None
            why = sanitize(self._master.stderr.read(2000)).strip().splitlines()[-1:] or ["ssh ended without a word"]
            why = why[0]
            if "denied" in why:
                break  # it answers, and does not know the key: no systemd that takes credentials
            time.sleep(0.5)
        self.close()
        raise HikubeError("HK806", f"ssh as root did not get in: {why[:160]}")

    def close(self) -> None:
        """End the connection."""
        if self._master is not None:
            self._master.terminate()
            self._master.wait()
            self._master = None
        self._stack.close()

    def run(self, command: str, timeout: float = 60.0) -> tuple[int, bytes, bytes]:
        """(exit code, stdout, stderr) of a line for the guest's shell."""
        limit = timeout * self.slowness
        argv = [*self._words, "root@guest", f"/bin/sh -c {shlex.quote(command)}"]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit)
        except subprocess.TimeoutExpired:
            raise HikubeError("HK806", f"`{command[:60]}` did not end within {limit:.0f} s in the guest") from None
        if done.returncode == 255 and (self._master is None or self._master.poll() is not None):
            raise HikubeError("HK806", "the connection to the guest broke off")
        return done.returncode, done.stdout, done.stderr
