"""What running machines use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hikube_local.api import names
from hikube_local.api.objects import Key, Object
from hikube_local.backends.capabilities import Figures
from hikube_local.backends.qemu import libvirt


def figures(connection: Any, objects: Sequence[Object]) -> dict[Key, Figures]:
    """Of those that run, in one call of libvirt's, which asks no guest and waits for no machine that is busy."""
    lv = libvirt.module()
    wanted = (
        lv.VIR_DOMAIN_STATS_STATE
        | lv.VIR_DOMAIN_STATS_CPU_TOTAL
        | lv.VIR_DOMAIN_STATS_BALLOON
        | lv.VIR_DOMAIN_STATS_VCPU
        | lv.VIR_DOMAIN_STATS_INTERFACE
        | lv.VIR_DOMAIN_STATS_BLOCK
    )
    flags = lv.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | lv.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    try:
        found = {dom.name(): stats for dom, stats in connection.getAllDomainStats(wanted, flags)}
    except lv.libvirtError as e:
        raise libvirt.translated(e, "what the machines use cannot be counted") from None
    ours = {o.key: names.domain(o.namespace, o.name) for o in objects}
    return {key: found[name] for key, name in ours.items() if name in found}
