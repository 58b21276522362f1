"""The host's own network, as far as we must not clash with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hikube_local.errors import HikubeError
from hikube_local.run import run


def routes() -> list[str]:
    """Every IPv4 network that the host routes or sits in, of all its tables (VPNs have their own)."""
    rows = _rows("-4", "route", "show", "table", "all")
    return [str(r["dst"]) for r in rows if r.get("dst") not in (None, "default")]


def _rows(*words: str) -> list[dict[str, Any]]:
    """What `ip -j WORDS` answers; nothing where it does not, or is not installed (`doctor` says so)."""
    try:
        found = json.loads(run(["ip", "-j", *words], check=False, timeout=10).stdout or b"[]")
    except (ValueError, HikubeError):
        return []
    return [r for r in found if isinstance(r, dict)] if isinstance(found, list) else []


def addresses() -> list[tuple[str, str]]:
    """(address, interface) of the host's own IPv4 addresses."""
    return [
        (str(a["local"]), str(r.get("ifname", "")))
        for r in _rows("-4", "addr", "show")
        for a in r.get("addr_info", [])
        if isinstance(a, dict) and "local" in a
    ]


def gateways() -> set[str]:
    """The routers that the host's routes name."""
    return {str(r["gateway"]) for r in _rows("-4", "route", "show", "table", "all") if "gateway" in r}


def neighbours(interface: str) -> list[tuple[str, str]]:
    """(address, MAC) of the host's neighbour table; the MAC is empty where it is not known."""
    rows = _rows("-4", "neigh", "show", "dev", interface)
    return [(str(r["dst"]), str(r.get("lladdr", "")).lower()) for r in rows if "dst" in r]


def has_ipv6() -> bool:
    """Whether the host has an IPv6 address of more than link scope (Linux: /proc/net/if_inet6)."""
    try:
        rows = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    except OSError:
        return False
    return any(r[3] == "00" and r[5] != "lo" for r in rows if len(r) == 6)


def machine_id() -> str:
    """What names this host and no other one (machine-id(5)); empty where there is none."""
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError:
        return ""


def links(kind: str = "") -> dict[str, int]:
    """{interface: MTU} of the host, of one kind (`bridge`) or all. /sys may show another namespace's, `ip` does not."""
    rows = _rows("link", "show", *(["type", kind] if kind else []))
    return {r["ifname"]: r.get("mtu", 1500) for r in rows if "ifname" in r}


def bridge(name: str) -> int:
    """The MTU of a bridge of the host's, or HK811."""
    found = links("bridge")
    if name not in found:
        here = (
            f"bridges here: {', '.join(sorted(found))}" if found else f"sudo ip link add {name} type bridge makes one"
        )
        raise HikubeError("HK811", f"this host has no bridge {name!r}", fix=here)
    return found[name]
