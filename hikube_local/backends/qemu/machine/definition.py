"""What is written for a machine before it runs: its seed, its network, its definition in libvirt, its ports."""

from __future__ import annotations

from hikube_local import files
from hikube_local.api import names
from hikube_local.api.objects import Object
from hikube_local.backends.qemu import firmware, libvirt
from hikube_local.backends.qemu.context import Context
from hikube_local.backends.qemu.machine import hotplug, spec
from hikube_local.events import Emit, Event, EventType
from hikube_local.plan.steps import Forward, RunOptions
from hikube_local.render import domain, seed
from hikube_local.render.machine import SEED, SEED_MARK


def write_seed(context: Context, obj: Object, emit: Emit) -> None:
    """The NoCloud volume, with a note of what it was made of; none where the machine has no cloud-init."""
    folder = context.make_folder(obj)
    content = seed.seed(obj, context.uuid(obj))
    if content is None:
        for name in (SEED, SEED_MARK):
            (folder / name).unlink(missing_ok=True)
        return
    mark = {"digest": content.digest, "userData": content.requested}
    before = files.read_json(folder / SEED_MARK)
    if isinstance(before, dict) and before.get("userData") != content.requested:
        what = "the next boot gets a new seed; cloud-init acts on it only with a new cloudInitSeed"
        emit(Event(EventType.HINT, what, obj.ref, obj.namespace))
    files.write(folder / SEED, seed.volume(content), 0o600)
    files.write_json(folder / SEED_MARK, mark)


def network(context: Context, obj: Object) -> None:
    """Its tenant's network with its tap, and the sandbox under it."""
    dom = context.active(obj)  # before the lock, which it may want itself
    with context.network_lock():
        bridge = context.bridge(obj)
        if bridge != context.store.lease(obj.key).lan and dom is None:
            context.store.keep(obj.key, lan=bridge or None, lan_ip=None)
        context.tenants.ensure(obj)


def define(context: Context, obj: Object, options: RunOptions) -> None:
    """Its definition in libvirt, as the manifest and this host want it; a running machine goes on as it is."""
    connection = context.connection.ensure()
    if connection is None:
        with context.network_lock():
            context.tenants.ensure(obj)
        connection = context.connection.ensure()
    assert connection is not None
    lv = libvirt.module()
    machine = spec.machine(context, obj, options)
    xml = domain.domain(machine)
    if machine.kvm:
        context.sandbox.show_kvm()
    try:
        old = libvirt.domain(connection, names.domain(obj.namespace, obj.name))
        if old is not None and old.UUIDString() != context.uuid(obj) and not old.isActive():
            # A new seed gives a new UUID, which libvirt takes for another machine.
            if not context.uuid_of_another(obj):
                firmware.move_tpm(context.layout, old.UUIDString(), context.uuid(obj))
            old.undefineFlags(lv.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | lv.VIR_DOMAIN_UNDEFINE_KEEP_TPM)
        connection.defineXMLFlags(xml, lv.VIR_DOMAIN_DEFINE_VALIDATE)
    except lv.libvirtError as e:
        raise libvirt.translated(e, f"libvirt refused the machine {obj.name}") from None


def plug(context: Context, obj: Object, options: RunOptions, emit: Emit) -> None:
    """Attach and detach the disks that come and go while it runs."""
    hotplug.bring(context.running(obj), spec.machine(context, obj, options), obj, emit)


def open_ports(context: Context, obj: Object, want: frozenset[Forward] | None = None) -> None:
    """Open and close the machine's forwards, and bring names and firewall along; None: those that it should have."""
    want = context.forwards.allocate(obj) if want is None else want
    with context.network_lock():
        pid = context.sandbox.holder()
        if pid is not None and (ip := context.tenants.ip(obj)):
            context.forwards.set(ip, want)
            context.tenants.refresh(pid)
