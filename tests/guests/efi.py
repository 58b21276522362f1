"""The tiny guest for EFI: Debian's signed shim, GRUB and cloud kernel on an EFI system partition; or an unsigned loader.

Its NIC and disk are virtio: Debian's cloud kernel drives neither SATA nor e1000e.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from tests.guests import tiny

SIGNED = ("shim-signed", "grub-efi-amd64-signed")
SIZE = 96 << 20
START = 1 << 20
CONFIG = """search --no-floppy --file --set=root /vmlinuz
linux /vmlinuz console=ttyS0,115200 panic=-1 loglevel=4
initrd /initrd
boot
"""


def make(tiny_image: Path, folder: Path, signed: bool = True) -> Path:
    """The image, kept in `folder` by what it is made of."""
    mark = hashlib.sha256(Path(__file__).read_bytes() + tiny_image.name.encode()).hexdigest()[:16]
    target = folder / f"efi-{'signed' if signed else 'unsigned'}-{mark}.qcow2"
    return tiny.kept(target, lambda work, target: _make(tiny_image, work, target, signed))


def _make(tiny_image: Path, work: Path, target: Path, signed: bool) -> None:
    raw = work / "tiny.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", tiny_image, raw], check=True)
    files = {"vmlinuz": work / "vmlinuz", "initrd": work / "initrd", "EFI/debian/grub.cfg": work / "grub.cfg"}
    for name in ("vmlinuz", "initrd"):
        tiny._dump(raw, f"/{name}", files[name])
    files["EFI/debian/grub.cfg"].write_text(CONFIG)
    files |= _signed(work) if signed else _unsigned(work)
    esp = work / "esp.img"
    with open(esp, "wb") as f:
        f.truncate(SIZE - START - (1 << 20))
    subprocess.run(["/usr/sbin/mkfs.vfat", "-F", "32", "-n", "ESP", esp], check=True, capture_output=True)
    for folder in ("EFI", "EFI/BOOT", "EFI/debian"):
        subprocess.run(["mmd", "-i", esp, f"::{folder}"], check=True)
    for name, path in files.items():
        subprocess.run(["mcopy", "-i", esp, path, f"::{name}"], check=True)
    disk = work / "disk.raw"
    with open(disk, "wb") as f:
        f.truncate(SIZE)
    table = f"label: gpt\nstart={START // 512}, size={(SIZE - START - (1 << 20)) // 512}, type=uefi\n"
    subprocess.run(["/usr/sbin/sfdisk", "-q", disk], input=table, text=True, check=True)
    with open(disk, "r+b") as f:
        f.seek(START)
        f.write(esp.read_bytes())
    done = work / "done.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", disk, done], check=True)
    done.rename(target)


def _signed(work: Path) -> dict[str, Path]:
    # Downloaded and unpacked, not installed: the packages would make this machine's own boot loader another one.
    subprocess.run(["apt-get", "download", "-qq", *SIGNED], cwd=work, check=True)
    for package in work.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, work / "tree"], check=True)
    lib = work / "tree" / "usr" / "lib"
    return {
        "EFI/BOOT/BOOTX64.EFI": lib / "shim" / "shimx64.efi.signed",
        "EFI/BOOT/grubx64.efi": lib / "grub" / "x86_64-efi-signed" / "grubx64.efi.signed",
    }


def _unsigned(work: Path) -> dict[str, Path]:
    loader = work / "grub.efi"
    modules = ["part_gpt", "fat", "linux", "search", "normal", "serial", "terminal"]
    subprocess.run(["grub-mkimage", "-O", "x86_64-efi", "-p", "/EFI/debian", "-o", loader, *modules], check=True)
    return {"EFI/BOOT/BOOTX64.EFI": loader}
