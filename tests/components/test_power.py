"""A machine that is switched off, on a domain that does what the test says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hikube_local.api.objects import Object, VMInstanceSpec
from hikube_local.backends.qemu import libvirt
from hikube_local.backends.qemu.machine import power
from hikube_local.errors import HikubeError
from hikube_local.events import Event
from hikube_local.paths import layout
from hikube_local.plan.steps import RunOptions

pytest.importorskip("libvirt")
OBJ = Object(kind="VMInstance", namespace="default", name="web", spec=VMInstanceSpec())


class Domain:
    """A guest that takes `deaf` seconds until it hears the button, and whose QEMU needs `leaving` more to end."""

    def __init__(self, clock: list[float], deaf: float, leaving: float, error: int | None = None) -> None:
        self.clock, self.deaf, self.leaving, self.error = clock, deaf, leaving, error
        self.lv = libvirt.module()
        self.presses, self.destroyed = 0, False

    def _passed(self) -> float:
        return self.clock[0] - self.deaf

    def isActive(self) -> bool:
        return not self.destroyed and self._passed() < self.leaving

    def state(self) -> tuple[int, int]:
        return (self.lv.VIR_DOMAIN_RUNNING, 0) if self._passed() < 0 else (self.lv.VIR_DOMAIN_SHUTDOWN, 0)

    def setLifecycleAction(self, *words: int) -> None:
        pass

    def shutdown(self) -> None:
        self.presses += 1
        code = self.error or (self.lv.VIR_ERR_OPERATION_INVALID if self._passed() >= 0 else None)
        if code is not None:
            error = self.lv.libvirtError("domain is not running")
            error.err = (code, 10, "Requested operation is not valid: domain is not running", 2, "", None, None, -1, -1)
            raise error

    def destroy(self) -> None:
        self.destroyed = True


def stopped(monkeypatch: pytest.MonkeyPatch, dom: Domain) -> list[Event]:
    def sleep(seconds: float) -> None:
        dom.clock[0] += seconds

    monkeypatch.setattr(power, "time", SimpleNamespace(monotonic=lambda: dom.clock[0], sleep=sleep))
    told: list[Event] = []
    context: Any = SimpleNamespace(
        active=lambda obj: dom, tenants=SimpleNamespace(ip=lambda obj: None), layout=layout({})
    )
    power.stop(context, OBJ, RunOptions(grace=30), told.append)
    return told


def test_a_guest_that_goes_down_slowly_is_no_error(monkeypatch):
    """libvirt says "domain is not running" of one that is on its way down, as long as its QEMU takes to end: waited for."""
    dom = Domain([0.0], deaf=3, leaving=9)
    told = stopped(monkeypatch, dom)
    assert dom.presses >= 2 and not dom.destroyed and not [e for e in told if e.type == "warning"]


def test_a_guest_that_hears_nothing_is_switched_off(monkeypatch):
    dom = Domain([0.0], deaf=1e6, leaving=1)
    told = stopped(monkeypatch, dom)
    assert dom.destroyed and [e for e in told if e.type == "warning"]


def test_another_error_is_told(monkeypatch):
    dom = Domain([0.0], deaf=1e6, leaving=1, error=38)
    with pytest.raises(HikubeError, match="web could not be stopped"):
        stopped(monkeypatch, dom)


def test_a_machine_that_ends_while_it_is_switched_off_is_off():
    dom = Domain([0.0], deaf=0, leaving=0)
    dom.destroy = dom.shutdown  # type: ignore[method-assign]
    libvirt.switch_off(dom)
    dom.leaving = 9
    with pytest.raises(libvirt.module().libvirtError):
        libvirt.switch_off(dom)
