"""Addresses of the tenant networks: chosen by name, kept once chosen; pure."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from hikube_local.records import dataclass

HIGH = 10000  # a port that may not be bound goes to p + HIGH
FIRST, LAST = 10, 250  # of machines in their subnet; the rest is for `network exec`
PODS = range(251, 255)
LOOPBACK = ipaddress.ip_network("127.77.0.0/16")  # where machines' ports stand on the host
OCTETS = (77, *range(78, 100), *range(176, 200))  # 10.OCTET.0.0/16, the first that no route of the host touches


@dataclass(frozen=True, slots=True)
class Range:
    """The /16 of one state root. slirp4netns sits in its first /24, each Kubernetes namespace has a /24 of its own."""

    octet: int = OCTETS[0]
    v6: str = ""  # the first 48 bits of a ULA (fd77:1234:5678), empty where the host has no IPv6

    @property
    def supernet(self) -> str:
        return f"10.{self.octet}.0.0/16"

    @property
    def slirp_net(self) -> str:
        return f"10.{self.octet}.0.0/24"

    @property
    def resolver(self) -> str:
        """slirp4netns' own resolver, which asks the host's."""
        return f"10.{self.octet}.0.3"

    def address(self, number: int, host: int) -> str:
        return f"10.{self.octet}.{number}.{host}"

    def gateway(self, number: int) -> str:
        return self.address(number, 1)

    def gateway6(self, number: int) -> str:
        return f"{self.v6}:{number:x}::1"


def choose_octet(routes: Iterable[str], kept: int | None = None) -> int:
    """The kept octet, else the first one, whose /16 no route of the host touches (`routes` as `ip route` prints them)."""
    taken = []
    for text in routes:
        try:
            net = ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
        if net.version == 4 and net.prefixlen > 7:  # a default route, or a VPN's halves of it, are no claim
            taken.append(net)
    for octet in (*([kept] if kept is not None else []), *OCTETS):
        own = ipaddress.ip_network(f"10.{octet}.0.0/16")
        if not any(own.overlaps(net) for net in taken):
            return octet
    raise ValueError("every range that could be used is routed by the host already")


def unique_local(root: str) -> str:
    """48 bits of a ULA that are this state root's alone (RFC 4193)."""
    h = hashlib.sha256(f"v6:{root}".encode()).hexdigest()
    return f"fd77:{h[:4]}:{h[4:8]}"


def choose_subnet(namespace: str, taken: Iterable[int]) -> int:
    """The number of a Kubernetes namespace's subnet, 1 to 254: by its name, the next free one if taken."""
    return _choose(f"subnet:{namespace}", 1, 254, set(taken))


def choose_host(namespace: str, name: str, taken: Iterable[int]) -> int:
    """A machine's number in its subnet: by its name."""
    return _choose(f"ip:{namespace}/{name}", FIRST, LAST, set(taken))


def _choose(what: str, low: int, high: int, taken: set[int]) -> int:
    span = high - low + 1
    first = int.from_bytes(hashlib.sha256(what.encode()).digest()[:4], "big") % span
    for i in range(span):
        if (number := low + (first + i) % span) not in taken:
            return number
    raise ValueError(f"no address is free for {what}")


def loopback_candidates(root: str, namespace: str, name: str) -> Iterator[str]:
    """Addresses of 127.77/16 for a machine, the preferred one first."""
    for i in range(200):
        h = hashlib.sha256(f"{root}:{namespace}/{name}:{i}".encode()).digest()
        yield f"127.77.{1 + h[0] % 254}.{1 + h[1] % 254}"


def assign_ports(ports: Iterable[str], kept: dict[str, Any], usable: Callable[[str, int], bool]) -> dict[str, int]:
    """Host ports for guest ports: p itself, else p + 10000, else the next free one that is not declared itself.

    A port is "80" (TCP) or "53/udp"; `usable(protocol, port)` says whether the host's may be had.
    """
    declared = {split_port(p) for p in ports}
    out: dict[tuple[str, int], int] = {}
    for protocol, port in sorted(declared):
        taken = {h for (other, _), h in out.items() if other == protocol}
        old = kept.get(port_key(protocol, port))
        if old is not None and old not in taken and usable(protocol, old):
            out[protocol, port] = old
            continue
        for candidate in chain((port,), range(port + HIGH, 65536), range(20000, 65536)):
            if (candidate != port and (protocol, candidate) in declared) or candidate in taken:
                continue
            if usable(protocol, candidate):
                out[protocol, port] = candidate
                break
    return {port_key(*key): host for key, host in out.items()}


def split_port(key: str) -> tuple[str, int]:
    """("udp", 53) of "53/udp", ("tcp", 80) of "80"."""
    number, _, protocol = key.partition("/")
    return protocol or "tcp", int(number)


def port_key(protocol: str, port: int) -> str:
    return str(port) if protocol == "tcp" else f"{port}/{protocol}"
