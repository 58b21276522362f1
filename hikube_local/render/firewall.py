"""The firewall of a sandbox as nftables' text: between tenants, to the outside, and on each machine's own wire; pure.

Everything stands inside the sandbox's namespace: the host's own rules are never touched.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from hikube_local.records import dataclass
from hikube_local.render.addresses import Range
from hikube_local.render.tenant import Endpoint, Tenant

LAN_PREFIX = "hkl"  # bridges inside the namespace that continue one of the host's


# Where cloud hosts hand out their credentials (169.254.169.254), and what is nobody's business behind this host.
LINK_LOCAL, LINK_LOCAL6 = "169.254.0.0/16", "fe80::/10"


def ruleset(tenants: Iterable[Tenant], range: Range = Range(), link_local: bool = False) -> str:
    """Both tables, replacing what was there in one transaction. `link_local`: guests reach the host's link-local networks."""
    rows = list(tenants)
    return _between(rows, range, link_local) + _wires(rows)


@dataclass(frozen=True, slots=True)
class Arrow:
    """Who may open connections to whom: `tenant/NAMESPACE`, `machine/NAMESPACE/NAME`, `others` (machines of other tenants),
    `outside`, `host`, `bridge/NAME` (of the host's), `network/NAMESPACE/NAME` (a further one). `rule`: what allows it, as nftables writes it for this one."""

    source: str
    target: str
    what: str
    rule: str


def reach(tenants: Iterable[Tenant]) -> list[Arrow]:
    """What the rules of `ruleset` allow, arrow by arrow; answers to what was opened are always let through."""
    rows = list(tenants)
    bridges = _set(f'"{t.bridge}"' for t in rows)
    out = []
    for t in rows:
        here = f"tenant/{t.namespace}"
        if any(not s.lan for s in t.endpoints):
            out.append(Arrow(here, here, "everything", _inside(t.bridge)))
            out.append(Arrow(here, "outside", "everything", _outward(bridges)))
        for s in t.endpoints:
            machine = f"machine/{t.namespace}/{s.name}"
            if s.lan:
                rules = [("everything", _OPEN)] if s.whole else _to(s)
                out += _on_bridge(machine, s.lan, rules)
            else:
                out += [Arrow("others", machine, what, f"iifname {bridges} {rule}") for what, rule in _opened([s])]
            for nic in s.further:
                if nic.lan:
                    out += _on_bridge(machine, nic.lan, [("everything", _OPEN)])
                else:
                    inside = f"network/{t.namespace}/{nic.network}"
                    out += [Arrow(machine, inside, "everything", _OPEN), Arrow(inside, machine, "everything", _OPEN)]
    return out


_OPEN = "type filter hook forward priority 0; policy accept;"


def _on_bridge(machine: str, lan: str, rules: list[tuple[str, str]]) -> list[Arrow]:
    """A machine and a bridge of the host's: everything out, and in what these rules of its wire open."""
    bridge = f"bridge/{lan}"
    inward = [Arrow(bridge, machine, what, rule) for what, rule in rules if what]
    return [Arrow(machine, bridge, "everything", _OPEN), *inward]


def _inside(bridge: str) -> str:
    return f'iifname "{bridge}" oifname "{bridge}" accept'


def _outward(bridges: str) -> str:
    return f'iifname {bridges} oifname "tap0" accept'


def _opened(endpoints: list[Endpoint]) -> list[tuple[str, str]]:
    """(what, the rule) of what other tenants' machines reach of these."""
    rows = []
    if listed := sorted((s.ip, p) for s in endpoints for p in s.ports):
        ports = ", ".join(str(p) for p in sorted({p for _, p in listed}))
        rows.append((f"TCP {ports}", f"ip daddr . tcp dport {_set(f'{ip} . {p}' for ip, p in listed)} accept"))
    if whole := sorted(s.ip for s in endpoints if s.whole):
        rows.append(("everything", f"ip daddr {_set(whole)} accept"))
    if pinged := sorted(s.ip for s in endpoints if s.icmp):
        rows.append(("ping", f"ip daddr {_set(pinged)} icmp type echo-request accept"))
    return rows


def _set(words: Iterable[str]) -> str:
    return "{ " + ", ".join(words) + " }"


def _between(tenants: list[Tenant], range: Range, link_local: bool) -> str:
    """A tenant's machines reach the outside and one another; of another tenant's what it opened."""
    own = [t.bridge for t in tenants]
    isolated = sorted(f'"{b}"' for t in tenants for b in t.isolated)
    bridges = _set(f'"{b}"' for b in own or ["hknone"])
    opened = [rule for _, rule in _opened([s for t in tenants for s in t.endpoints if not s.lan])]
    forward = [
        "type filter hook forward priority 0; policy drop;",
        "ct state established,related accept",
        # Where the host has br_netfilter, frames inside one bridge pass here too.
        *map(_inside, own),
        f'iifname {bridges} oifname "tap0" ip daddr {range.slirp_net} drop',
        *(
            []
            if link_local
            else [f"iifname {bridges} ip daddr {LINK_LOCAL} drop", f"iifname {bridges} ip6 daddr {LINK_LOCAL6} drop"]
        ),
        _outward(bridges),
        # Only what was forwarded can arrive there.
        f'iifname "tap0" oifname {bridges} accept',
        *(f"iifname {bridges} {rule}" for rule in opened),
    ]
    arriving = [
        "type filter hook input priority 0; policy drop;",
        "ct state established,related accept",
        'iifname "lo" accept',
        f"iifname {bridges} udp dport {{ 53, 67 }} accept",
        f"iifname {bridges} tcp dport 53 accept",
        *([f"iifname {_set(isolated)} udp dport 67 accept"] if isolated else []),
        f"iifname {bridges} icmp type echo-request accept",
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept",
        f"iifname {bridges} icmpv6 type echo-request accept",
    ]
    leaving = [
        "type filter hook output priority 0; policy accept;",
        f'oifname "tap0" ip daddr {range.resolver} udp dport 53 accept',
        f'oifname "tap0" ip daddr {range.resolver} tcp dport 53 accept',
        # slirp4netns' gateway is the host's loopback.
        f'oifname "tap0" ip daddr {range.slirp_net} ct direction original drop',
    ]
    chains = {"forward": forward, "input": arriving, "output": leaving}
    if range.v6:
        # slirp4netns carries IPv6 for its own address alone.
        forward.insert(2, 'iifname "tap0" ip6 daddr ::/0 drop')
        forward.insert(2, 'oifname "tap0" ip6 daddr fd00::/64 drop')
        leaving.append('oifname "tap0" ip6 daddr fd00::/64 ct direction original drop')
        chains["out6"] = ["type nat hook postrouting priority 100;", 'oifname "tap0" meta nfproto ipv6 masquerade']
    return _table("inet", chains)


def _wires(tenants: list[Tenant]) -> str:
    """On each machine's own wire: its own MAC and IP and nobody else's; on a host's bridge the declared ports too."""
    endpoints = [s for t in tenants for s in t.endpoints]
    ours = {a for s in endpoints for a in (s.ip, s.lan_ip) if a}
    gateways = sorted(t.gateway for t in tenants)
    gateways6 = sorted(t.range.gateway6(t.number) for t in tenants if t.range.v6)
    chains: dict[str, list[str]] = {}
    hooks = ["type filter hook prerouting priority -300; policy accept;"]
    lan = [_OPEN]
    jumps: list[str] = []
    for s in endpoints:
        others = sorted((ours - {s.ip, s.lan_ip}) | set(gateways))
        chains[f"from_{s.tap}"] = _from(s, others, gateways6)
        jumps.append(f'"{s.tap}" : jump from_{s.tap}')
        if s.lan:
            # What is seen on its wire is the neighbour table from which its address is learned.
            hooks.append(f'iifname "{s.tap}" ether type arp update @learned {{ arp saddr ether . arp saddr ip }}')
            hooks.append(f'iifname "{s.tap}" ether type ip update @learned {{ ether saddr . ip saddr }}')
            lan.append(f'iifname "{s.tap}" ip protocol {{ tcp, udp }} update @flows {_FLOW_OUT}')
            if not s.whole:
                chains[f"to_{s.tap}"] = [rule for _, rule in _to(s)]
                lan.append(f'oifname "{s.tap}" jump to_{s.tap}')
        for nic in s.further:
            # Addresses there are the guests' own business, a MAC is not; nor is either network theirs to serve.
            chains[f"from_{nic.tap}"] = _plain(nic.mac)
            jumps.append(f'"{nic.tap}" : jump from_{nic.tap}')
    # One look for each frame, however many machines there are.
    hooks[1:1] = [f"iifname vmap {_set(jumps)}"] if jumps else []
    chains |= {"prerouting": hooks, "forward": lan}
    return _table("bridge", chains, _SETS)


# conntrack is not to be had for bridges on every kernel: answers are known by the flows that went out.
_SETS = (
    "set learned { type ether_addr . ipv4_addr; flags dynamic,timeout; timeout 1h; size 4096; }",
    "set flows { type ipv4_addr . inet_service . ipv4_addr . inet_service . inet_proto; "
    "flags dynamic,timeout; timeout 10m; size 65536; }",
)
_FLOW_OUT = "{ ip saddr . th sport . ip daddr . th dport . ip protocol }"
_FLOW_BACK = "ip daddr . th dport . ip saddr . th sport . ip protocol @flows"


def _plain(mac: str) -> list[str]:
    """What every wire keeps to: ordinary frames under its own MAC; no server, no router."""
    return [
        f"ether saddr != {mac} drop",
        # No VLAN tag, behind which the rules below would not look, and no spanning tree.
        "ether type != { arp, ip, ip6 } drop",
        f"arp saddr ether != {mac} drop",
        "udp sport { 67, 547 } drop",
        "icmpv6 type { nd-router-advert, nd-redirect } drop",
        # A DHCP request speaks for its sender alone (chaddr), and not all the time.
        f"udp dport 67 @th,288,48 != 0x{mac.replace(':', '')} drop",
        "udp dport 67 limit rate over 20/second burst 40 packets drop",
    ]


def _from(s: Endpoint, others: list[str], gateways6: list[str]) -> list[str]:
    rules = _plain(s.mac)
    for gateway in gateways6:
        target = int(ipaddress.IPv6Address(gateway))
        rules += [f"ip6 saddr {gateway} drop", f"icmpv6 type nd-neighbor-advert @nh,384,128 {target:#x} drop"]
    if s.lan:
        return [*rules, f"arp saddr ip {_set(others)} drop", f"ip saddr {_set(others)} drop"] if others else rules
    return [
        # Most of what passes; nothing below forbids any of it.
        f"ether saddr {s.mac} ip saddr {s.ip} ip protocol tcp accept",
        *rules,
        f"arp saddr ip != {{ 0.0.0.0, {s.ip} }} drop",
        "ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept",
        f"ip saddr != {s.ip} drop",
    ]


def _to(s: Endpoint) -> list[tuple[str, str]]:
    """(what of it is an opening, the rule) of a machine on a bridge of the host's."""
    rules = [
        ("", f"{_FLOW_BACK} accept"),
        ("", "ether type arp accept"),
        ("", "udp sport 67 udp dport 68 accept"),
        ("", "icmp type { echo-reply, destination-unreachable, time-exceeded } accept"),
        ("", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept"),
    ]
    if s.icmp:
        rules.append(("ping", "icmp type echo-request accept"))
    if s.ports:
        ports = sorted(s.ports)
        rules.append((f"TCP {', '.join(map(str, ports))}", f"tcp dport {_set(map(str, ports))} accept"))
    return [*rules, ("", "drop")]


def _table(family: str, chains: dict[str, list[str]], sets: Iterable[str] = ()) -> str:
    head = f"add table {family} hikube\ndelete table {family} hikube\ntable {family} hikube {{\n"
    body = "".join(f"  {line}\n" for line in sets)
    for name, rules in chains.items():
        body += f"  chain {name} {{\n" + "".join(f"    {rule}\n" for rule in rules) + "  }\n"
    return f"{head}{body}}}\n"
