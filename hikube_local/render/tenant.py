"""A Kubernetes namespace's network as text: who sits in it, and dnsmasq's files; pure."""

from __future__ import annotations

from collections.abc import Iterable

from hikube_local.api import names
from hikube_local.records import dataclass
from hikube_local.render.addresses import Range

MTU = 1400


@dataclass(frozen=True, slots=True)
class Nic:
    """A further NIC: on an isolated network of the tenant's, or on a bridge of the host's."""

    network: str
    mac: str
    tap: str
    lan: str = ""
    number: int = 0  # of the isolated network's subnet
    ip: str = ""  # there, by DHCP


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A machine's place in its tenant network, and what may reach it from outside."""

    name: str
    ip: str
    mac: str
    tap: str
    ports: tuple[int, ...] = ()  # TCP, with PortList
    whole: bool = False  # WholeIP: everything
    icmp: bool = False  # ping from outside
    lan: str = ""  # the host's bridge that it sits on, instead of its tenant's
    lan_ip: str = ""  # the address that it was seen to have there
    further: tuple[Nic, ...] = ()

    @property
    def taps(self) -> set[str]:
        return {self.tap, *(n.tap for n in self.further)}

    @property
    def lans(self) -> set[str]:
        """The host's bridges that it has a NIC on."""
        return {b for b in (self.lan, *(n.lan for n in self.further)) if b}

    @property
    def named_ip(self) -> str:
        """What the tenant's DNS says; empty when nothing is known yet."""
        return self.lan_ip if self.lan else self.ip


@dataclass(frozen=True, slots=True)
class Tenant:
    """One Kubernetes namespace's network."""

    namespace: str
    number: int
    endpoints: tuple[Endpoint, ...] = ()
    range: Range = Range()

    @property
    def bridge(self) -> str:
        return names.bridge(self.namespace)

    @property
    def gateway(self) -> str:
        return self.range.gateway(self.number)

    @property
    def isolated(self) -> dict[str, int]:
        """The bridges of its isolated networks, each with the number of its subnet."""
        nics = [n for s in self.endpoints for n in s.further if n.number]
        return {names.isolated(self.namespace, n.network): n.number for n in nics}


def search_list(namespace: str, domain: str = names.DOMAIN) -> list[str]:
    """The search domains that Hikube's DHCP hands out."""
    return [f"{namespace}.svc.{domain}", f"svc.{domain}", domain]


def dnsmasq_conf(t: Tenant, folder: str, domain: str = names.DOMAIN) -> str:
    """Options as Hikube's DHCP hands them out: search list (119), domain (15), MTU (26)."""
    lines = [
        f"interface={t.bridge}",
        "bind-interfaces",
        "except-interface=lo",
        "no-hosts",
        "no-resolv",
        "no-poll",
        "dhcp-authoritative",
        "dhcp-ignore-names",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
        f"domain={t.namespace}.svc.{domain}",
        f"local=/{domain}/",
        # The netmask is named: without it dnsmasq takes the supernet's.
        f"dhcp-range={t.gateway},static,255.255.255.0,infinite",
        f"dhcp-option=option:router,{t.gateway}",
        f"dhcp-option=option:dns-server,{t.gateway}",
        f"dhcp-option=option:domain-search,{','.join(search_list(t.namespace, domain))}",
        f"dhcp-option=option:mtu,{MTU}",
        f"dhcp-hostsfile={folder}/{t.bridge}.dhcp",
        f"addn-hosts={folder}/{t.bridge}.hosts",
        f"addn-hosts={folder}/all.hosts",
        f"dhcp-leasefile={folder}/{t.bridge}.leases",
        f"server={t.range.resolver}",
    ]
    if t.range.v6:
        lines += [
            "enable-ra",
            f"dhcp-range={t.range.v6}:{t.number:x}::,ra-only,64",
            f"ra-param={t.bridge},mtu:{MTU},60",
        ]
    return "\n".join([*lines, ""])


def isolated_conf(t: Tenant, bridge: str, folder: str) -> str:
    """Of an isolated network: an address and the MTU, as KubeVirt's DHCP of a further NIC; no router, no names.

    A program of its own: dnsmasq keeps to its bridge's DHCP only while it has one interface.
    """
    lines = [
        f"interface={bridge}",
        "bind-interfaces",
        "except-interface=lo",
        "port=0",
        "dhcp-authoritative",
        "dhcp-ignore-names",
        "quiet-dhcp",
        f"dhcp-range={t.range.gateway(t.isolated[bridge])},static,255.255.255.0,infinite",
        f"dhcp-option=option:mtu,{MTU}",
        # Without a value: not sent.
        "dhcp-option=option:router",
        f"dhcp-hostsfile={folder}/{bridge}.dhcp",
        f"dhcp-leasefile={folder}/{bridge}.leases",
    ]
    return "\n".join([*lines, ""])


def dhcp_hosts(t: Tenant) -> str:
    return "".join(f"{s.mac},{s.ip},infinite\n" for s in t.endpoints if not s.lan)


def isolated_hosts(t: Tenant, bridge: str) -> str:
    nics = [n for s in t.endpoints for n in s.further if n.number == t.isolated[bridge]]
    return "".join(f"{n.mac},{n.ip},infinite\n" for n in nics)


def own_hosts(t: Tenant) -> str:
    """What only the tenant itself may say: the short names."""
    rows = ((s.named_ip, names.machine(s.name)) for s in t.endpoints if s.named_ip)
    return "".join(f"{ip} {name} {name}.{t.namespace}\n" for ip, name in rows)


def all_hosts(tenants: Iterable[Tenant], domain: str = names.DOMAIN) -> str:
    """The full names, for every tenant."""
    rows = ((s.named_ip, names.fqdn(t.namespace, s.name, domain)) for t in tenants for s in t.endpoints if s.named_ip)
    return "".join(f"{ip} {name}\n" for ip, name in rows)
