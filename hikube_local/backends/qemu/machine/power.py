"""A machine switched on and off."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from hikube_local import files, mux
from hikube_local.api.objects import Object
from hikube_local.backends.qemu import boot_marks, firmware, libvirt, owners
from hikube_local.backends.qemu.agent import Agent
from hikube_local.backends.qemu.context import Context
from hikube_local.backends.qemu.machine import definition, disks, limits, sizes
from hikube_local.backends.qemu.network.user_network import LOST
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.host.autostart import needs_linger
from hikube_local.host.facts import asleep
from hikube_local.plan.running import comes_back
from hikube_local.plan.steps import RunOptions, RunState
from hikube_local.render import fit, machine, seed
from hikube_local.render.machine import SEED


def tell(context: Context, obj: Object, options: RunOptions, emit: Emit) -> None:
    """Before it starts: its images are what they were, and what this host has to do differently is said."""
    disks.sound_bases(context, obj)
    if not context.sandbox.has_tenant_network:
        emit(Event(EventType.DIFFERENCE, LOST, obj.ref, obj.namespace, code="HK518"))
    if needs_linger(context.layout):
        what = "it is reachable only while you are logged in; to keep it reachable: sudo loginctl enable-linger $USER"
        emit(Event(EventType.HINT, what, obj.ref, obj.namespace))
    choice = context.accelerator(obj)
    if not choice.kvm:
        what = f"no hardware acceleration: {choice.why}"
        emit(Event(EventType.DIFFERENCE, what, obj.ref, obj.namespace, code="HK503"))
    if choice.lost:
        what = (
            f"its checkpoints with memory were made under {choice.lost} and cannot be restored under {choice.word}"
            f"; to restore them: `up --accelerator {choice.lost}`, if this host supports it"
        )
        emit(Event(EventType.WARNING, what, obj.ref, obj.namespace, code="HK521"))
    profile = machine.profile_of(obj.instance)
    _, told = sizes.size(context.store, context.facts, obj, options.exact)
    for d in [*told, *fit.dropped(profile, choice.kvm)]:
        emit(Event(EventType.DIFFERENCE, d.message, obj.ref, obj.namespace, code=d.code))


def start(context: Context, obj: Object, options: RunOptions) -> None:
    """Switch it on."""
    lv = libvirt.module()
    dom = context.domain(obj)
    if dom is None:
        raise HikubeError("HK801", f"{obj.name} is not defined")
    if _trusts_too_much(context, dom):
        definition.define(context, obj, options)
        dom = context.domain(obj) or dom
    choice, profile, folder = context.accelerator(obj), machine.profile_of(obj.instance), context.make_folder(obj)
    if obj.instance.has_seed and profile.disk_bus == "sata" and (content := seed.seed(obj, dom.UUIDString())):
        files.write(folder / SEED, seed.volume(content), 0o600)  # the guest may have written to it
    context.sandbox.make_sockets(context.tenants.tap(obj), context.sandbox.owner(dom.UUIDString()))
    boot_marks.mark(folder, {"console": folder / "console.log", "firmware": folder / "firmware.log"})
    context.store.keep(
        obj.key,
        ran_with=choice.word,
        ran_by=choice.by or None,
        started_before=True,
        cloud_init=None,
        asleep=asleep(),
        again=None,
        answered=None,
        resumed=None,
    )
    try:
        dom.createWithFlags(firmware.prepare(context.layout, folder, profile, dom.UUIDString(), lv))
        limits.bound(context, dom.name(), dom.XMLDesc(0))
        firmware.note(folder, profile)
        libvirt.ends(dom, comes_back(obj))
    except lv.libvirtError as e:
        if e.get_error_code() != lv.VIR_ERR_OPERATION_INVALID or not dom.isActive():
            raise libvirt.translated(e, f"{obj.name} did not start") from None


def _trusts_too_much(context: Context, dom: Any) -> bool:
    """A definition that an earlier version wrote: one user for all machines, who is given the shared images."""
    if not context.layout.root or dom.isActive():
        return False
    xml = dom.XMLDesc(libvirt.module().VIR_DOMAIN_XML_INACTIVE)
    return owners.in_xml(xml) != context.sandbox.owner(dom.UUIDString())


def stop(context: Context, obj: Object, options: RunOptions, emit: Emit) -> None:
    """ACPI first; after the grace period, or with --force, at once."""
    lv = libvirt.module()
    if (dom := context.active(obj)) is None:
        return
    libvirt.ends(dom, False)  # first of all: an action that restarts would make a reboot of every shutdown
    mux.close(context.layout, obj.uid)
    try:
        if not options.force and libvirt.state(dom)[0] is RunState.RUNNING:
            _shut_down(dom, obj, options.grace, emit)
        if dom.isActive():
            libvirt.switch_off(dom)
    except lv.libvirtError as e:
        if dom.isActive():
            raise libvirt.translated(e, f"{obj.name} could not be stopped") from None
    if ip := context.tenants.ip(obj):
        with context.network_lock(), contextlib.suppress(OSError, HikubeError):
            context.forwards.set(ip, frozenset())


def soft_reboot(context: Context, obj: Object) -> None:
    """The guest reboots; libvirt resets the machine when it has gone down, and QEMU goes on."""
    lv = libvirt.module()
    dom = context.running(obj)
    agent = Agent(dom)
    how = lv.VIR_DOMAIN_REBOOT_GUEST_AGENT if agent.connected() else lv.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
    try:
        dom.reboot(how)
    except lv.libvirtError as e:
        raise libvirt.translated(e, f"{obj.name} could not be rebooted") from None


def _press(dom: Any) -> None:
    """The power button. A guest that is on its way down does not take it any more: libvirt says that it is not running, as
    long as QEMU takes to end."""
    lv = libvirt.module()
    try:
        dom.shutdown()
    except lv.libvirtError as e:
        if e.get_error_code() != lv.VIR_ERR_OPERATION_INVALID:
            raise


def _shut_down(dom: Any, obj: Object, grace: float, emit: Emit) -> None:
    begin = told = time.monotonic()
    _press(dom)
    while dom.isActive() and time.monotonic() - begin < grace:
        time.sleep(0.1)
        if time.monotonic() - told > 5:
            told = time.monotonic()
            left = int(grace - (told - begin))
            emit(Event(EventType.PROGRESS, f"shutting down, {left} s until it is switched off", obj.ref, obj.namespace))
            _press(dom)
    if dom.isActive():
        emit(
            Event(
                EventType.WARNING,
                f"it did not shut down within {grace:.0f} s and is switched off",
                obj.ref,
                obj.namespace,
            )
        )
