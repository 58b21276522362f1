"""The user and group of a QEMU that root starts: never root, and a group that opens /dev/kvm.

pwd and grp are loaded by who needs them: Windows, where commands may act elsewhere, has none.
"""

from __future__ import annotations

import os
from contextlib import suppress

Ids = tuple[int, int]
DEBIAN_QEMU_ID = 64055  # libvirt-qemu, when the package that makes that user is not installed


def shared(device: str = "/dev/kvm") -> Ids:
    """User and group of whatever QEMU is no machine's: libvirt's own trials, and of every one where ids are few.

    The group is the one that the device has, whatever its name or number: in a container it is the host's.
    """
    import pwd

    for name in ("libvirt-qemu", "qemu"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return user.pw_uid, _opens(device, user.pw_gid)
    return DEBIAN_QEMU_ID, _opens(device, DEBIAN_QEMU_ID)


def name_of(uid: int) -> str:
    """The user's name, for a program that takes no number."""
    import pwd

    return pwd.getpwuid(uid).pw_name


def _opens(device: str, otherwise: int) -> int:
    """The group that may open the device, else the one named kvm, else `otherwise`; never root's own."""
    with suppress(OSError):
        st = os.stat(device)
        if st.st_gid and st.st_mode & 0o060 == 0o060:
            return st.st_gid
    import grp

    with suppress(KeyError):
        return grp.getgrnam("kvm").gr_gid
    return otherwise
