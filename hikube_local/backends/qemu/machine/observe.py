"""A machine as it is, and as it should be: what the plan compares. Reads only."""

from __future__ import annotations

from dataclasses import replace

from hikube_local import files
from hikube_local.api.objects import Object
from hikube_local.backends.qemu import boot_marks, libvirt
from hikube_local.backends.qemu.context import Context
from hikube_local.backends.qemu.machine import hotplug, spec
from hikube_local.disks import layers
from hikube_local.plan.steps import MachineDesired, MachineObserved, RunOptions, RunState
from hikube_local.render import domain, growth, seed
from hikube_local.render.growth import Capacity
from hikube_local.render.machine import SEED, SEED_MARK
from hikube_local.store import bodies

UNDEFINED = "not defined yet"  # no digest: a machine without a definition is to be defined, whatever it will be


def machine(context: Context, obj: Object) -> MachineObserved:
    folder = context.folder(obj)
    recorded = bodies.recorded(folder) or {}
    mark = files.read_json(folder / SEED_MARK) or {}
    if not (folder / SEED).exists():
        mark = {}
    dom = context.existing_domain(obj)
    state = libvirt.state(dom)[0] if dom else RunState.ABSENT
    on = state in (RunState.RUNNING, RunState.PAUSED, RunState.FAILED)
    kept = dom.XMLDesc(libvirt.module().VIR_DOMAIN_XML_INACTIVE) if dom else ""
    live = dom.XMLDesc(0) if dom and on else ""
    ip = context.tenants.ip(obj)
    rows = boot_marks.all(folder)
    seated = context.bridge(obj) == context.store.lease(obj.key).lan
    return MachineObserved(
        state=state,
        definition=domain.digest(kept) if kept and _usable(context, obj, kept, on) else "",
        live_definition=domain.digest(live, cold=True) if live else "",
        stale=bool(live and kept) and domain.digest(live, cold=True) != domain.digest(kept, cold=True),
        live_shape=domain.shape(live) if live else "",
        capacity=growth.capacity(live) if live else Capacity(),
        most=growth.most(live) if live else Capacity(),
        hot=hotplug.attached(live, spec.fixed(context, obj)) if live else frozenset(),
        seed=mark.get("digest"),
        forwards=context.forwards.observed(ip) if on and ip else frozenset(),
        network=context.tenants.is_up(obj) and (on or seated),
        folder=folder.is_dir(),
        generation=recorded.get("generation", 0),
        started=rows[-1]["time"] if rows else None,
        renamed=on and dom is not None and dom.UUIDString() != context.uuid(obj),
    )


def desired(context: Context, obj: Object, options: RunOptions, seen: MachineObserved) -> MachineDesired:
    if obj.deletion:
        return MachineDesired("", None)
    content = seed.seed(obj, context.uuid(obj))
    want = MachineDesired(UNDEFINED, content.digest if content else None, context.forwards.wanted(obj))
    if not seen.definition and not seen.live_definition:
        # Nothing to compare: a plan of a new machine needs to know neither this host nor its accelerator.
        return want
    machine = spec.machine(context, obj, options)
    found = domain.digests(machine)
    return replace(
        want,
        definition=found.whole,
        cold=found.cold,
        hot=frozenset(d.name for d in machine.disks if d.hot),
        shape=found.shape,
        capacity=Capacity(machine.size.vcpus, machine.size.memory),
    )


def _usable(context: Context, obj: Object, xml: str, on: bool) -> bool:
    """Not one that names other layers than its disks have now; laid out as an earlier release did, only while it runs."""
    return (on or domain.laid_out(xml)) and not strayed(context, obj, xml)


def strayed(context: Context, obj: Object, xml: str) -> bool:
    """Whether a definition names other layers than the disks have now."""
    for n, folder in context.writable_disks(obj).items():
        have = layers.read(folder)
        own, named = have.chain(have.active), libvirt.chain(xml, n)
        if named and named[: len(own)] != own:
            return True
    return False
