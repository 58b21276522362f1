"""The tenant network as text: addresses, dnsmasq's files, firewall rules; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hikube_local.api import names

SUPERNET = "10.77.0.0/16"
RESOLVER = "10.77.0.3"  # slirp4netns' own, which asks the host's
SLIRP_NET = "10.77.0.0/24"
MTU = 1400
HIGH = 10000  # a port that may not be bound goes to p + HIGH


def subnet(n: int) -> str:
    return f"10.77.{n}.0/24"


def gateway(n: int) -> str:
    return f"10.77.{n}.1"


def choose_subnet(namespace: str, taken: Iterable[int]) -> int:
    """The number of a Kubernetes namespace's subnet, 1 to 254: by its name, the next free one if taken."""
    return _choose(f"subnet:{namespace}", 1, 254, set(taken))


def choose_ip(namespace: str, name: str, n: int, taken: Iterable[str]) -> str:
    """A machine's address in its subnet: by its name, .10 to .250."""
    used = {int(ip.rsplit(".", 1)[1]) for ip in taken if ip.startswith(f"10.77.{n}.")}
    return f"10.77.{n}.{_choose(f'ip:{namespace}/{name}', 10, 250, used)}"


def _choose(what: str, low: int, high: int, taken: set[int]) -> int:
    span = high - low + 1
    first = int.from_bytes(hashlib.sha256(what.encode()).digest()[:4], "big") % span
    for i in range(span):
        if (number := low + (first + i) % span) not in taken:
            return number
    raise ValueError(f"no address is free for {what}")


def loopback_candidates(root: str, namespace: str, name: str) -> Iterable[str]:
    """Addresses of 127.77/16 for a machine, the preferred one first."""
    for i in range(200):
        h = hashlib.sha256(f"{root}:{namespace}/{name}:{i}".encode()).digest()
        yield f"127.77.{1 + h[0] % 254}.{1 + h[1] % 254}"


@dataclass(frozen=True, slots=True)
class Tenant:
    """One Kubernetes namespace's network."""

    namespace: str
    number: int
    machines: tuple[tuple[str, str, str], ...] = ()  # (name, ip, mac)

    @property
    def bridge(self) -> str:
        return names.bridge(self.namespace)


def dnsmasq_conf(t: Tenant, folder: str, domain: str = names.DOMAIN) -> str:
    """Options as Hikube's DHCP hands them out: search list (119), domain (15), MTU (26)."""
    search = f"{t.namespace}.svc.{domain},svc.{domain},{domain}"
    return "\n".join(
        (
            f"interface={t.bridge}",
            "bind-interfaces",
            "except-interface=lo",
            "no-hosts",
            "no-resolv",
            "no-poll",
            "dhcp-authoritative",
            "dhcp-ignore-names",
            f"domain={t.namespace}.svc.{domain}",
            f"local=/{domain}/",
            # The netmask is named: without it dnsmasq takes the supernet's.
            f"dhcp-range={gateway(t.number)},static,255.255.255.0,infinite",
            f"dhcp-option=option:router,{gateway(t.number)}",
            f"dhcp-option=option:dns-server,{gateway(t.number)}",
            f"dhcp-option=option:domain-search,{search}",
            f"dhcp-option=option:mtu,{MTU}",
            f"dhcp-hostsfile={folder}/{t.bridge}.dhcp",
            f"addn-hosts={folder}/{t.bridge}.hosts",
            f"addn-hosts={folder}/all.hosts",
            f"dhcp-leasefile={folder}/{t.bridge}.leases",
            f"server={RESOLVER}",
            "",
        )
    )


def dhcp_hosts(t: Tenant) -> str:
    return "".join(f"{mac},{ip},infinite\n" for _, ip, mac in t.machines)


def own_hosts(t: Tenant, domain: str = names.DOMAIN) -> str:
    """What only the tenant itself may say: the short names."""
    return "".join(f"{ip} {names.machine(n)} {names.machine(n)}.{t.namespace}\n" for n, ip, _ in t.machines)


def all_hosts(tenants: Iterable[Tenant], domain: str = names.DOMAIN) -> str:
    """The full names, for every tenant."""
    return "".join(f"{ip} {names.fqdn(t.namespace, n, domain)}\n" for t in tenants for n, ip, _ in t.machines)


def firewall(tenants: Iterable[Tenant], open_ports: Iterable[tuple[str, int]]) -> str:
    """One table: a tenant's machines reach the outside and one another, another tenant only the listed ports."""
    own = [t.bridge for t in tenants]
    bridges = ", ".join(f'"{b}"' for b in own) or '"hknone"'
    # Where the host has br_netfilter, frames inside one bridge pass here too.
    inside = "".join(f'    iifname "{b}" oifname "{b}" accept\n' for b in own)
    ports = sorted(set(open_ports))
    listed = ", ".join(f"{ip} . {port}" for ip, port in ports)
    cross = f"    iifname {{ {bridges} }} ip daddr . tcp dport {{ {listed} }} accept\n" if ports else ""
    return (
        "add table inet hikube\ndelete table inet hikube\ntable inet hikube {\n"
        "  chain forward {\n    type filter hook forward priority 0; policy drop;\n"
        "    ct state established,related accept\n"
        f"{inside}"
        f'    iifname {{ {bridges} }} oifname "tap0" ip daddr {SLIRP_NET} drop\n'
        f'    iifname {{ {bridges} }} oifname "tap0" accept\n'
        f'    iifname "tap0" oifname {{ {bridges} }} accept\n'
        + cross
        + "  }\n  chain input {\n    type filter hook input priority 0; policy drop;\n"
        '    ct state established,related accept\n    iifname "lo" accept\n'
        f"    iifname {{ {bridges} }} udp dport {{ 53, 67 }} accept\n"
        f"    iifname {{ {bridges} }} tcp dport 53 accept\n"
        f"    iifname {{ {bridges} }} icmp type echo-request accept\n  }}\n"
        "  chain output {\n    type filter hook output priority 0; policy accept;\n"
        f'    oifname "tap0" ip daddr {RESOLVER} udp dport 53 accept\n'
        f'    oifname "tap0" ip daddr {RESOLVER} tcp dport 53 accept\n'
        f'    oifname "tap0" ip daddr {SLIRP_NET} ct direction original drop\n  }}\n}}\n'
    )


def assign_ports(ports: Iterable[int], kept: dict[str, Any], usable: Callable[[int], bool]) -> dict[str, int]:
    """Host ports for guest ports: p itself, else p + 10000, else the next free one that is not declared itself."""
    declared = set(ports)
    out: dict[str, int] = {}
    for port in sorted(declared):
        taken = set(out.values())
        old = kept.get(str(port))
        if old is not None and old not in taken and usable(old):
            out[str(port)] = old
            continue
        candidates = [port, *range(port + HIGH, 65536), *range(20000, 65536)]
        for candidate in candidates:
            if (candidate != port and candidate in declared) or candidate in taken or candidate > 65535:
                continue
            if usable(candidate):
                out[str(port)] = candidate
                break
    return out
