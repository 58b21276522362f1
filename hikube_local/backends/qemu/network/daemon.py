"""The libvirtd of a sandbox: our own, inside the namespace; a user's has no capability at all."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from hikube_local import files
from hikube_local.backends.qemu import firmware
from hikube_local.backends.qemu.network import helpers
from hikube_local.backends.qemu.network.mounts import VIRTLOGD, lost
from hikube_local.backends.qemu.network.namespace import Namespace
from hikube_local.host import qemu_ids
from hikube_local.host.doctor import path_of
from hikube_local.run import clean_environment, find


class Daemon:
    """libvirtd and, for root, the virtlogd that keeps its machines' logs."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.lock = namespace.run / "libvirtd.lock"
        self.socket = namespace.run / "libvirt" / "libvirt-sock"

    @property
    def uri(self) -> str:
        mode = "system" if self.namespace.root else "session"
        return f"qemu+unix:///{mode}?socket={self.socket}"

    def pid(self) -> int | None:
        return helpers.pid_of(self.lock)

    def _environment(self) -> dict[str, str]:
        if self.namespace.root:
            return clean_environment(HOME="/root")
        r = str(self.namespace.run)
        cache = files.make_folder(self.namespace.layout.cache / "libvirt")
        files.write(files.make_folder(self.namespace.run / "cfg" / "libvirt") / "virtlogd.conf", VIRTLOGD)
        # TPMs live with the state: a reboot empties the runtime folder.
        link = files.make_folder(self.namespace.run / "cfg" / "libvirt" / "qemu") / "swtpm"
        if not link.is_symlink():
            link.symlink_to(files.make_folder(firmware.tpm_folder(self.namespace.layout)))
        return clean_environment(
            HOME=str(Path.home()),
            XDG_RUNTIME_DIR=r,
            XDG_CONFIG_HOME=f"{r}/cfg",
            XDG_DATA_HOME=f"{r}/data",
            XDG_CACHE_HOME=str(cache),
        )

    def ensure(self, pid: int) -> None:
        namespace, env = self.namespace, self._environment()
        if namespace.root:
            # A dead one leaves its socket behind; nobody answers there.
            argv = namespace.inside(pid, "virtlogd", "--pid-file", namespace.run / "virtlogd.pid")
            socket_there = namespace.run / "libvirt/virtlogd-sock"
            helpers.ensure(
                namespace.run / "virtlogd.lock",
                argv,
                namespace.log("virtlogd"),
                env,
                check=lambda _: socket_there.exists(),
            )
        # Where PID 1 reaps late (containers), libvirt waits for every QEMU that ended; tini reaps them at once.
        reaper = ["tini", "-s", "--"] if path_of("tini") else []
        argv = namespace.inside(pid, *reaper, find("libvirtd"), "--pid-file", namespace.run / "libvirtd.pid")
        if not self.pid():
            self.socket.unlink(missing_ok=True)
            if namespace.root:
                gone = lost(pid, namespace.run, qemu_ids.shared())
                namespace.batch(pid, [{"run": ["mount", *words]} for words in gone])
        helpers.ensure(self.lock, argv, namespace.log("libvirtd"), env, ready=30, check=lambda _: _answers(self.socket))

    def end(self) -> None:
        for name in ("libvirtd", "virtlogd"):
            helpers.end(self.namespace.run / f"{name}.lock")
        if not self.namespace.root:
            self._end_session_virtlogd()

    def _end_session_virtlogd(self) -> None:
        """A session's libvirtd starts virtlogd by itself, which would linger for two minutes."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.namespace.run / "libvirt" / "virtlogd.pid").read_text())
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
