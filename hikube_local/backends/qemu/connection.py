"""The connection to the libvirt of our machines: made once for a process, shared by its threads, renewed with its daemon."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from hikube_local import locks
from hikube_local.backends.qemu import libvirt
from hikube_local.backends.qemu.network.tenants import Tenants
from hikube_local.errors import HikubeError
from hikube_local.locks import locked

STARTING = 60.0  # seconds that a look waits for a libvirt that somebody is starting


class Connection:
    """To the libvirtd of one sandbox."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants, self._sandbox = tenants, tenants.sandbox
        self._lock = tenants.sandbox.layout.locks / "network"
        self._open: Any = None
        self._served_by: int | None = None  # the libvirtd that it leads to
        self._connecting = threading.Lock()

    def network_lock(self) -> contextlib.AbstractContextManager[None]:
        return locked(self._lock)

    def existing(self) -> Any | None:
        """For a look: libvirt as it is; None when nothing of ours is up, HK610 when it has ended."""
        end = time.monotonic() + STARTING
        while self._sandbox.lives():
            # Whoever holds the lock may just be starting it. Asked first: who lets go of it after that has started it.
            free = locks.holder(self._lock) is None
            if self._sandbox.daemon.pid() and self._sandbox.holder() is not None:
                with contextlib.suppress(HikubeError):
                    return self.connected()
            if free or time.monotonic() > end:
                what = "the libvirt that runs the machines has stopped or does not answer"
                why = "the machines themselves keep running"
                raise HikubeError("HK610", what, why, "hikube-local up starts it again")
            time.sleep(0.1)
        return None

    def ensure(self) -> Any | None:
        """None when nothing of ours is up. A libvirtd that died is started again."""
        if not self._sandbox.lives():
            return None
        if self._sandbox.daemon.pid() and self._sandbox.holder() is not None:
            with contextlib.suppress(HikubeError):  # just starting, by somebody who holds the lock until it answers
                return self.connected()
        with self.network_lock():
            if not self._sandbox.lives():
                return None  # the last machine went while we waited for the lock
            pid = self._sandbox.ensure(self._tenants.range(), out=False)
            with contextlib.suppress(HikubeError):  # what cannot be reached can still be looked at and removed
                self._sandbox.egress.ensure(pid, self._tenants.range())
        return self.connected()

    def connected(self) -> Any:
        """To the daemon that runs now, or the error that says why not."""
        pid = self._sandbox.daemon.pid()
        with self._connecting:
            if self._open is None or self._served_by != pid or not self._open.isAlive():
                self._open = libvirt.connect(self._sandbox.daemon.uri)
                self._served_by = pid
            return self._open
