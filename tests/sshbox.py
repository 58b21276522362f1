"""A box that is reached over ssh: a throw-away OpenSSH server at 127.0.0.1 in a mount namespace of its own, and who asks it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from hikube_local.paths import below, layout
from tests.conftest import ROOT, Program
from tests.growth import patience

SERVER = ROOT / ".venv" / "sshd"


def server() -> Path | None:
    found = SERVER / "usr" / "sbin" / "sshd"
    return found if found.exists() else None


class Box:
    """`there`: the state root that the box has; `here`: who asks, with a context named box."""

    def __init__(self, there: Program, here: Program, **settings: str) -> None:
        self.there, self.here = there, here
        self.folder = there.home / "sshd"
        self.folder.mkdir()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        for name in ("host", "person"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name], check=True)
        self.environment = {
            "HIKUBE_LOCAL_HOME": str(there.home),
            "HIKUBE_LOCAL_BACKEND": there.env.get("HIKUBE_LOCAL_BACKEND", "simulator"),
            "HIKUBE_LOCAL_ALLOW_INNER": "true",
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
        }
        self.room = settings.pop(
            "room", ""
        )  # of the box's state root, where it is a file system of its own (tmpfs's size)
        self.settings = settings
        self.made = False  # sshd's own folder
        self._wrapper()
        self.start()
        made = here("context", "create", "box", "--ssh", f"root@127.0.0.1:{self.port}")
        assert made.code == 0, made.err

    def _wrapper(self) -> None:
        """ssh as a person has it set up: their key, the box's host key."""
        self.knows(self.port)
        (self.folder / "config").write_text(
            f"IdentityFile {self.folder}/person\nUserKnownHostsFile {self.folder}/known_hosts\nIdentityAgent none\n"
        )
        binary = self.here.home / "bin"
        binary.mkdir(exist_ok=True)
        (binary / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {self.folder}/config "$@"\n')
        (binary / "ssh").chmod(0o755)
        self.here.env["PATH"] = f"{binary}:{os.environ['PATH']}"

    def knows(self, port: int) -> None:
        """Whoever asks knows the box's host key at this port, too."""
        host = (self.folder / "host.pub").read_text().strip()
        with open(self.folder / "known_hosts", "a") as out:
            out.write(f"[127.0.0.1]:{port} {host}\n")

    def start(self) -> None:
        keys = {
            "Port": str(self.port),
            "ListenAddress": "127.0.0.1",
            "HostKey": str(self.folder / "host"),
            "AuthorizedKeysFile": str(self.folder / "person.pub"),
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PermitRootLogin": "yes",
            "LogLevel": "VERBOSE",
            "SetEnv": " ".join(f'"{k}={v}"' for k, v in self.environment.items()),
        }
        (self.folder / "sshd_config").write_text("".join(f"{k} {v}\n" for k, v in (keys | self.settings).items()))
        (self.folder / "passwd").write_text(
            Path("/etc/passwd").read_text() + "sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        self.made = self.made or not Path("/run/sshd").exists()
        script = 'mkdir -p /run/sshd && mount --bind "$1" /etc/passwd && shift && exec "$@"'
        if self.room:
            home = self.there.home  # sshd's own folder stands in it
            for name in ("state", "cache"):
                (home / name).mkdir(mode=0o711, exist_ok=True)
            script = (
                "".join(
                    f"mount -t tmpfs -o size={self.room},mode=0711 none {home}/{name} && "
                    for name in ("state", "cache")
                )
                + script
            )
        argv = [
            *self.there.before(self.there.env)[:-1],
            "unshare",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
            str(self.folder / "passwd"),
        ]
        command = [str(server()), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        if (session := SERVER / "usr" / "lib" / "openssh" / "sshd-session").exists():  # OpenSSH 9.8 and later
            command += ["-o", f"SshdSessionPath={session}", "-o", f"SshdAuthPath={session.with_name('sshd-auth')}"]
        libraries = ":".join(map(str, SERVER.glob("usr/lib/*-linux-gnu")))
        self.log = self.folder / "log"
        with open(self.log, "wb") as out:
            env = {**os.environ, "LD_LIBRARY_PATH": libraries}
            self.process = subprocess.Popen([*argv, *command], stdout=out, stderr=out, env=env)
        end = time.monotonic() + patience(20)
        while "Server listening" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def __call__(self, *words: object, **more: object):
        return self.here("--context", "box", *words, **more)

    def cut(self) -> None:
        """Every connection ends, and the server with them."""
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split()
        self.process.terminate()
        self.process.wait()
        for pid in children:
            subprocess.run(["kill", pid], check=False, capture_output=True)

    def endpoint(self) -> int:
        """The process of the endpoint on the box; 0 where there is none."""
        seen = Path(f"/proc/{self.process.pid}/root") if self.room and self.process.poll() is None else Path("/")
        row = seen / (self.there.home / "state" / "serve" / "serve.json").relative_to("/")
        pid = json.loads(row.read_text())["pid"] if row.exists() else 0
        with contextlib.suppress(OSError):
            if pid and b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
        return 0

    def close(self) -> None:
        self.here("context", "rm", "box")
        if pid := self.endpoint():
            os.kill(pid, signal.SIGTERM)
        self.cut()
        for home in (self.there.home, self.here.home):  # of --host, and of the endpoint that was started
            for state in (home / "state", *(home / "state" / "contexts").glob("*")):
                shutil.rmtree(below(layout({"HIKUBE_LOCAL_HOME": str(home)}), state).runtime, ignore_errors=True)
        if self.made:
            with contextlib.suppress(OSError):
                os.rmdir("/run/sshd")


class Wire:
    """A way to a port of 127.0.0.1 that may be slow, and may fall silent while every connection stays open."""

    def __init__(self, port: int, delay: float = 0.0, at: int = 0) -> None:
        self._to, self.delay = port, delay  # seconds, one way
        self._sounds = threading.Event()
        self._sounds.set()
        self._listener = socket.create_server(("127.0.0.1", at))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def silent(self, is_so: bool) -> None:
        (self._sounds.clear if is_so else self._sounds.set)()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    near.close()
                    continue
                for a, b in ((near, far), (far, near)):
                    blocks: queue.Queue[tuple[float, bytes]] = queue.Queue()
                    threading.Thread(target=self._read, args=(a, blocks), daemon=True).start()
                    threading.Thread(target=self._write, args=(b, blocks), daemon=True).start()

    def _read(self, from_: socket.socket, blocks: queue.Queue[tuple[float, bytes]]) -> None:
        block = b"x"
        while block:
            block = b""
            with contextlib.suppress(OSError):
                block = from_.recv(1 << 16)
            blocks.put((time.monotonic() + self.delay, block))

    def _write(self, to: socket.socket, blocks: queue.Queue[tuple[float, bytes]]) -> None:
        with contextlib.suppress(OSError):
            while True:
                at, block = blocks.get()
                time.sleep(max(0.0, at - time.monotonic()))
                self._sounds.wait()
                if not block:
                    to.shutdown(socket.SHUT_WR)
                    return
                to.sendall(block)

    def close(self) -> None:
        self._listener.close()
        self._sounds.set()
