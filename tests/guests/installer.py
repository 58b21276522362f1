"""An ISO that installs the tiny guest on the first disk and powers off, as an installer does; made from the tiny image.

The cloud kernel cannot read a SATA CD-ROM, so what is installed travels in the initrd, which GRUB reads through the BIOS.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
from pathlib import Path

import pycdlib

from hikube_local.images import build
from tests.guests.tiny import _dump

MODULES = ["biosdisk", "iso9660", "linux", "serial", "terminal", "boot"]
COMMANDS = """serial --unit=0 --speed=115200
terminal_output serial
linux /kernel.bin console=ttyS0,115200 panic=-1 quiet loglevel=4
initrd /initrd.bin
boot
"""


def make(tiny: Path, folder: Path) -> Path:
    """The ISO; kept in `folder` by the tiny image's name."""
    mark = hashlib.sha256(Path(__file__).read_bytes() + tiny.name.encode()).hexdigest()[:16]
    target = folder / f"installer-{mark}.iso"
    if target.exists():
        return target
    work = folder / f"installer-{mark}.work"
    work.mkdir(parents=True, exist_ok=True)
    raw = work / "tiny.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", tiny, raw], check=True)
    for name in ("vmlinuz", "initrd"):
        _dump(raw, f"/{name}", work / name)
    (work / "payload.gz").write_bytes(gzip.compress(raw.read_bytes(), 6))
    archive = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc"], input=b"payload.gz\n", cwd=work, stdout=subprocess.PIPE, check=True
    ).stdout
    initrd = (work / "initrd").read_bytes()
    initrd += bytes(-len(initrd) % 4) + archive
    commands = work / "early.cfg"
    commands.write_text(COMMANDS)
    core = work / "core.img"
    subprocess.run(
        ["grub-mkimage", "-O", "i386-pc-eltorito", "-d", build.GRUB, "-c", commands, "-p", "/", "-o", core, *MODULES],
        check=True,
    )
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident="INSTALLER")
    for name, content in (
        ("/KERNEL.BIN;1", (work / "vmlinuz").read_bytes()),
        ("/INITRD.BIN;1", initrd),
        ("/CORE.IMG;1", core.read_bytes()),
    ):
        iso.add_fp(io.BytesIO(content), len(content), name)
    iso.add_eltorito("/CORE.IMG;1", bootcatfile="/BOOT.CAT;1", boot_load_size=4, boot_info_table=True)
    iso.write(str(work / "done.iso"))
    iso.close()
    os.rename(work / "done.iso", target)
    for path in work.iterdir():
        path.unlink()
    work.rmdir()
    return target
