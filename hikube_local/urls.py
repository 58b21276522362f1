"""What the host of a URL is, by its spelling alone: nothing is resolved, nothing is asked."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def _host(name: str | None) -> str:
    return (name or "").rstrip(".").lower()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is written as, also in the forms that resolvers take (127.1, 0x7f000001); an IPv4 one in an
    IPv6 one is that."""
    import socket

    found: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        found = ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        try:
            found = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return None
    return getattr(found, "ipv4_mapped", None) or found


def _is_local_name(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def is_link_local(name: str) -> bool:
    """Whether a host is in 169.254.0.0/16 or fe80::/10, where clouds hand out credentials."""
    found = _address(_host(name))
    return found is not None and found.is_link_local


def is_this_host(url: str) -> bool:
    """Whether a URL names the host that it is fetched on."""
    try:
        host = _host(urlsplit(url).hostname)
    except ValueError:
        return False
    found = _address(host)
    return _is_local_name(host) or (found is not None and (found.is_loopback or found.is_unspecified))


def is_inner(name: str | None) -> bool:
    """Whether a host is this one or of this network, or none at all."""
    host = _host(name)
    found = _address(host)
    return not host or _is_local_name(host) or (found is not None and not found.is_global)
