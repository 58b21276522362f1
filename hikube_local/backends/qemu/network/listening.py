"""On which ports a guest listens: asked of its agent, else tried from inside the namespace. What it says is data."""

from __future__ import annotations

import contextlib
import json

from hikube_local.backends.qemu.agent import Agent
from hikube_local.backends.qemu.network.namespace import Namespace
from hikube_local.render.addresses import port_key

MOST = 64  # slirp4netns polls every forward: a few dozen cost little, thousands ruin it (measured)
EPHEMERAL = range(32768, 61000)  # UDP sockets there are almost always clients
CLIENTS = frozenset((68, 546))  # DHCP clients
# UDP cannot be tried from outside: without an agent these are opened whether anybody listens or not.
USUAL_TCP = (22, 80, 443, 3389, 8080)  # for a machine that cannot be tried from inside either
USUAL_UDP = (53, 69, 123, 161, 500, 514, 1194, 1812, 3478, 4500, 5060, 51820)


def by_agent(agent: Agent) -> list[str] | None:
    """The guest's own tables of sockets; None when its agent gives no file."""
    found: set[tuple[str, int]] = set()
    answered = False
    for name, protocol, state in (
        ("tcp", "tcp", "0A"),
        ("tcp6", "tcp", "0A"),
        ("udp", "udp", "07"),
        ("udp6", "udp", "07"),
    ):
        raw = agent.read(f"/proc/net/{name}")
        if raw is None:
            if name == "tcp":
                return None
            continue
        answered = True
        found |= {(protocol, port) for port in table(raw.decode("ascii", "replace"), state)}
    return chosen(found) if answered else None


def table(text: str, state: str) -> set[int]:
    """The ports of /proc/net/{tcp,udp}[6] in this state, but for those bound to the guest's loopback."""
    out = set()
    for line in text.splitlines()[1:]:
        words = line.split()
        with contextlib.suppress(ValueError, IndexError):
            address, _, port = words[1].partition(":")
            if words[3] == state and not _loopback(address):
                out.add(int(port, 16))
    return out


def _loopback(address: str) -> bool:
    """Words of 32 bits in the host's order: 127.0.0.1 is 0100007F."""
    if len(address) == 8:
        return address[6:] == "7F"
    mapped = address[:24] == "0000000000000000FFFF0000"
    return address == "00000000000000000000000001000000" or (mapped and address[30:] == "7F")


def chosen(found: set[tuple[str, int]]) -> list[str]:
    """What of it is forwarded: TCP first, the lowest ports first, at most MOST."""
    kept = [
        (protocol, port)
        for protocol, port in sorted(found)
        if 0 < port < 65536
        and not (protocol == "udp" and ((port in EPHEMERAL and port not in USUAL_UDP) or port in CLIENTS))
    ]
    return [port_key(*p) for p in kept[:MOST]]


def by_scan(namespace: Namespace, pid: int, ip: str) -> list[str]:
    """TCP: whoever answers. UDP: the usual ports."""
    if not namespace.has_tenant_network:
        return chosen({("tcp", p) for p in USUAL_TCP} | {("udp", p) for p in USUAL_UDP})
    done = namespace.enter(pid, "scan", ip, input=b"")
    try:
        ports = {int(p) for p in json.loads(done.stdout)}
    except (ValueError, TypeError):
        ports = set()
    return chosen({("tcp", p) for p in ports} | {("udp", p) for p in USUAL_UDP})
