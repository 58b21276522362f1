"""What everything that works on real machines shares: where things are, what is kept, what carries them."""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hikube_local import files
from hikube_local.api import names
from hikube_local.api.objects import DISK, INSTANCE, Key, Object
from hikube_local.backends.protocol import Settings
from hikube_local.backends.qemu import libvirt
from hikube_local.backends.qemu.connection import Connection
from hikube_local.backends.qemu.network.port_forwards import PortForwards
from hikube_local.backends.qemu.network.tenants import Tenants
from hikube_local.backends.qemu.network.user_network import sandbox_of
from hikube_local.errors import HikubeError
from hikube_local.host.accelerator import host_facts
from hikube_local.host.facts import HostFacts
from hikube_local.images.cache import Cache
from hikube_local.paths import Layout
from hikube_local.plan.accelerator import Choice, choose
from hikube_local.store.db import Store

CHECKPOINT = "checkpoint.json"  # the record of one, in its folder
PENDING = "pending.json"  # in the machine's folder: what is under way with its checkpoints


class Context:
    """One state root's machines. It knows where they are and asks libvirt for them; it decides nothing."""

    def __init__(self, layout: Layout, store: Store, settings: Settings) -> None:
        self.layout, self.store, self.settings = layout, store, settings
        self.sandbox = sandbox_of(layout)
        bridged = settings.networks if layout.root else {}
        self.tenants = Tenants(self.sandbox, store, bridged, settings.link_local)
        self.forwards = PortForwards(self.sandbox.egress, store, layout.id)
        self.cache = Cache(layout.images, layout.mode)
        self.connection = Connection(self.tenants)

    @cached_property
    def facts(self) -> HostFacts:
        facts, stretch = host_facts(self.layout), self.settings.stretch
        return facts if stretch is None else replace(facts, stretch=stretch)

    def accelerator(self, obj: Object) -> Choice:
        """The accelerator that the machine has, or would get at its next start."""
        intent, lease, _ = self.store.records(obj.key)
        said = obj.annotations.get(names.ACCELERATOR, "").lower()
        facts, has = self.facts, lease.ran_with or self._defined_with(obj)
        asked = (intent.accelerator, said, self.settings.accelerator)
        if has in ("", facts.accelerator) and not any(asked):
            return choose(facts, *asked)
        return choose(facts, *asked, "" if lease.ran_by else has, self._runs(obj), self._memory(obj, has))

    def _defined_with(self, obj: Object) -> str:
        """The accelerator of a machine that an earlier version started, or nothing."""
        dom = self.existing_domain(obj)
        if dom is None:
            return ""
        return "kvm" if ET.fromstring(dom.XMLDesc(0)).get("type") == "kvm" else "tcg"

    def _runs(self, obj: Object) -> bool:
        dom = self.existing_domain(obj)
        return bool(dom is not None and dom.isActive())

    def _memory(self, obj: Object, has: str) -> frozenset[str]:
        """The accelerators of its checkpoints with memory; of those of an earlier version it is the machine's own."""
        found = set()
        for path in (self.layout.state / "checkpoints" / obj.namespace / obj.name).rglob("memory"):
            row = files.read_json(path.parent / CHECKPOINT)
            found.add((row.get("accelerator") if isinstance(row, dict) else "") or has)
        return frozenset(found - {""})

    def tsc(self) -> int:
        """Hz of the host's time stamp counter as libvirt measured it, 0 where it cannot be given to a guest."""
        connection = self.connection.existing()
        if connection is None:
            return 0
        counter = ET.fromstring(connection.getCapabilities()).find("host/cpu/counter[@name='tsc']")
        if counter is None:
            return 0
        return int(counter.get("frequency", "0"))

    def network_lock(self) -> contextlib.AbstractContextManager[None]:
        return self.connection.network_lock()

    # the machine in libvirt

    def existing_domain(self, obj: Object) -> Any | None:
        """For a look: the machine's domain as it is."""
        connection = self.connection.existing()
        return libvirt.domain(connection, names.domain(obj.namespace, obj.name)) if connection else None

    def domain(self, obj: Object) -> Any | None:
        """Its domain, over a libvirt that is brought back where it has died."""
        connection = self.connection.ensure()
        return libvirt.domain(connection, names.domain(obj.namespace, obj.name)) if connection else None

    def active(self, obj: Object) -> Any | None:
        """The domain of a machine that runs, else None."""
        dom = self.domain(obj)
        return dom if dom is not None and dom.isActive() else None

    def running(self, obj: Object) -> Any:
        """The domain of a machine that runs, or HK805."""
        if (dom := self.active(obj)) is None:
            raise HikubeError("HK805", f"{obj.name} is not running", fix=f"hikube-local start {obj.name}")
        return dom

    # its files

    def folder(self, obj: Object) -> Path:
        return (self.layout.machine if obj.kind == INSTANCE else self.layout.disk)(obj.namespace, obj.name)

    def make_folder(self, obj: Object) -> Path:
        folder = self.folder(obj)
        files.own_way(folder, self.layout.state)
        return files.make_folder(folder, self.layout.mode)

    def pending(self, obj: Object) -> Path:
        """The note of what is under way with its checkpoints; it is there while something is, or was cut short."""
        return self.folder(obj) / PENDING

    def writable_disks(self, obj: Object) -> dict[str, Path]:
        """Folders of the disks that can be written to and are to stay."""
        out = {}
        for ref in obj.instance.disks:
            disk = self.store.get(Key(DISK, obj.namespace, ref.name))
            if disk and not disk.deletion and not disk.disk.optical:
                out[ref.name] = self.layout.disk(obj.namespace, ref.name)
        return out

    # its identity

    def uuid(self, obj: Object) -> str:
        """By the formula; a seed that is set back to empty keeps the UUID that the machine has."""
        new = names.firmware_uuid(obj.namespace, obj.name, obj.instance.cloudInitSeed)
        kept = self.store.lease(obj.key).uuid
        return kept if kept and not obj.instance.cloudInitSeed else new

    def uuid_of_another(self, obj: Object) -> bool:
        """Whether another machine of the store has this one's UUID: its TPM is not ours to take."""
        mine = {self.uuid(obj), names.firmware_uuid(obj.namespace, obj.name, obj.instance.cloudInitSeed)}
        others = [o for o in self.store.objects(INSTANCE) if o.key != obj.key]
        return any(self.uuid(o) in mine for o in others)

    def bridge(self, obj: Object) -> str:
        """The bridge of the host's that the machine is to sit on: WholeIP, as root, where one was named."""
        asked = self.store.intent(obj.key).bridge
        return asked if self.layout.root and obj.instance.whole_ip else ""

    def sockets(self, obj: Object) -> Path:
        """The folder of its console's and screen's sockets."""
        return self.sandbox.sockets(self.tenants.tap(obj))
