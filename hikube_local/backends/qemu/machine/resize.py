"""More vCPUs and memory for a machine while it runs, as KubeVirt's LiveUpdate gives them."""

from __future__ import annotations

from hikube_local.api.objects import Object
from hikube_local.backends.qemu import libvirt
from hikube_local.backends.qemu.context import Context
from hikube_local.backends.qemu.machine import limits, sizes, spec
from hikube_local.events import Emit, Event, EventType
from hikube_local.plan.steps import RunOptions
from hikube_local.render import domain, growth
from hikube_local.render.growth import Capacity


def grow(context: Context, obj: Object, options: RunOptions, emit: Emit) -> None:
    """Bring it to its size. What is there already is not given twice; what marks it as done comes last."""
    lv = libvirt.module()
    dom = context.running(obj)
    machine = spec.machine(context, obj, options)
    xml = dom.XMLDesc(0)
    have, want = growth.capacity(xml), machine.size
    try:
        if want.vcpus > have.vcpus:
            dom.setVcpusFlags(want.vcpus, lv.VIR_DOMAIN_AFFECT_LIVE)
        if not Capacity(memory=want.memory).within(Capacity(memory=have.memory)):
            limits.bound(context, dom.name(), xml, want.memory)
            change = dom.updateDeviceFlags if growth.has_device(xml) else dom.attachDeviceFlags
            change(growth.device(xml, want.memory), lv.VIR_DOMAIN_AFFECT_LIVE)
        kind = lv.VIR_DOMAIN_METADATA_ELEMENT
        dom.setMetadata(kind, domain.marks(machine), "hikube", domain.NAMESPACE, lv.VIR_DOMAIN_AFFECT_LIVE)
    except lv.libvirtError as e:
        raise libvirt.translated(e, f"{obj.name} could not be given more while it runs") from None
    for d in sizes.size(context.store, context.facts, obj, options.exact)[1]:
        emit(Event(EventType.DIFFERENCE, d.message, obj.ref, obj.namespace, code=d.code))
    what = f"it has {Capacity(want.vcpus, want.memory)} now; its guest brings them into use"
    emit(Event(EventType.STEP, what, obj.ref, obj.namespace))
