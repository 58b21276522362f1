"""The frozen description of a machine on this host: what its domain XML is made of, with disks, taps and paths as they are here."""

from __future__ import annotations

from hikube_local.api.objects import DISK, Key, Object
from hikube_local.backends.qemu.context import Context
from hikube_local.backends.qemu.machine import hotplug, sizes
from hikube_local.catalogue import data
from hikube_local.disks import layers, qcow2
from hikube_local.plan.steps import RunOptions
from hikube_local.render import fit
from hikube_local.render import machine as render
from hikube_local.render.machine import SEED


def machine(context: Context, obj: Object, options: RunOptions) -> render.Machine:
    """The frozen description of this machine on this host."""
    spec = obj.instance
    size, _ = sizes.size(context.store, context.facts, obj, options.exact)
    devices = [_device(context, obj, i) for i in range(len(spec.disks))]
    folder = context.folder(obj)
    if spec.has_seed:
        devices.append(render.seed_device(spec, context.sandbox.seen(folder / SEED)))
    tenant, tap = context.sandbox.has_tenant_network, context.tenants.tap(obj)
    profile = render.profile_of(spec)
    uuid, kvm = context.uuid(obj), context.accelerator(obj).kvm
    return render.Machine(
        namespace=obj.namespace,
        name=obj.name,
        uuid=uuid,
        size=size,
        profile=profile,
        disks=tuple(devices),
        mac=context.tenants.mac(obj, context.bridge(obj)),
        tap=tap if tenant else "",
        further=tuple((n.mac, n.tap) for n in context.tenants.further(obj)) if tenant else (),
        places=render.places(context.sandbox.seen(folder), str(context.sandbox.sockets(tap))),
        kvm=kvm,
        tb_cache=None if kvm else fit.TB_CACHE >> 20,
        unsafe=context.settings.throwaway,
        # Each costs an emulated guest about a tenth of a second of its boot.
        spare_ports=0 if context.settings.throwaway else render.SPARE_PORTS,
        tsc=context.tsc() if kvm and "reenlightenment" in profile.hyperv else 0,
        cpu_model=spec.cpuModel,
        owner=context.sandbox.owner(uuid),
        oem=context.settings.oem,
        page_reporting=not data.huge_pages(spec.instanceType),
    )


def _device(context: Context, obj: Object, index: int) -> render.DiskDevice:
    name = obj.instance.disks[index].name
    disk = context.store.get(Key(DISK, obj.namespace, name))
    optical = bool(disk and disk.disk.optical)
    bus = render.bus_of(obj.instance, index, optical)
    hot = hotplug.may(obj.instance.disks[index], bus, optical)
    folder = context.layout.disk(obj.namespace, name)
    about = qcow2.facts(folder)
    backing = [(context.sandbox.seen(path), "qcow2") for path in layers.below(folder)]
    if about.base:
        backing.append((context.sandbox.seen(context.cache.path(about.base)), about.base_format))
    return render.DiskDevice(
        name=name,
        # An optical disk without a source is an empty drive.
        path="" if disk and disk.disk.empty_drive else context.sandbox.seen(layers.active(folder)),
        format="qcow2",
        bus=bus,
        optical=optical,
        readonly=optical,
        boot_order=None if hot else index + 1,
        hot=hot,
        backing=tuple(backing),
        own_base=not (about.base and context.layout.root),
    )


def fixed(context: Context, obj: Object) -> set[str]:
    """The disks that stay while the machine runs."""
    devices = [_device(context, obj, i) for i in range(len(obj.instance.disks))]
    return {d.name for d in devices if not d.hot}
