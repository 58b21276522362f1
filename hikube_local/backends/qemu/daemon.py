"""The libvirtd of a carrier: our own, inside the namespace; a user's has no capability at all."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from hikube_local import files
from hikube_local.backends.qemu import firmware, helpers, owners
from hikube_local.backends.qemu.mounts import VIRTLOGD, lost
from hikube_local.host.doctor import path_of
from hikube_local.run import clean_environment, find

if TYPE_CHECKING:
    from hikube_local.backends.qemu.carrier import Carrier


class Daemon:
    """libvirtd and, for root, the virtlogd that keeps its machines' logs."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self.lock = carrier.run / "libvirtd.lock"
        self.socket = carrier.run / "libvirt" / "libvirt-sock"

    @property
    def uri(self) -> str:
        mode = "system" if self.carrier.root else "session"
        return f"qemu+unix:///{mode}?socket={self.socket}"

    def pid(self) -> int | None:
        return helpers.pid_of(self.lock)

    def _environment(self) -> dict[str, str]:
        if self.carrier.root:
            return clean_environment(HOME="/root")
        r = str(self.carrier.run)
        cache = files.make_folder(self.carrier.layout.cache / "libvirt")
        files.write(files.make_folder(self.carrier.run / "cfg" / "libvirt") / "virtlogd.conf", VIRTLOGD)
        # TPMs live with the state: a reboot empties the runtime folder.
        link = files.make_folder(self.carrier.run / "cfg" / "libvirt" / "qemu") / "swtpm"
        if not link.is_symlink():
            link.symlink_to(files.make_folder(firmware.tpm_folder(self.carrier.layout)))
        return clean_environment(
            HOME=str(Path.home()),
            XDG_RUNTIME_DIR=r,
            XDG_CONFIG_HOME=f"{r}/cfg",
            XDG_DATA_HOME=f"{r}/data",
            XDG_CACHE_HOME=str(cache),
        )

    def ensure(self, pid: int) -> None:
        carrier, env = self.carrier, self._environment()
        if carrier.root:
            # A dead one leaves its socket behind; nobody answers there.
            argv = carrier.inside(pid, "virtlogd", "--pid-file", carrier.run / "virtlogd.pid")
            socket_there = carrier.run / "libvirt/virtlogd-sock"
            helpers.ensure(
                carrier.run / "virtlogd.lock",
                argv,
                carrier.log("virtlogd"),
                env,
                check=lambda _: socket_there.exists(),
            )
        # Where PID 1 reaps late (containers), libvirt waits for every QEMU that ended; tini reaps them at once.
        reaper = ["tini", "-s", "--"] if path_of("tini") else []
        argv = carrier.inside(pid, *reaper, find("libvirtd"), "--pid-file", carrier.run / "libvirtd.pid")
        if not self.pid():
            self.socket.unlink(missing_ok=True)
            if carrier.root:
                gone = lost(pid, carrier.run, owners.shared())
                carrier.batch(pid, [{"run": ["mount", *words]} for words in gone])
        helpers.ensure(self.lock, argv, carrier.log("libvirtd"), env, ready=30, check=lambda _: _answers(self.socket))

    def end(self) -> None:
        for name in ("libvirtd", "virtlogd"):
            helpers.end(self.carrier.run / f"{name}.lock")
        if not self.carrier.root:
            self._end_session_virtlogd()

    def _end_session_virtlogd(self) -> None:
        """A session's libvirtd starts virtlogd by itself, which would linger for two minutes."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.carrier.run / "libvirt" / "virtlogd.pid").read_text())
            if os.readlink(f"/proc/{pid}/exe").endswith("/virtlogd"):
                os.kill(pid, 15)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(1)
        try:
            s.connect(str(path))
        except OSError:
            return False
        return True
