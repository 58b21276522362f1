"""What a running machine uses."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from hikube_local.backends.capabilities import Counters


def counters(dom: Any) -> Counters:
    """Since it was started, as libvirt counts."""
    read = written = received = sent = 0
    root = ET.fromstring(dom.XMLDesc(0))
    for target in root.iterfind("devices/disk/target"):
        stats = dom.blockStats(target.get("dev"))
        read, written = read + stats[1], written + stats[3]
    for target in root.iterfind("devices/interface/target"):
        stats = dom.interfaceStats(target.get("dev"))
        received, sent = received + stats[0], sent + stats[4]  # the guest's side of the tap
    return Counters(dom.info()[4], dom.memoryStats().get("rss", 0) * 1024, read, written, received, sent)
