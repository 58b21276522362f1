"""A bridge of the host's, continued inside the sandbox by a veth pair: a machine on it is a neighbour of the whole LAN.

On the host there is that one end of a pair and nothing else; what may pass stands in the sandbox's own firewall.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable

from hikube_local.backends.qemu.network.namespace import Namespace, add_bridge
from hikube_local.host import network
from hikube_local.render.firewall import LAN_PREFIX
from hikube_local.run import run

OUTER, INNER = "hkv", "hkw"


class Lan:
    """The host's bridges that machines of one state root sit on. Root only."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    def _tag(self, bridge: str) -> str:
        root = hashlib.sha256(self.namespace.layout.id.encode()).hexdigest()[:5]
        return root + hashlib.sha256(bridge.encode()).hexdigest()[:6]

    def inside(self, bridge: str) -> str:
        """The bridge in the sandbox that machines' taps are ports of."""
        return LAN_PREFIX + self._tag(bridge)

    def ensure(self, pid: int, bridge: str) -> str:
        """Bring up the pair; hands back the bridge inside."""
        mtu = network.bridge(bridge)
        tag = self._tag(bridge)
        outer, inner, inside = OUTER + tag, INNER + tag, LAN_PREFIX + tag
        inside_links = self.namespace.batch(pid, [{"run": ["ip", "-br", "link"]}])[0]
        there = outer in network.links()
        if there and f"{inner}@" not in inside_links:
            run(["ip", "link", "del", outer])  # its other end went with another namespace
            there = False
        if not there:
            # A high MAC: a bridge takes the lowest of its ports for its own.
            mac = "fe:" + ":".join(tag[i : i + 2] for i in range(0, 10, 2))
            words = ["ip", "link", "add", outer, "address", mac, "mtu", str(mtu)]
            run([*words, "type", "veth", "peer", "name", inner, "netns", str(pid)])
        run(["ip", "link", "set", outer, "master", bridge, "up"])
        self.namespace.batch(
            pid,
            [
                add_bridge(inside),
                # No address of ours on somebody's LAN, not even a link-local one.
                {"write": f"/proc/sys/net/ipv6/conf/{inside}/disable_ipv6", "text": "1", "may_fail": True},
                {"write": f"/proc/sys/net/ipv6/conf/{inner}/disable_ipv6", "text": "1", "may_fail": True},
                {"run": ["ip", "link", "set", inner, "master", inside, "up"]},
                {"run": ["ip", "link", "set", inside, "up"]},
            ],
        )
        return inside

    def drop(self, pid: int | None, bridge: str) -> None:
        """Nobody of ours sits there any more."""
        run(["ip", "link", "del", OUTER + self._tag(bridge)], check=False)
        if pid is not None:
            self.namespace.batch(pid, [{"run": ["ip", "link", "del", self.inside(bridge)], "may_fail": True}])

    def drop_all(self) -> None:
        root = self._tag("")[:5]
        for name in network.links():
            if name.startswith(OUTER + root):
                run(["ip", "link", "del", name], check=False)

    def taken(self, bridge: str, mac: str) -> set[str]:
        """IPv4 addresses that cannot be the machine's with this MAC: the host's own, its routers', and those of neighbours
        that answer under another MAC. A guest may claim any of them."""
        found = {a for a, _ in network.addresses()} | network.gateways()
        return found | {ip for ip, who in network.neighbours(bridge) if who and who != mac}

    def seen(self, pid: int, bridge: str, mac: str) -> list[str]:
        """IPv4 addresses that were seen with this MAC: on its own wire, newest first, then in the host's neighbour table."""
        out = self.namespace.batch(
            pid, [{"run": ["nft", "-j", "list", "set", "bridge", "hikube", "learned"], "may_fail": True}]
        )[0]
        rows = []
        try:
            for item in json.loads(out)["nftables"]:
                for e in item.get("set", {}).get("elem", []):
                    value = e["elem"]
                    rows.append((value.get("expires", 0), value["val"]["concat"]))
        except (ValueError, KeyError, TypeError):
            rows = []
        found = [ip for _, (who, ip) in sorted(rows, key=lambda r: -r[0]) if who == mac]
        return found + [ip for ip, who in network.neighbours(bridge) if who == mac]


def believable(addresses: Iterable[str], others: Iterable[str]) -> str:
    """The first address that can be a machine's own: what a guest or its wire says is never trusted as it is."""
    taken = set(others)
    for text in addresses:
        try:
            ip = ipaddress.IPv4Address(text)
        except ValueError:
            continue
        odd = ip.is_loopback or ip.is_multicast or ip.is_unspecified or ip.is_link_local or ip.is_reserved
        if not odd and str(ip) not in taken:
            return str(ip)
    return ""
