"""The tenants of a sandbox: bridges, taps, leases, names and firewall, brought to what the store says."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hikube_local import files
from hikube_local.api import names
from hikube_local.api.objects import INSTANCE, Object
from hikube_local.backends.qemu import NAME
from hikube_local.backends.qemu.network import helpers, port_forwards
from hikube_local.backends.qemu.network.lan import Lan
from hikube_local.backends.qemu.network.namespace import add_bridge
from hikube_local.backends.qemu.network.sandbox import Sandbox
from hikube_local.errors import HikubeError
from hikube_local.host import network, qemu_ids
from hikube_local.render import addresses, firewall, tenant
from hikube_local.render.addresses import Range
from hikube_local.render.tenant import Endpoint, Nic, Tenant
from hikube_local.run import clean_environment, find
from hikube_local.store.db import Row, Rows, Store, scope

NOBODY = 65534
# What DHCP on a bridge needs; dnsmasq reads what guests send, so it has no more than that.
_CAPABILITIES = [
    f"--{kind}-caps={caps}" for kind in ("inh", "ambient") for caps in ("+net_admin,+net_raw,+net_bind_service",)
]
NETWORK = "network"  # the store's own row for the range
_GONE = "7377"  # the group of devices that are taken away
_NUMBERED = ("tenant/", "isolated/")  # its rows that have a subnet


class Tenants:
    """Addresses are kept in the store; everything else follows from them and from the objects."""

    def __init__(self, sandbox: Sandbox, store: Store, bridged: Mapping[str, str], link_local: bool = False) -> None:
        """`bridged`: further networks that stand on a bridge of the host's (root). `link_local`: guests reach the host's
        link-local networks."""
        self.sandbox, self.store, self.bridged, self.link_local = sandbox, store, bridged, link_local
        self.lan = Lan(sandbox)
        self._gone: set[str] = set()  # devices of machines that went, until they are taken away
        sandbox.domains = self._domains

    # addresses

    def range(self) -> Range:
        kept = self.store.allocation(NETWORK)
        return Range(kept["octet"], kept.get("v6", "")) if kept else Range()

    def _settle(self) -> Range:
        """Before a namespace is made: a range free of every route of the host, the one before if it still is."""
        if not self.sandbox.lives():
            octet = _chosen(addresses.choose_octet, network.routes(), self.store.allocation(NETWORK).get("octet"))
            v6 = addresses.unique_local(self.sandbox.layout.id) if network.has_ipv6() else ""
            self.store.note(NETWORK, octet=octet, v6=v6)
        return self.range()

    def number(self, namespace: str, further: str = "") -> int:
        """The subnet of a namespace, or of an isolated network of it; kept once chosen."""
        row = _isolated(namespace, further) if further else f"tenant/{namespace}"
        of = f"{namespace}/{further}" if further else namespace

        def change(own: Row, everything: Callable[[], Rows]) -> Row:
            if own:
                return own
            taken = [v["subnet"] for k, v in everything().items() if k.startswith(_NUMBERED) and "subnet" in v]
            return {"subnet": _chosen(addresses.choose_subnet, of, taken)}

        return int(self.store.allocate(row, change)["subnet"])

    def ip(self, obj: Object) -> str | None:
        """The machine's address inside its tenant, if it ever had one."""
        host = self.store.lease(obj.key).host
        subnet = self.store.allocation(f"tenant/{obj.namespace}").get("subnet")
        return None if host is None or subnet is None else self.range().address(subnet, host)

    def _give_ip(self, obj: Object) -> None:
        self.number(obj.namespace)
        for n in obj.instance.further_networks:
            if n not in self.bridged:
                self.number(obj.namespace, n)
        prefix = f"{INSTANCE}/{obj.namespace}/"

        def change(own: Row, everything: Callable[[], Rows]) -> Row:
            if "host" in own:
                return own
            taken = [v["host"] for k, v in everything().items() if k.startswith(prefix) and "host" in v]
            return {**own, "host": _chosen(addresses.choose_host, obj.namespace, obj.name, taken)}

        self.store.allocate(scope(obj.key), change)

    def free(self, namespace: str) -> None:
        """What no machine of the namespace names any more, its own subnet and those of its networks, may be another's."""
        machines = [o for o in self.store.objects(INSTANCE) if o.namespace == namespace]
        used = {_isolated(namespace, n) for o in machines for n in o.instance.further_networks}
        used |= {f"tenant/{namespace}"} if machines else set()
        for row, value in self.store.allocations().items():
            own = row == f"tenant/{namespace}" or row.startswith(_isolated(namespace, ""))
            if own and row not in used and "subnet" in value:
                self.store.note(row, subnet=None)

    def mac(self, obj: Object, lan: str | None = None, further: str = "") -> str:
        """The MAC of a machine's NIC. On a LAN two hosts with the same manifest must not have the same one."""
        lan = self.store.lease(obj.key).lan if lan is None else lan
        host = f"{network.machine_id()}:{self.sandbox.layout.id}" if lan else ""
        return names.mac(obj.namespace, obj.name, further, host)

    def further(self, obj: Object, allocations: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[Nic, ...]:
        """The NICs beside the tenant's own, in the manifest's order."""
        rows: list[Nic] = []
        if obj.instance.further_networks and allocations is None:
            allocations = self.store.allocations()
        for n in obj.instance.further_networks:
            assert allocations is not None
            lan = self.bridged.get(n, "")
            tap = names.tap(self.sandbox.layout.id, obj.namespace, obj.name, n)
            number = 0 if lan else allocations.get(_isolated(obj.namespace, n), {}).get("subnet", 0)
            host = allocations.get(scope(obj.key), {}).get("host")
            ip = self.range().address(number, host) if number and host else ""
            rows.append(Nic(n, self.mac(obj, lan, n), tap, lan, number, ip))
        return tuple(rows)

    def _domains(self) -> dict[str, str]:
        return {s.ip: names.domain(t.namespace, s.name) for t in self.all() for s in t.endpoints}

    def tap(self, obj: Object) -> str:
        return names.tap(self.sandbox.layout.id, obj.namespace, obj.name)

    # what there is

    def all(self) -> list[Tenant]:
        """Every tenant with its machines, from the store."""
        range = self.range()
        endpoints: dict[str, list[Endpoint]] = {}
        allocations = self.store.allocations()
        for obj in self.store.objects(INSTANCE):
            own = allocations.get(scope(obj.key), {})
            if obj.backend != NAME or "host" not in own:
                continue
            spec = obj.instance
            endpoint = Endpoint(
                name=obj.name,
                ip=range.address(allocations[f"tenant/{obj.namespace}"]["subnet"], own["host"]),
                mac=self.mac(obj, own.get("lan", "")),
                tap=self.tap(obj),
                ports=tuple(spec.ports),
                whole=spec.whole_ip,
                icmp=spec.whole_ip or (spec.external and spec.externalAllowICMP),
                lan=own.get("lan", ""),
                lan_ip=own.get("lan_ip", ""),
                further=self.further(obj, allocations),
            )
            endpoints.setdefault(obj.namespace, []).append(endpoint)
        return [
            Tenant(ns, allocations[f"tenant/{ns}"]["subnet"], tuple(s), range) for ns, s in sorted(endpoints.items())
        ]

    def _made(self) -> dict[str, str]:
        """Taps of this namespace, each with the bridge that it is a port of."""
        row = files.read_json(self.sandbox.net / "taps.json") or {}
        return row.get("taps", {}) if row.get("net") == self.sandbox.id() else {}

    def _keep_made(self, taps: dict[str, str]) -> None:
        files.write_json(self.sandbox.net / "taps.json", {"net": self.sandbox.id(), "taps": taps})

    def _masters(self, t: Tenant, endpoint: Endpoint) -> dict[str, str]:
        """Each tap of a machine, and the bridge inside that it should be a port of."""
        masters = {endpoint.tap: self.lan.inside(endpoint.lan) if endpoint.lan else t.bridge}
        for nic in endpoint.further:
            masters[nic.tap] = self.lan.inside(nic.lan) if nic.lan else names.isolated(t.namespace, nic.network)
        return masters

    def _standing(self, tenants: list[Tenant]) -> list[Tenant]:
        """The tenants that have a bridge: those with a tap."""
        made = self._made()
        return [t for t in tenants if any(s.tap in made for s in t.endpoints)]

    def reach(self) -> dict[str, Any]:
        """Who reaches whom now: the rules in force are those of tenants that have a bridge."""
        if not self.sandbox.has_tenant_network or not self.sandbox.lives():
            return {"tenants": [], "arrows": [], "inForce": False}
        tenants = self._standing(self.all())
        rows = [
            {
                "namespace": t.namespace,
                "bridge": t.bridge,
                "gateway": t.gateway,
                "machines": [{"name": s.name, "address": s.named_ip, "bridge": s.lan or t.bridge} for s in t.endpoints],
            }
            for t in tenants
        ]
        ours = {s.ip: f"machine/{t.namespace}/{s.name}" for t in tenants for s in t.endpoints}
        arrows = firewall.reach(tenants) + port_forwards.arrows(self.sandbox.egress.forwards(), ours)
        in_force = files.read_json(self._applied) == self._mark(tenants)
        return {"tenants": rows, "arrows": [dataclasses.asdict(a) for a in arrows], "inForce": in_force}

    def is_up(self, obj: Object) -> bool:
        """Whether the machine's tenant has its bridge, its dnsmasq, its rules and its tap."""
        bridge = names.bridge(obj.namespace)
        if not self.sandbox.has_tenant_network:
            return self.sandbox.holder() is not None and self.ip(obj) is not None
        if self.sandbox.holder() is None or not helpers.pid_of(self._lock(bridge)):
            return False
        if not self.sandbox.egress.runs() or not self.sandbox.daemon.pid():
            return False
        tenants, made = self.all(), self._made()
        pair = next(((t, s) for t in tenants for s in t.endpoints if s.tap == self.tap(obj)), None)
        if pair is None or any(made.get(tap) != master for tap, master in self._masters(*pair).items()):
            return False
        isolated = [n for n in pair[1].further if not n.lan]
        if not all(n.ip and helpers.pid_of(self._lock(names.isolated(obj.namespace, n.network))) for n in isolated):
            return False
        return bool(files.read_json(self._applied) == self._mark(self._standing(tenants)))

    # bringing it there

    def ensure(self, obj: Object) -> None:
        """Bring up the machine's tenant: bridge, tap, leases, names, firewall. Under the network lock."""
        sandbox = self.sandbox
        self._give_ip(obj)
        pid = sandbox.ensure(self._settle())
        if not sandbox.has_tenant_network:
            return
        tenants = self.all()
        mine = next(t for t in tenants if t.namespace == obj.namespace)
        endpoint = next(s for s in mine.endpoints if s.name == obj.name)
        user = str(qemu_ids.shared()[0]) if sandbox.root else sandbox.launcher.owner
        master = self.lan.ensure(pid, endpoint.lan) if endpoint.lan else mine.bridge
        v6 = mine.range.v6
        sandbox.batch(
            pid,
            [
                add_bridge(mine.bridge),
                {"run": ["ip", "link", "set", mine.bridge, "mtu", "1500"]},
                {"run": ["ip", "addr", "replace", f"{mine.gateway}/24", "dev", mine.bridge]},
                *([_gateway6(mine)] if v6 else []),
                {"run": ["ip", "link", "set", mine.bridge, "up"]},
                *_tap(endpoint.tap, user, master),
                *(op for nic in endpoint.further for op in self._further(pid, mine, nic, user)),
            ],
        )
        self._keep_made({**self._made(), **self._masters(mine, endpoint)})
        self.refresh(pid)

    def _further(self, pid: int, t: Tenant, nic: Nic, user: str) -> list[dict[str, Any]]:
        """A further NIC: on an isolated bridge of the tenant's with DHCP alone, or on one of the host's."""
        if nic.lan:
            return _tap(nic.tap, user, self.lan.ensure(pid, nic.lan))
        bridge = names.isolated(t.namespace, nic.network)
        quiet = {"write": f"/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6", "text": "1", "may_fail": True}
        own = {"run": ["ip", "addr", "replace", f"{t.range.gateway(nic.number)}/24", "dev", bridge]}
        up = {"run": ["ip", "link", "set", bridge, "up"]}
        return [add_bridge(bridge), quiet, own, up, *_tap(nic.tap, user, bridge)]

    def refresh(self, pid: int) -> None:
        """Names, leases and firewall as the store has them; dnsmasq reads its files again."""
        if not self.sandbox.has_tenant_network:
            return
        net = self.sandbox.net
        tenants = self._standing(self.all())
        mark = self._mark(tenants)
        stale = files.read_json(self._applied) != mark
        if stale:
            for name, text in _name_files(tenants).items():
                files.write(net / name, text, 0o644)
            text = firewall.ruleset(tenants, self.range(), self.link_local)
            self.sandbox.batch(pid, [{"run": ["nft", "-f", "-"], "input": text}])
        standing = set(self._made().values())
        for t in tenants:
            self._dnsmasq(pid, t.bridge, tenant.dnsmasq_conf(t, str(net)), stale)
            for bridge in sorted(standing & set(t.isolated)):
                self._dnsmasq(pid, bridge, tenant.isolated_conf(t, bridge, str(net)), stale)
        if stale:
            files.write_json(self._applied, mark)  # last: it says that all of it is in force

    def _lock(self, bridge: str) -> Path:
        return self.sandbox.run / f"dnsmasq-{bridge}.lock"

    def _dnsmasq(self, pid: int, bridge: str, text: str, changed: bool) -> None:
        net = self.sandbox.net
        conf, lock = net / f"{bridge}.conf", self._lock(bridge)
        if not conf.exists() or conf.read_text() != text:
            helpers.end(lock)  # it reads its configuration once
            files.write(conf, text, 0o644)
        # In the foreground and without closing standard input, which carries its lock: so it never changes its user itself.
        words = [find("dnsmasq"), "--no-daemon", f"--conf-file={conf}"]
        words += [f"--user={qemu_ids.name_of(0 if self.sandbox.root else int(self.sandbox.launcher.owner))}"]
        if self.sandbox.root:
            leases = net / f"{bridge}.leases"
            leases.touch()
            os.chown(leases, NOBODY, NOBODY)
            words = [
                find("setpriv"),
                f"--reuid={NOBODY}",
                f"--regid={NOBODY}",
                "--clear-groups",
                *_CAPABILITIES,
                *words,
            ]
        argv = self.sandbox.enter_words(pid, "exec", *words)
        log = self.sandbox.log(f"dnsmasq-{bridge}")
        dns, fresh = helpers.ensure(lock, argv, log, clean_environment(), check=lambda p: helpers.runs(p, "dnsmasq"))
        if changed and not fresh:
            os.kill(dns, signal.SIGHUP)

    @property
    def _applied(self) -> Any:
        return self.sandbox.net / "applied.json"

    def _mark(self, tenants: list[Tenant]) -> dict[str, str | None]:
        """What names these rules and names in this namespace."""
        text = firewall.ruleset(tenants, self.range(), self.link_local) + "".join(_name_files(tenants).values())
        return {"net": self.sandbox.id(), "text": hashlib.sha256(text.encode()).hexdigest()}

    def drop(self, obj: Object) -> None:
        """The machine is gone: its tap, and what nobody else needs. Of the kernel's devices only a note is made (`take_away`)."""
        pid = self.sandbox.holder()
        if pid is None or not self.sandbox.has_tenant_network:
            return
        bridge = names.bridge(obj.namespace)
        endpoints = [s for t in self.all() for s in t.endpoints if t.namespace == obj.namespace]
        mine = next((s for s in endpoints if s.name == obj.name), None)
        if mine is None:
            return
        # Noted first: a tap that is noted and is not there would never be made again.
        made = {tap: master for tap, master in self._made().items() if tap not in mine.taps}
        self._keep_made(made)
        self._gone |= mine.taps
        others = [s for t in self.all() for s in t.endpoints if s.tap in made]
        for lan in sorted(mine.lans - {b for s in others for b in s.lans}):
            self.lan.drop(pid, lan)
        left = {n.network for s in endpoints if s.tap in made for n in s.further}
        for nic in mine.further:
            if not nic.lan and nic.network not in left:
                self._gone.add(names.isolated(obj.namespace, nic.network))
        # Leases are for ever, and dnsmasq keeps them: one of a machine that is gone would stand in another's way.
        for served in (bridge, *(names.isolated(obj.namespace, n.network) for n in mine.further if not n.lan)):
            helpers.end(self._lock(served))
            (self.sandbox.net / f"{served}.leases").unlink(missing_ok=True)
        if not any(t.namespace == obj.namespace for t in self._standing(self.all())):
            self._gone.add(bridge)

    def take_away(self, pid: int) -> None:
        """The devices of all machines that went: the kernel waits once for all of a group, for the packets that are on their way."""
        gone, self._gone = sorted(self._gone), set()
        marked = [{"run": ["ip", "link", "set", name, "group", _GONE], "may_fail": True} for name in gone]
        if marked:
            self.sandbox.batch(pid, [*marked, {"run": ["ip", "link", "del", "group", _GONE], "may_fail": True}])


def _isolated(namespace: str, network: str) -> str:
    """The store's row of an isolated network."""
    return f"isolated/{namespace}/{network}"


def _chosen(choose: Callable[..., int], *words: Any) -> int:
    """A number, or HK803 when none is free."""
    try:
        return choose(*words)
    except ValueError as e:
        raise HikubeError(
            "HK803", str(e), fix="remove machines or namespaces that are not needed: hikube-local get -A"
        ) from None


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
        out |= {f"{bridge}.dhcp": tenant.isolated_hosts(t, bridge) for bridge in t.isolated}
    return out
