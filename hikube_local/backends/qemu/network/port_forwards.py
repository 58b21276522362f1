"""The ways in from the host's loopback: an address of each machine's own, ports tried before they are kept."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hikube_local.api.objects import Object
from hikube_local.backends.qemu.network.namespace import Egress
from hikube_local.errors import HikubeError
from hikube_local.plan.steps import Forward
from hikube_local.render.addresses import assign_ports, loopback_candidates, split_port
from hikube_local.render.firewall import Arrow
from hikube_local.run import run
from hikube_local.store.db import Store
from hikube_local.store.records import GuestCache, Lease
from hikube_local.text import sanitize

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class PortForwards:
    """What stands at 127.77.x.y; chosen once, kept in the store."""

    def __init__(self, egress: Egress, store: Store, root_id: str) -> None:
        self.egress, self.store, self.root_id = egress, store, root_id

    def wanted(self, obj: Object) -> frozenset[Forward]:
        """The ways in that the machine should have, on the host ports that were chosen for it or would be."""
        return self._forwards(obj, *self._choose(obj)[1:])

    def allocate(self, obj: Object, say: Callable[[str], None] = lambda text: None) -> frozenset[Forward]:
        """The same, and the choice is kept; what has to stand elsewhere than asked for is said."""
        kept, address, chosen = self._choose(obj)
        if chosen and kept != {"address": address, "ports": chosen}:
            self.store.keep(obj.key, forwards={"address": address, "ports": chosen})
            for key, host_port in chosen.items():
                protocol, port = split_port(key)
                if port != host_port and kept.get("ports", {}).get(key) != host_port:
                    say(f"port {key} is published at {address}:{host_port}: {why_not(address, port, protocol)}")
        return self._forwards(obj, address, chosen)

    def _choose(self, obj: Object) -> tuple[dict[str, Any], str, dict[str, int]]:
        """(what is kept, the address, the host port of each port)."""
        _, lease, guest = self.store.records(obj.key)
        ports = declared(obj, lease, guest)
        if not ports:
            return {}, "", {}
        kept = lease.forwards or {}
        address = kept.get("address") or self._free_address(obj, ports)
        try:
            live = {(f["proto"], f["host_addr"], f["host_port"]) for f in self.egress.forwards()}
        except HikubeError:
            # What cannot be asked is taken to stand: no port moves for it, and a machine can be stopped.
            live = {(split_port(key)[0], address, host) for key, host in kept.get("ports", {}).items()}

        def usable(protocol: str, port: int) -> bool:
            return (protocol, address, port) in live or bindable(address, port, protocol) is None

        # One that had to move comes home when its number is free again and nobody uses the other one now.
        stay = {
            key: host
            for key, host in kept.get("ports", {}).items()
            if host == split_port(key)[1] or (split_port(key)[0], address, host) in live
        }
        return kept, address, assign_ports(ports, stay, usable)

    def _forwards(self, obj: Object, address: str, chosen: dict[str, int]) -> frozenset[Forward]:
        ports = declared(obj, *self.store.records(obj.key)[1:])
        if missing := [p for p in ports if p not in chosen]:
            raise HikubeError("HK803", f"no host port is free for port {missing[0]}")
        return frozenset(Forward(n, address, h, p) for (p, n), h in ((split_port(k), h) for k, h in chosen.items()))

    def _free_address(self, obj: Object, ports: Iterable[str]) -> str:
        taken = {v["forwards"]["address"] for v in self.store.allocations().values() if "forwards" in v}
        pairs = [split_port(p) for p in ports]
        wildcard = {(p, n) for p, n in pairs if bindable("127.77.255.253", n, p) == errno.EADDRINUSE}
        for address in loopback_candidates(self.root_id, obj.namespace, obj.name):
            free = all(bindable(address, n, p) != errno.EADDRINUSE for p, n in pairs if (p, n) not in wildcard)
            if address not in taken and free:
                return address
        raise HikubeError("HK803", "no loopback address of 127.77.0.0/16 is free")

    def observed(self, ip: str) -> frozenset[Forward]:
        """The machine's ways in as they are; none when nobody can say."""
        with contextlib.suppress(HikubeError):
            return frozenset(_forward(f) for f in self.egress.forwards() if f["guest_addr"] == ip)
        return frozenset()

    def set(self, ip: str, wanted: frozenset[Forward]) -> None:
        """Open what is missing and close what is too much, on the running machine."""
        there: set[Forward] = set()
        for f in self.egress.forwards():
            if f["guest_addr"] != ip:
                continue
            if _forward(f) in wanted:
                there.add(_forward(f))
            else:
                self.egress.remove(f["id"])
        for w in sorted(wanted - there, key=lambda f: (f.port, f.protocol)):
            self.egress.add(w, ip)


def declared(obj: Object, lease: Lease, guest: GuestCache) -> list[str]:
    """The ports that are to be forwarded: the listed ones, or with WholeIP those on which the guest was seen to listen."""
    if lease.lan:
        return []  # it has an address of its own on the host's bridge
    return list(guest.listening or []) if obj.instance.whole_ip else [str(p) for p in obj.instance.ports]


def moved(lease: Lease) -> list[str]:
    """In words, the ports that stand elsewhere than at their own number."""
    kept = lease.forwards or {}
    rows = ((key, host) for key, host in kept.get("ports", {}).items() if split_port(key)[1] != host)
    return [f"port {key} is published at {kept['address']}:{host}" for key, host in rows]


def _forward(f: dict[str, Any]) -> Forward:
    return Forward(f["guest_port"], f["host_addr"], f["host_port"], f["proto"])


def arrows(live: Iterable[dict[str, Any]], machines: Mapping[str, str]) -> list[Arrow]:
    """The ways in that stand, as arrows from the host to machines by their addresses."""
    out = []
    for f in live:
        if target := machines.get(f["guest_addr"]):
            kind, at, port = f["proto"].upper(), f"{f['host_addr']}:{f['host_port']}", f["guest_port"]
            out.append(Arrow("host", target, f"{kind} {port}", f"forward {at} to {f['guest_addr']}:{port}"))
    return sorted(out, key=lambda a: (a.target, a.what))


def bindable(address: str, port: int, protocol: str = "tcp") -> int | None:
    """None when the port can be bound at this address, else the errno that says why not."""
    with socket.socket(type=_KINDS[protocol]) as s:
        if protocol == "tcp":
            # As slirp4netns binds it: connections that ended a moment ago (TIME_WAIT) hold nothing, a listener does.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((address, port))
        except OSError as e:
            return e.errno
    return None


def _by(listeners: str) -> str:
    """The program in the answer of `ss -p`, where this user may see it."""
    found = re.search(r'\(\("([^"]{1,60})",pid=(\d+)', listeners)
    return f" by {sanitize(found[1])} (pid {found[2]})" if found else ""


def why_not(address: str, port: int, protocol: str = "tcp") -> str:
    """Why a port cannot be had, with the one who holds it or the setting that would allow it."""
    reason = bindable(address, port, protocol)
    if reason == errno.EACCES:
        return "this user may not bind it (sudo sysctl net.ipv4.ip_unprivileged_port_start=0 would allow it)"
    if reason == errno.EADDRINUSE:
        kind = "t" if protocol == "tcp" else "u"
        done = run(["ss", "-H", f"-l{kind}np", f"sport = :{port}"], check=False, timeout=10)
        return f"it is in use on this host{_by(done.stdout.decode('utf-8', 'replace'))}"
    return "it was in use when the host port was chosen"
