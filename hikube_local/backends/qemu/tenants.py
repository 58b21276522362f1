"""The tenants of a carrier: bridges, taps, leases, names and firewall, brought to what the store says."""

from __future__ import annotations

import hashlib
import os
import pwd
import signal
from collections.abc import Callable
from typing import Any

from hikube_local import files
from hikube_local.api import names
from hikube_local.api.objects import INSTANCE, Object
from hikube_local.backends.qemu import helpers
from hikube_local.backends.qemu.alone import UserNet
from hikube_local.backends.qemu.carrier import Carrier
from hikube_local.backends.qemu.lan import Lan
from hikube_local.host import network
from hikube_local.render import addresses, firewall, tenant
from hikube_local.render.addresses import Range
from hikube_local.render.machine import further
from hikube_local.render.tenant import Nic, Seat, Tenant
from hikube_local.run import clean_environment, find
from hikube_local.store.db import Store, scope

NETWORK = "network"  # the store's own row for the range


class Tenants:
    """Addresses are kept in the store; everything else follows from them and from the objects."""

    def __init__(self, carrier: Carrier, store: Store, bridged: dict[str, str]) -> None:
        """`bridged`: further networks that stand on a bridge of the host's (root)."""
        self.carrier, self.store, self.bridged = carrier, store, bridged
        self.lan = Lan(carrier)
        if isinstance(carrier.out, UserNet):
            carrier.out.domains = self._domains

    # addresses

    def range(self) -> Range:
        kept = self.store.allocation(NETWORK)
        return Range(kept["octet"], kept.get("v6", "")) if kept else Range()

    def _settle(self) -> Range:
        """Before a namespace is made: a range free of every route of the host, the one before if it still is."""
        if not self.carrier.lives():
            octet = addresses.choose_octet(network.routes(), self.store.allocation(NETWORK).get("octet"))
            v6 = addresses.unique_local(self.carrier.layout.id) if network.has_ipv6() else ""
            self.store.note(NETWORK, octet=octet, v6=v6)
        return self.range()

    def number(self, namespace: str) -> int:
        """The namespace's subnet, kept once chosen."""

        def change(own: dict[str, Any], everything: dict[str, dict[str, Any]]) -> dict[str, Any]:
            taken = [v["subnet"] for k, v in everything.items() if k.startswith("tenant/")]
            return own or {"subnet": addresses.choose_subnet(namespace, taken)}

        return self.store.allocate(f"tenant/{namespace}", change)["subnet"]

    def ip(self, obj: Object) -> str | None:
        """The machine's address inside its tenant, if it ever had one."""
        host = self.store.allocation(scope(obj.key)).get("host")
        subnet = self.store.allocation(f"tenant/{obj.namespace}").get("subnet")
        return None if host is None or subnet is None else self.range().address(subnet, host)

    def _give_ip(self, obj: Object) -> None:
        self.number(obj.namespace)
        prefix = f"{INSTANCE}/{obj.namespace}/"

        def change(own: dict[str, Any], everything: dict[str, dict[str, Any]]) -> dict[str, Any]:
            taken = [v["host"] for k, v in everything.items() if k.startswith(prefix) and "host" in v]
            return own if "host" in own else {**own, "host": addresses.choose_host(obj.namespace, obj.name, taken)}

        self.store.allocate(scope(obj.key), change)

    def _domains(self) -> dict[str, str]:
        return {s.ip: names.domain(t.namespace, s.name) for t in self.all() for s in t.seats}

    def tap(self, obj: Object) -> str:
        return names.tap(self.carrier.layout.id, obj.namespace, obj.name)

    # what there is

    def all(self) -> list[Tenant]:
        """Every tenant with its machines, from the store."""
        range = self.range()
        seats: dict[str, list[Seat]] = {}
        allocations = self.store.allocations()
        for obj in self.store.objects(INSTANCE):
            own = allocations.get(scope(obj.key), {})
            if obj.backend != "qemu" or "host" not in own:
                continue
            spec = obj.instance
            seat = Seat(
                name=obj.name,
                ip=range.address(allocations[f"tenant/{obj.namespace}"]["subnet"], own["host"]),
                mac=names.mac(obj.namespace, obj.name),
                tap=self.tap(obj),
                ports=tuple(spec.ports),
                whole=spec.whole_ip,
                icmp=spec.whole_ip or (spec.external and spec.externalAllowICMP),
                lan=own.get("lan", ""),
                lan_ip=own.get("lan_ip", ""),
                further=tuple(
                    Nic(n, mac, tap, self.bridged.get(n, ""))
                    for n, (mac, tap) in zip(spec.further_networks, further(obj, self.carrier.layout.id), strict=True)
                ),
            )
            seats.setdefault(obj.namespace, []).append(seat)
        return [Tenant(ns, allocations[f"tenant/{ns}"]["subnet"], tuple(s), range) for ns, s in sorted(seats.items())]

    def _made(self) -> set[str]:
        """Taps of this namespace; one that went with another namespace is none."""
        here = self.carrier.id()
        return {t for t, n in (files.read_json(self.carrier.net / "taps.json") or {}).items() if n == here}

    def _keep_made(self, taps: set[str]) -> None:
        files.write_json(self.carrier.net / "taps.json", dict.fromkeys(sorted(taps), self.carrier.id()))

    def _standing(self, tenants: list[Tenant]) -> list[Tenant]:
        """The tenants that have a bridge: those with a tap."""
        made = self._made()
        return [t for t in tenants if any(s.tap in made for s in t.seats)]

    def is_up(self, obj: Object) -> bool:
        """Whether the machine's tenant has its bridge, its dnsmasq, its rules and its tap."""
        bridge = names.bridge(obj.namespace)
        if self.carrier.alone:
            return self.carrier.holder() is not None and self.ip(obj) is not None
        if self.carrier.holder() is None or not helpers.pid_of(self.carrier.run / f"dnsmasq-{bridge}.lock"):
            return False
        if not self.carrier.out.runs() or not self.carrier.daemon.pid():
            return False
        taps = {self.tap(obj), *(tap for _, tap in further(obj, self.carrier.layout.id))}
        if not taps <= self._made():
            return False
        return files.read_json(self._applied) == self._mark(self._standing(self.all()))

    # bringing it there

    def ensure(self, obj: Object) -> None:
        """Bring up the machine's tenant: bridge, tap, leases, names, firewall. Under the network lock."""
        carrier = self.carrier
        self._give_ip(obj)
        pid = carrier.ensure(self._settle())
        if carrier.alone:
            return
        tenants = self.all()
        mine = next(t for t in tenants if t.namespace == obj.namespace)
        seat = next(s for s in mine.seats if s.name == obj.name)
        user = pwd.getpwuid(os.geteuid()).pw_name if not carrier.root else str(carrier.qemu_ids[0])
        master = self.lan.ensure(pid, seat.lan) if seat.lan else mine.bridge
        v6 = mine.range.v6
        carrier.batch(
            pid,
            [
                _bridge(mine.bridge),
                {"run": ["ip", "link", "set", mine.bridge, "mtu", "1500"]},
                {"run": ["ip", "addr", "replace", f"{mine.gateway}/24", "dev", mine.bridge]},
                *([_gateway6(mine)] if v6 else []),
                {"run": ["ip", "link", "set", mine.bridge, "up"]},
                *_tap(seat.tap, user, master),
                *(op for nic in seat.further for op in self._further(pid, mine, nic, user)),
            ],
        )
        self._keep_made(self._made() | seat.taps)
        self.refresh(pid)

    def _further(self, pid: int, t: Tenant, nic: Nic, user: str) -> list[dict[str, Any]]:
        """A further NIC: on an isolated bridge of the tenant's, without address or DHCP, or on one of the host's."""
        if nic.lan:
            return _tap(nic.tap, user, self.lan.ensure(pid, nic.lan))
        bridge = names.isolated(t.namespace, nic.network)
        quiet = {"write": f"/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6", "text": "1", "may_fail": True}
        up = {"run": ["ip", "link", "set", bridge, "up"]}
        return [_bridge(bridge), quiet, up, *_tap(nic.tap, user, bridge)]

    def refresh(self, pid: int) -> None:
        """Names, leases and firewall as the store has them; dnsmasq reads its files again."""
        if self.carrier.alone:
            return
        net = self.carrier.net
        tenants = self._standing(self.all())
        changed = False
        for name, text in _name_files(tenants).items():
            if not (net / name).exists() or (net / name).read_text() != text:
                files.write(net / name, text, 0o644)
                changed = True
        mark = self._mark(tenants)
        if files.read_json(self._applied) != mark:
            text = firewall.ruleset(tenants, self.range())
            self.carrier.batch(pid, [{"run": ["nft", "-f", "-"], "input": text}])
            files.write_json(self._applied, mark)
        for t in tenants:
            self._dnsmasq(pid, t, changed)

    def _dnsmasq(self, pid: int, t: Tenant, changed: bool) -> None:
        net = self.carrier.net
        conf = net / f"{t.bridge}.conf"
        files.write(conf, tenant.dnsmasq_conf(t, str(net)), 0o644)
        # In the foreground and without closing standard input, which carries its lock.
        words = [find("dnsmasq"), "--no-daemon", f"--conf-file={conf}"]
        words += [f"--user={pwd.getpwuid(os.geteuid()).pw_name}"]
        argv = self.carrier.enter_words(pid, "exec", *words)
        lock = self.carrier.run / f"dnsmasq-{t.bridge}.lock"
        log = self.carrier.log(f"dnsmasq-{t.bridge}")
        dns, fresh = helpers.ensure(lock, argv, log, clean_environment(), check=_is("dnsmasq"))
        if changed and not fresh:
            os.kill(dns, signal.SIGHUP)

    @property
    def _applied(self) -> Any:
        return self.carrier.net / "applied.json"

    def _mark(self, tenants: list[Tenant]) -> dict[str, str | None]:
        """What names these rules and names in this namespace."""
        text = firewall.ruleset(tenants, self.range()) + "".join(_name_files(tenants).values())
        return {"net": self.carrier.id(), "text": hashlib.sha256(text.encode()).hexdigest()}

    def drop(self, obj: Object) -> None:
        """The machine is gone: its tap, and what nobody else needs."""
        pid = self.carrier.holder()
        if pid is None or self.carrier.alone:
            return
        bridge = names.bridge(obj.namespace)
        seats = [s for t in self.all() for s in t.seats if t.namespace == obj.namespace]
        mine = next((s for s in seats if s.name == obj.name), None)
        if mine is None:
            return
        self.carrier.batch(pid, [{"run": ["ip", "link", "del", tap], "may_fail": True} for tap in sorted(mine.taps)])
        made = self._made() - mine.taps
        self._keep_made(made)
        others = [s for t in self.all() for s in t.seats if s.tap in made]
        for lan in sorted(mine.lans - {b for s in others for b in s.lans}):
            self.lan.drop(pid, lan)
        left = {n.network for s in seats if s.tap in made for n in s.further}
        for nic in mine.further:
            if not nic.lan and nic.network not in left:
                gone = ["ip", "link", "del", names.isolated(obj.namespace, nic.network)]
                self.carrier.batch(pid, [{"run": gone, "may_fail": True}])
        if not any(t.namespace == obj.namespace for t in self._standing(self.all())):
            helpers.end(self.carrier.run / f"dnsmasq-{bridge}.lock")
            self.carrier.batch(pid, [{"run": ["ip", "link", "del", bridge], "may_fail": True}])


def _bridge(name: str) -> dict[str, Any]:
    words = ["ip", "link", "add", name, "type", "bridge", "stp_state", "0", "forward_delay", "0"]
    return {"run": words, "may_fail": True}


def _tap(name: str, user: str, master: str) -> list[dict[str, Any]]:
    return [
        {"run": ["ip", "tuntap", "add", name, "mode", "tap", "user", user, "vnet_hdr"], "may_fail": True},
        {"run": ["ip", "link", "set", name, "master", master, "up"]},
    ]


def _gateway6(t: Tenant) -> dict[str, Any]:
    return {"run": ["ip", "-6", "addr", "replace", f"{t.range.gateway6(t.number)}/64", "dev", t.bridge, "nodad"]}


def _name_files(tenants: list[Tenant]) -> dict[str, str]:
    out = {"all.hosts": tenant.all_hosts(tenants)}
    for t in tenants:
        out[f"{t.bridge}.dhcp"] = tenant.dhcp_hosts(t)
        out[f"{t.bridge}.hosts"] = tenant.own_hosts(t)
    return out


def _is(name: str) -> Callable[[int], bool]:
    """Whether the process became this program (it was started through another one)."""

    def check(pid: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/exe").endswith("/" + name)
        except OSError:
            return False

    return check
