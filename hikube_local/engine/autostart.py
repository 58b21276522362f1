"""The machines that are to run, brought back: what the unit of `autostart` does when the host has booted."""

from __future__ import annotations

from hikube_local import files
from hikube_local.api.objects import INSTANCE, Key, Object
from hikube_local.engine.reconcile import Done
from hikube_local.engine.session import Session
from hikube_local.events import Emit
from hikube_local.host import autostart
from hikube_local.host.autostart import Unit, needs_linger, require_systemd
from hikube_local.plan.running import expected_up
from hikube_local.plan.steps import RunOptions
from hikube_local.run import run

__all__ = ["disable", "enable", "needs_linger", "require_systemd", "start", "unit", "wanted"]


def unit(session: Session) -> Unit:
    """The unit for this state root."""
    return autostart.unit(session.layout, str(session.layout.state.parent) if session.layout.shared else None)


def wanted(session: Session) -> list[Object]:
    """The machines whose run strategy is Always and that nobody stopped."""
    machines = session.store.objects(INSTANCE)
    return [o for o in machines if not o.deletion and expected_up(o, session.store.intent(o.key).power)]


def enable(unit: Unit) -> None:
    """Write the unit, so that systemd starts it with the host."""
    unit.path.parent.mkdir(parents=True, exist_ok=True)
    files.write(unit.path, unit.text, 0o644)
    run(unit.systemctl("daemon-reload"))
    run(unit.systemctl("enable", unit.path.name))


def disable(unit: Unit) -> None:
    """Take it away; machines that run go on."""
    run(unit.systemctl("disable", unit.path.name), check=False)
    unit.path.unlink(missing_ok=True)
    run(unit.systemctl("daemon-reload"))


def start(session: Session, emit: Emit) -> dict[Key, Done]:
    """Bring them up, and wait for none of them."""
    return session.reconciler(emit, RunOptions(offline=True)).reconcile([o.key for o in wanted(session)], wait=False)
