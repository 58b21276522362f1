"""EFI variables and TPM of a machine: kept with its state, begun anew where its profile says so or its firmware changed.

A kept variable store silently defeats a changed secure-boot setting, so what it was made for is noted beside it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hikube_local import files
from hikube_local.catalogue.data import Profile
from hikube_local.host.doctor import path_of
from hikube_local.paths import Layout
from hikube_local.render.machine import VARIABLES

MARK = "firmware.json"
DESCRIPTORS = Path("/usr/share/qemu/firmware")


def tpm_folder(layout: Layout) -> Path:
    """Where libvirt keeps TPMs, by machine UUID: ours, since its own lies in a folder that a reboot empties."""
    return layout.state / "tpm"


def prepare(layout: Layout, folder: Path, profile: Profile, uuid: str, lv: Any) -> int:
    """Before a start: the flags for it."""
    if profile.tpm and not profile.tpm.get("persistent"):
        forget_tpm(layout, uuid)
    if profile.firmware != "efi":
        return 0
    if not (folder / VARIABLES).exists():
        note(folder, profile)  # they are made by this start
        return 0
    if profile.efi_persistent and files.read_json(folder / MARK) == _choice(profile):
        return 0
    (folder / MARK).unlink(missing_ok=True)
    return int(lv.VIR_DOMAIN_START_RESET_NVRAM)


def note(folder: Path, profile: Profile) -> None:
    """After a start: what its variables were made for."""
    if profile.firmware == "efi" and files.read_json(folder / MARK) != _choice(profile):
        files.write_json(folder / MARK, _choice(profile))


def _choice(profile: Profile) -> dict[str, bool]:
    return {"secureBoot": profile.secure_boot}


def move_tpm(layout: Layout, old: str, new: str) -> None:
    """A new seed gives a new UUID; the machine keeps its TPM."""
    source, target = tpm_folder(layout) / old, tpm_folder(layout) / new
    if source.is_dir() and not target.exists():
        source.rename(target)


def forget_tpm(layout: Layout, uuid: str) -> None:
    """With its machine its TPM goes; libvirt keeps a persistent one."""
    shutil.rmtree(tpm_folder(layout) / uuid, ignore_errors=True)


def missing(profile: Profile) -> list[str]:
    """The packages that this host lacks for the profile's firmware."""
    found = []
    if profile.firmware == "efi" and not any(DESCRIPTORS.glob("*.json")):
        found.append("ovmf")
    if profile.tpm and not path_of("swtpm"):
        found += ["swtpm", "swtpm-tools"]
    return found
