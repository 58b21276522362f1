"""What this version does not carry yet: refused in words, before anything is changed."""

from __future__ import annotations

from hikube_local.api.objects import DISK, Object
from hikube_local.errors import HikubeError
from hikube_local.render import machine


def refuse(obj: Object) -> None:
    """HK802 or HK707 for an object that cannot be carried yet."""
    if obj.kind == DISK:
        return
    spec = obj.instance
    if machine.profile_of(spec).firmware == "efi":
        raise HikubeError(
            "HK802",
            f"{obj.ref}: profile {spec.instanceProfile} wants EFI firmware, which this version does not start yet",
            fix="choose a BIOS profile (hikube-local catalog profiles); validate and render take it",
        )
