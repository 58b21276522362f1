"""What `doctor` can say about the tenants' own network."""

from __future__ import annotations

from hikube_local.host import network
from hikube_local.host.check import HostCheck
from hikube_local.render.addresses import Range, choose_octet
from hikube_local.store.db import Store


def address_range(store: Store) -> HostCheck:
    """The tenants' range against the host's routes as they are now (a VPN may have come since)."""
    kept = store.allocation("network").get("octet")
    try:
        free = choose_octet(network.routes(), kept)
    except ValueError as e:
        return HostCheck(
            "address range", False, str(e), "remove a route to one of 10.77.0.0/16 to 10.99.0.0/16", needed=False
        )
    if kept is not None and free != kept:
        detail = (
            f"the host now has a route to the tenants' range {Range(kept).supernet}: machines cannot reach hosts there"
        )
        return HostCheck(
            "address range", False, detail, "hikube-local down -A, then up: another range is taken", needed=False
        )
    return HostCheck("address range", True, f"{Range(free).supernet} is free of the host's routes", needed=False)
