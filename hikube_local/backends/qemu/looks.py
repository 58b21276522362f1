"""What is looked up in a running guest whenever a command looks at it, since no process of ours stays to watch.

WholeIP: the ports on which it listens, or its address on the host's bridge. After the host slept: its clock.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from hikube_local import locks
from hikube_local.api import names
from hikube_local.api.objects import Object
from hikube_local.backends.qemu import libvirt, listening, starts
from hikube_local.backends.qemu.lan import believable
from hikube_local.errors import HikubeError
from hikube_local.host.facts import asleep
from hikube_local.plan.steps import Forward
from hikube_local.store.db import scope

if TYPE_CHECKING:
    from hikube_local.backends.qemu.world import Qemu

AGAIN_AGENT, AGAIN_SCAN = 2.0, 60.0  # seconds between two looks at the same machine


def look(world: Qemu, obj: Object, dom: Any, soon: bool = False) -> None:
    """Bring the ways in of a running WholeIP machine to what its guest does now; `soon`: do not wait for the next look."""
    agent = libvirt.Agent(dom)
    _clock(world, obj, dom, agent)
    if not obj.instance.whole_ip:
        return
    own = world.store.allocation(scope(obj.key))
    if own.get("lan"):
        _address(world, obj, dom, own, agent)
        return
    connected = agent.connected()
    if not soon and time.time() - own.get("looked", 0) < (AGAIN_AGENT if connected else AGAIN_SCAN):
        return
    found = listening.by_agent(agent) if connected else None
    if found is None:
        pid, ip = world.carrier.holder(), world.tenants.ip(obj)
        if pid is None or ip is None:
            return
        found = listening.by_scan(world.carrier, pid, ip)
    world.store.note(scope(obj.key), listening=found, looked=time.time())
    if found != own.get("listening") and locks.holder(world.layout.locks / "network") is None:
        apply(world, obj, world.ways.wanted(obj, True, lambda text: None))


def apply(world: Qemu, obj: Object, want: frozenset[Forward]) -> None:
    """Open and close the machine's forwards, and bring the firewall along."""
    with world.network_lock():
        pid = world.carrier.holder()
        if pid is not None and (ip := world.tenants.ip(obj)):
            world.ways.set(ip, want)
            world.tenants.refresh(pid)


def _address(world: Qemu, obj: Object, dom: Any, own: dict[str, Any], agent: libvirt.Agent) -> None:
    """Its address on the host's bridge: what was seen on its wire, else what its agent says, if nobody else has it."""
    pid = world.carrier.holder()
    if pid is None:
        return
    mac = names.mac(obj.namespace, obj.name)
    seen = world.tenants.lan.seen(pid, own["lan"], mac) + _said(agent, mac)
    others = [
        a
        for t in world.tenants.all()
        for s in t.seats
        if s.name != obj.name or t.namespace != obj.namespace
        for a in (s.ip, s.lan_ip)
        if a
    ]
    ip = believable(seen, others)
    if ip and ip != own.get("lan_ip"):
        world.store.note(scope(obj.key), lan_ip=ip)
        if locks.holder(world.layout.locks / "network") is None:
            with world.network_lock():
                if (pid := world.carrier.holder()) is not None:
                    world.tenants.refresh(pid)


def _said(agent: libvirt.Agent, mac: str) -> list[str]:
    """What the agent says about the NIC with this MAC."""
    if not agent.connected():
        return []
    found = []
    rows = agent.call("guest-network-get-interfaces")
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and str(row.get("hardware-address", "")).lower() == mac:
            for a in row.get("ip-addresses") or []:
                if isinstance(a, dict) and a.get("ip-address-type") == "ipv4":
                    found.append(str(a.get("ip-address", "")))
    return found


def _clock(world: Qemu, obj: Object, dom: Any, agent: libvirt.Agent) -> None:
    """A guest slept through the host's sleep without knowing: its clock is set from its RTC, which went on."""
    rows = starts.all(world.folder(obj))
    slept = asleep()
    known = world.store.allocation(scope(obj.key)).get("asleep", rows[-1].get("asleep", slept) if rows else slept)
    if slept - known < 1.0 or not agent.connected():
        return
    lv = libvirt.module()
    try:
        dom.setTime(None, lv.VIR_DOMAIN_TIME_SYNC)
    except lv.libvirtError as e:
        raise HikubeError("HK801", f"the clock of {obj.name} could not be set", str(e)[:200]) from None
    world.store.note(scope(obj.key), asleep=slept)
