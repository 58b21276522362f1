"""What is looked up in a running guest when it is refreshed, since no process of ours stays to watch.

WholeIP: the ports on which it listens, or its address on the host's bridge. After the host slept: its clock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import Any

from hikube_local import locks
from hikube_local.api.objects import Object
from hikube_local.backends.qemu import libvirt
from hikube_local.backends.qemu.agent import Agent
from hikube_local.backends.qemu.context import Context
from hikube_local.backends.qemu.machine import definition
from hikube_local.backends.qemu.network import listening
from hikube_local.backends.qemu.network.lan import believable
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType, ignore
from hikube_local.host.facts import asleep
from hikube_local.store.records import GuestCache
from hikube_local.text import sanitize

ROOM = 64 << 20  # bytes that must be free before a guest that ran out of space goes on
AGENT_PATIENCE = 5  # seconds
AGENT_BACK = 10  # seconds until an agent is connected after its guest was resumed
# New randomness from its standard input; Linux takes it up at once when it is told to (random(4): RNDRESEEDCRNG).
RESEED = (
    "cat >/dev/urandom; python3 -ISc 'import fcntl, os; fcntl.ioctl(os.open(\"/dev/urandom\", os.O_WRONLY), 0x5207)' "
    "</dev/null >/dev/null 2>&1 & "
)
AGAIN_AGENT, AGAIN_SCAN = 2.0, 60.0  # seconds between two looks at the same machine, by what answered the last time


def look(context: Context, obj: Object, dom: Any, emit: Emit = ignore, soon: bool = False) -> None:
    """Bring the ways in of a running WholeIP machine to what its guest does now; `soon`: do not wait for the next look."""
    if libvirt.stopped_by_disk(dom):
        _space(context, obj, dom, emit)
        return
    agent = Agent(dom)
    _clock(context, obj, agent, emit)
    if not obj.instance.whole_ip:
        return
    # Somebody else at work on the network brings it along, or the next look does.
    if not soon and locks.holder(context.layout.locks / "network") is not None:
        return
    _, lease, guest = context.store.records(obj.key)
    if lease.lan:
        _address(context, obj, lease.lan, guest.lan_ip, agent)
        return
    came = not guest.agent_seen and agent.connected()  # an agent that was not there the last time
    if soon or came or time.time() - guest.looked >= guest.again:
        _ports(context, obj, agent, guest)
    want = context.forwards.allocate(obj)
    if (ip := context.tenants.ip(obj)) and want != context.forwards.observed(ip):
        definition.open_ports(context, obj, want)


def _space(context: Context, obj: Object, dom: Any, emit: Emit) -> None:
    """A guest whose disk ran out of space was paused, not corrupted: it goes on when there is space again."""
    if shutil.disk_usage(context.layout.state).free < ROOM:
        return
    lv = libvirt.module()
    with contextlib.suppress(lv.libvirtError):
        dom.resume()
        what = "disk space is available again: the guest, which was paused on a failed disk write, is resumed"
        emit(Event(EventType.STEP, what, obj.ref, obj.namespace))


def _ports(context: Context, obj: Object, agent: Agent, guest: GuestCache) -> None:
    """Note on which ports the guest listens now."""
    seen_now, again = agent.connected(), AGAIN_AGENT
    found = listening.by_agent(agent) if seen_now else None
    if found is None and guest.answered:
        found = guest.listening  # an agent that answered before is busy, not gone
    answered = found is not None
    if found is None:
        # One that does not even answer a ping is busy, as at the end of a boot: it is asked again soon.
        busy = seen_now and agent.call("guest-ping") is None
        again = AGAIN_AGENT if busy else AGAIN_SCAN
        pid, ip = context.sandbox.holder(), context.tenants.ip(obj)
        if pid is None or ip is None:
            return
        found = listening.by_scan(context.sandbox, pid, ip)
    context.store.keep(
        obj.key, listening=found, looked=time.time(), again=again, agent_seen=seen_now, answered=answered
    )


def _address(context: Context, obj: Object, lan: str, known: str, agent: Agent) -> None:
    """Its address on the host's bridge: what was seen on its wire, else what its agent says, if nobody else has it."""
    pid = context.sandbox.holder()
    if pid is None:
        return
    mac = context.tenants.mac(obj)
    seen = context.tenants.lan.seen(pid, lan, mac) + _said(agent, mac)
    mine = (obj.namespace, obj.name)
    endpoints = [s for t in context.tenants.all() for s in t.endpoints if (t.namespace, s.name) != mine]
    taken = context.tenants.lan.taken(lan, mac)
    ip = believable(seen, [*(a for s in endpoints for a in (s.ip, s.lan_ip) if a), *taken])
    if not ip and known in taken:
        context.store.keep(obj.key, lan_ip=None)  # believed before somebody else was seen to have it
    if ip and ip != known:
        context.store.keep(obj.key, lan_ip=ip)
    if not context.tenants.is_up(obj):
        with context.network_lock():
            if (pid := context.sandbox.holder()) is not None:
                context.tenants.refresh(pid)


def _said(agent: Agent, mac: str) -> list[str]:
    """What the agent says about the NIC with this MAC."""
    if not agent.connected():
        return []
    found = []
    rows = agent.call("guest-network-get-interfaces")
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and str(row.get("hardware-address", "")).lower() == mac:
            addresses = row.get("ip-addresses")
            for a in addresses if isinstance(addresses, list) else []:
                if isinstance(a, dict) and a.get("ip-address-type") == "ipv4":
                    found.append(str(a.get("ip-address", "")))
    return found


def _clock(context: Context, obj: Object, agent: Agent, emit: Emit) -> None:
    """A guest slept through the host's sleep without knowing: its clock is set to the host's.

    Whether that works is the guest's matter: nothing of ours depends on it.
    """
    slept = asleep()
    kept = context.store.guest(obj.key).asleep
    if slept - (slept if kept is None else kept) < 1.0 or not agent.connected():
        return
    context.store.keep(obj.key, asleep=slept)
    if why := _set_clock(agent):
        what = f"this host slept, and the guest's clock could not be set: {why}"
        emit(Event(EventType.WARNING, what, obj.ref, obj.namespace))


def _set_clock(agent: Agent, first: str = "", input: bytes = b"") -> str:
    """Set the guest's clock to the host's, after `first`; why it could not be, or an empty string.

    The agent's own command (guest-set-time) runs hwclock, which waits for the next second of the RTC: only where
    commands are forbidden.
    """
    with contextlib.suppress(HikubeError):
        now = time.time()
        line = f"{first}date -u -s @{now:.3f} || date -u -s @{now:.0f}"
        if agent.run(line, AGENT_PATIENCE, input)[0] == 0:
            return ""
    return _by_agent(agent)


def _by_agent(agent: Agent) -> str:
    """By the agent's own command; why it could not be, or an empty string."""
    lv = libvirt.module()
    try:
        agent.dom.agentSetResponseTimeout(AGENT_PATIENCE, 0)
        agent.dom.setTime(None, lv.VIR_DOMAIN_TIME_SYNC)
    except lv.libvirtError as e:
        return sanitize(str(e))[:160]
    return ""


def _back(context: Context, agent: Agent) -> None:
    """Wait until the agent of a guest that was resumed is connected anew: its channel is another one. Not for ever: a guest
    that hangs is somebody else's to tell."""
    deadline = time.monotonic() + AGENT_BACK * context.facts.patience
    while not agent.connected() and time.monotonic() < deadline:
        time.sleep(0.1)


def woken(context: Context, obj: Object, gap: float, had_agent: bool, emit: Emit) -> None:
    """After a way back to a checkpoint: the guest's clock stands where it was, and connections from before are gone.
    `had_agent`: its agent was connected when the checkpoint was taken."""
    dom = context.running(obj)
    agent = Agent(dom, context.facts.effort)
    if had_agent:
        _back(context, agent)
    seeded = agent.may_run()
    why = _set_clock(agent, RESEED, os.urandom(64)) if seeded else _by_agent(agent)
    if why:
        what = f"the guest's clock is {gap:.0f} s behind and could not be set ({why}); in the guest: hwclock -s -u"
        emit(Event(EventType.WARNING, what, obj.ref, obj.namespace))
    what = "connections from before the checkpoint are lost; certificates and tokens are as old as the checkpoint"
    if not seeded:
        what += "; its kernel got no new seed, so random numbers may repeat those of an earlier restore"
    emit(Event(EventType.HINT, what, obj.ref, obj.namespace))
    look(context, obj, dom, emit, soon=True)
