"""The host's own network, as far as we must not clash with it."""

from __future__ import annotations

import json
from pathlib import Path

from hikube_local.errors import HikubeError
from hikube_local.run import run


def routes() -> list[str]:
    """Every IPv4 network that the host routes or sits in, of all its tables (VPNs have their own)."""
    done = run(["ip", "-j", "-4", "route", "show", "table", "all"], check=False, timeout=10)
    try:
        rows = json.loads(done.stdout or b"[]")
    except ValueError:
        rows = []
    return [str(r["dst"]) for r in rows if isinstance(r, dict) and r.get("dst") not in (None, "default")]


def has_ipv6() -> bool:
    """Whether the host has an IPv6 address of more than link scope (Linux: /proc/net/if_inet6)."""
    try:
        rows = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    except OSError:
        return False
    return any(r[3] == "00" and r[5] != "lo" for r in rows if len(r) == 6)


def bridge(name: str) -> Path:
    """The bridge's folder in /sys, or HK811."""
    folder = Path("/sys/class/net") / name
    if "/" in name or name.startswith(".") or not (folder / "bridge").is_dir():
        found = sorted(p.parent.name for p in Path("/sys/class/net").glob("*/bridge"))
        fix = f"bridges here: {', '.join(found)}" if found else f"sudo ip link add {name} type bridge makes one"
        raise HikubeError("HK811", f"this host has no bridge {name!r}", fix=fix)
    return folder
