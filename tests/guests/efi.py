"""The tiny guest for EFI, on an EFI system partition, in three kinds.

`signed`: Debian's signed shim, GRUB and cloud kernel, which drives neither SATA nor e1000e; `generic`: the same with the
generic kernel, which does; `unsigned`: a GRUB that nobody signed.
"""

from __future__ import annotations

import hashlib
import shutil
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


def make(tiny_image: Path, folder: Path, kind: str = "signed") -> Path:
    """The image, kept in `folder` by what it is made of."""
    mark = hashlib.sha256(Path(__file__).read_bytes() + tiny_image.name.encode()).hexdigest()[:16]
    target = folder / f"efi-{kind}-{mark}.qcow2"
    return tiny.kept(target, lambda work, target: _make(tiny_image, work, target, kind))


def _make(tiny_image: Path, work: Path, target: Path, kind: str) -> None:
    raw = work / "tiny.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", tiny_image, raw], check=True)
    files = {"vmlinuz": work / "vmlinuz", "initrd": work / "initrd", "EFI/debian/grub.cfg": work / "grub.cfg"}
    if kind == "generic":
        _generic(work, files["vmlinuz"], files["initrd"])
    else:
        for name in ("vmlinuz", "initrd"):
            tiny._dump(raw, f"/{name}", files[name])
    files["EFI/debian/grub.cfg"].write_text(CONFIG)
    files |= _unsigned(work) if kind == "unsigned" else _signed(work)
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


def _unpacked(work: Path, name: str, *packages: str) -> Path:
    """Packages downloaded and unpacked, not installed: they would make this machine's own boot another one."""
    folder = work / name
    folder.mkdir()
    subprocess.run(["apt-get", "download", "-qq", *packages], cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder / "tree"], check=True)
    return folder / "tree"


def _generic(work: Path, kernel: Path, initrd: Path) -> None:
    about = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, check=True)
    package = about.stdout.split("Depends:")[1].split()[0]
    tree = _unpacked(work, "kernel", package)
    version = package.removeprefix("linux-image-")
    shutil.copy(tree / "boot" / f"vmlinuz-{version}", kernel)
    if not (tree / "lib").exists():  # Debian 13's packages say /usr/lib
        (tree / "lib").symlink_to("usr/lib")
    subprocess.run([tiny.BUSYBOX, "depmod", "-b", tree, version], check=True)
    base = tree / "lib" / "modules" / version
    order = tiny.order_of((base / "modules.dep").read_text(), (*tiny.WANTED, *tiny.PLAIN))
    modules = work / "chosen"
    modules.mkdir()
    for path in order:
        shutil.copy(base / path, modules)
    tiny.initrd(work, modules, [Path(p).name for p in order], initrd)


def _signed(work: Path) -> dict[str, Path]:
    lib = _unpacked(work, "loaders", *SIGNED) / "usr" / "lib"
    return {
        "EFI/BOOT/BOOTX64.EFI": lib / "shim" / "shimx64.efi.signed",
        "EFI/BOOT/grubx64.efi": lib / "grub" / "x86_64-efi-signed" / "grubx64.efi.signed",
    }


def _unsigned(work: Path) -> dict[str, Path]:
    loader = work / "grub.efi"
    modules = ["part_gpt", "fat", "linux", "search", "normal", "serial", "terminal"]
    subprocess.run(["grub-mkimage", "-O", "x86_64-efi", "-p", "/EFI/debian", "-o", loader, *modules], check=True)
    return {"EFI/BOOT/BOOTX64.EFI": loader}
