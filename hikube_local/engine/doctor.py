"""Whether this host can run machines: what the host itself tells, and what the tenants' network needs of it."""

from __future__ import annotations

import contextlib

from hikube_local.backends import registry
from hikube_local.backends.capabilities import OnThisHost
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError
from hikube_local.host import accelerator, doctor
from hikube_local.host.check import HostCheck


def examine(session: Session) -> list[HostCheck]:
    """Each check with what mends it; what the accelerator's trial found is kept."""
    registry.require_linux()
    with contextlib.suppress(HikubeError):  # without QEMU there is nothing to try: its own check says so
        accelerator.keep(session.layout)
    return [*doctor.examine(session.layout), *(c for b in session.every(OnThisHost) for c in b.checks())]
