"""The frozen description of a machine on this host: what its domain XML is made of, with disks, taps and paths as they are here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hikube_local.api.objects import DISK, Key, Object
from hikube_local.backends.qemu import plugs, sizes
from hikube_local.disks import layers, qcow2
from hikube_local.plan.steps import RunOptions
from hikube_local.render import fit
from hikube_local.render import machine as render
from hikube_local.render.machine import SEED

if TYPE_CHECKING:
    from hikube_local.backends.qemu.world import Qemu


def machine(world: Qemu, obj: Object, options: RunOptions) -> render.Machine:
    """The frozen description of this machine on this host."""
    spec = obj.instance
    size, _ = sizes.size(world.store, world.facts, obj, options.exact)
    devices = [_device(world, obj, i) for i in range(len(spec.disks))]
    folder = world.folder(obj)
    if spec.has_seed:
        devices.append(render.seed_device(spec, world.carrier.seen(folder / SEED)))
    tap = world.tenants.tap(obj)
    uuid = world.uuid(obj)
    return render.Machine(
        namespace=obj.namespace,
        name=obj.name,
        uuid=uuid,
        size=size,
        profile=render.profile_of(spec),
        disks=tuple(devices),
        mac=world.tenants.mac(obj, world.lan(obj)),
        tap="" if world.carrier.alone else tap,
        further=() if world.carrier.alone else tuple((n.mac, n.tap) for n in world.tenants.further(obj)),
        places=render.places(world.carrier.seen(folder), str(world.carrier.sockets(tap))),
        kvm=world.facts.kvm,
        tb_cache=None if world.facts.kvm else fit.TB_CACHE >> 20,
        unsafe=world.throwaway,
        # Each costs an emulated guest about a tenth of a second of its boot.
        spare_ports=0 if world.throwaway else render.SPARE_PORTS,
        cpu_model=spec.cpuModel,
        owner=world.carrier.owner(uuid),
        oem=world.oem,
    )


def _device(world: Qemu, obj: Object, index: int) -> render.DiskDevice:
    name = obj.instance.disks[index].name
    disk = world.store.get(Key(DISK, obj.namespace, name))
    optical = bool(disk and disk.disk.optical)
    bus = render.bus_of(obj.instance, index, optical)
    hot = plugs.may(obj.instance.disks[index], bus, optical)
    folder = world.layout.disk(obj.namespace, name)
    about = qcow2.facts(folder)
    backing = [(world.carrier.seen(path), "qcow2") for path in layers.below(folder)]
    if about.base:
        backing.append((world.carrier.seen(world.cache.path(about.base)), about.base_format))
    return render.DiskDevice(
        name=name,
        # An optical disk without a source is an empty drive.
        path="" if disk and disk.disk.empty_drive else world.carrier.seen(layers.active(folder)),
        format="qcow2",
        bus=bus,
        optical=optical,
        readonly=optical,
        boot_order=None if hot else index + 1,
        hot=hot,
        backing=tuple(backing),
        own_base=not (about.base and world.layout.root),
    )


def fixed(world: Qemu, obj: Object) -> set[str]:
    """The disks that stay while the machine runs."""
    devices = [_device(world, obj, i) for i in range(len(obj.instance.disks))]
    return {d.name for d in devices if not d.hot}
