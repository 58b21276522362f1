"""The way out of a sandbox, and the ways in from the host's loopback: slirp4netns. One replaceable part."""

from __future__ import annotations

import json
import socket
import struct
import time
from pathlib import Path
from typing import Any

from hikube_local.backends.qemu.network import helpers
from hikube_local.backends.qemu.network.namespace import Namespace
from hikube_local.errors import HikubeError
from hikube_local.plan.steps import Forward
from hikube_local.render.addresses import Range
from hikube_local.run import clean_environment, find

PATIENCE = 10  # seconds for a place in the queue of slirp4netns' API, and for its answer


class Slirp:
    """Carries the namespace's traffic over sockets of the host's; its forwards are asked of it, never remembered."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.lock, self.api = namespace.run / "slirp.lock", namespace.run / "slirp.sock"

    def runs(self) -> bool:
        return helpers.pid_of(self.lock) is not None

    def ensure(self, pid: int, range: Range) -> None:
        if not self.runs():
            self.api.unlink(missing_ok=True)
        argv: list[str | Path] = [
            *self._confined(find("slirp4netns")),
            "--configure",
            "--enable-seccomp",
            "--mtu=65520",
            f"--cidr={range.supernet}",
            "--api-socket",
            self.api,
        ]
        argv += ["--enable-ipv6"] if range.v6 else []
        if self.namespace.root:
            argv += [str(pid), "tap0"]
        else:
            # By paths: the user namespace of `pid` need not be the one that owns the network.
            argv += ["--netns-type=path", "--userns-path=OWNER", f"/proc/{pid}/ns/net", "tap0"]
            argv = [*self.namespace.enter_words(pid, "outside"), *argv]
        log = self.namespace.log("slirp4netns")
        helpers.ensure(self.lock, argv, log, clean_environment(), check=lambda _: self.api.exists())
        deadline = time.monotonic() + 10
        while True:
            try:
                # A forward names the machine's own address: slirp4netns finds every machine behind tap0.
                self.namespace.batch(pid, [{"write": "/proc/sys/net/ipv4/conf/tap0/proxy_arp", "text": "1"}])
                return
            except HikubeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _confined(self, program: str) -> list[str]:
        """Root's gives up its capabilities and all of the file system but /etc and /run; a user's has none to give up.

        In a mount namespace of its own: its sandbox mounts over /tmp, which on a host whose /tmp is a mount shows there.
        """
        resolver = Path("/etc/resolv.conf").resolve()
        if not self.namespace.root or (not resolver.is_relative_to("/etc") and not resolver.is_relative_to("/run")):
            return [program]
        return ["unshare", "-m", "--propagation", "private", program, "--enable-sandbox"]

    def call(self, command: str, **arguments: Any) -> Any:
        """One request to slirp4netns' API: add_hostfwd, list_hostfwd, remove_hostfwd."""
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        try:
            with socket.socket(socket.AF_UNIX) as s:
                # Its queue is short. The kernel waits in it with a time-out of its own; with Python's it would not (EAGAIN).
                s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", PATIENCE, 0))
                s.connect(str(self.api))
                s.settimeout(PATIENCE)
                s.sendall(json.dumps(request).encode())
                s.shutdown(socket.SHUT_WR)
                answer = b""
                while block := s.recv(65536):
                    answer += block
            reply = json.loads(answer)
        except (OSError, ValueError) as e:
            fix = "hikube-local purge -A, then up starts over (disks are kept)"
            raise HikubeError("HK803", f"slirp4netns does not answer: {e}", fix=fix) from None
        if "error" in reply:
            raise HikubeError(
                "HK803", f"slirp4netns refused {command}", why=str(reply["error"].get("desc", reply["error"]))[:200]
            )
        return reply.get("return", reply)

    def add(self, forward: Forward, ip: str) -> None:
        about = {"proto": forward.protocol, "host_addr": forward.address, "host_port": forward.host_port}
        self.call("add_hostfwd", **about, guest_addr=ip, guest_port=forward.port)

    def remove(self, id: Any) -> None:
        self.call("remove_hostfwd", id=id)

    def end(self) -> None:
        helpers.end(self.lock)

    def forwards(self) -> list[dict[str, Any]]:
        return self.call("list_hostfwd").get("entries", []) if self.runs() else []
