"""Whose a machine's QEMU is, as root: a user of its own, so that one that was broken out of reads no other's disks."""

from __future__ import annotations

import hashlib
import os
import struct
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path

from hikube_local.host.qemu_ids import Ids, shared

_ACL = "system.posix_acl_access"
# Ids that no user, container or service has: systemd's UIDS-GIDS.md gives those up to 1879048191 to containers,
# and leaves these to 2147352575 alone.
FIRST, COUNT = 0x70000000, 0x0FFE0000


def of_machine(root: str, uuid: str, few: bool) -> Ids:
    """The ids of one machine: its user follows from its state root and its UUID, its group opens /dev/kvm.

    `few`: this host has no such ids.
    """
    user, group = shared()
    if few:
        return user, group
    return FIRST + int.from_bytes(hashlib.sha256(f"{root}/{uuid}".encode()).digest()[:8]) % COUNT, group


def may_enter(folder: Path, user: int) -> None:
    """Let one more user pass through a folder that libvirt keeps at 0770: an access list outlives its chmod (acl(5)).

    The form of the attribute is the kernel's (linux/posix_acl_xattr.h): a version, then tag, permissions and id of each entry.
    """
    entry, nobody = struct.Struct("<HHI"), 0xFFFFFFFF
    try:
        raw = os.getxattr(folder, _ACL)
        entries = {
            entry.unpack_from(raw, at)[::2]: entry.unpack_from(raw, at)[1] for at in range(4, len(raw), entry.size)
        }
    except OSError:
        entries = {(0x01, nobody): 7, (0x04, nobody): 7, (0x10, nobody): 7, (0x20, nobody): 0}
    entries[0x02, user] = 1
    rows = (entry.pack(tag, permissions, who) for (tag, who), permissions in sorted(entries.items()))
    os.setxattr(folder, _ACL, struct.pack("<I", 2) + b"".join(rows))


def few(uid_map: str = "/proc/self/uid_map") -> bool:
    """Whether root here is a container's that was given a part of the host's ids only."""
    with suppress(OSError, ValueError):
        for line in Path(uid_map).read_text().splitlines():
            first, _, count = map(int, line.split())
            if first <= FIRST and first + count >= FIRST + COUNT:
                return False
    return True


def is_ours(uid: int) -> bool:
    """Whether a process of this user may be a QEMU of ours."""
    return uid == shared()[0] or FIRST <= uid < FIRST + COUNT


def in_xml(xml: str) -> Ids | None:
    """The ids that a domain runs as, or None where it has no word of it (an earlier version's, or a user's)."""
    label = ET.fromstring(xml).findtext("seclabel[@model='dac']/label")
    with suppress(ValueError, AttributeError):
        user, group = (int(part.lstrip("+")) for part in (label or "").split(":"))
        return user, group
    return None
