"""A guest that boots in three seconds: Debian's cloud kernel, busybox, GRUB, on a small qcow2 that ends with `login:`.

It is for everything that is not about cloud-init. Where there is a seed whose user-data is a shell script, it runs it and
says so in cloud-init's words; it answers ACPI's power button, serves /www on ports 22, 80 and 8080, echoes UDP on 1194,
and gives a shell on the console. `agent` in its user-data starts a small guest agent, which can be made to lie.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from hikube_local.images import build
from hikube_local.locks import locked
from tests.guests import udpecho

# In the order in which they must be loaded.
WANTED = (
    "virtio_pci",
    "virtio_net",
    "virtio_blk",
    "af_packet",
    "isofs",
    "nls_utf8",
    "button",
    "evdev",
    "virtio_console",
    "ext4",
    "efivarfs",
)
# For a generic kernel, on the hardware that the plain Windows profiles have; the cloud kernel drives none of it.
PLAIN = ("ahci", "sd_mod", "e1000e", "tpm_tis", "tpm_crb", "xhci_pci", "usbhid")
BUSYBOX = Path("/bin/busybox")
SIZE = 64 << 20
INIT = r"""#!/bin/busybox sh
export PATH=/bin
busybox mkdir -p /bin /etc /proc /sys /dev /run /mnt /www /tmp
busybox mount -t proc proc /proc
busybox --install -s /bin
mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
echo "init started: tiny"
for m in $(cat /modules/order); do insmod /modules/$m 2>/dev/null; done
ip link set lo up
for n in eth0 enp1s0; do [ -e /sys/class/net/$n ] && NIC=$n; done
cat > /lease <<'EOF'
#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev $interface
ip addr add $ip/${mask:-24} dev $interface
[ -n "$mtu" ] && ip link set dev $interface mtu $mtu
for r in $router; do ip route add default via $r dev $interface; done
: > /etc/resolv.conf
[ -n "$search" ] && echo "search $search" >> /etc/resolv.conf
for d in $dns; do echo "nameserver $d" >> /etc/resolv.conf; done
echo "udhcpc: lease of $ip obtained"
EOF
chmod +x /lease
if [ -f /payload.gz ]; then gunzip -c /payload.gz > /dev/vda; sync; echo "installer: done"; poweroff -f; fi
for e in /dev/input/event*; do [ -e $e ] && echo "power button: $e" && (head -c 24 $e >/dev/null && echo "power button pressed" && poweroff -f) & done
if [ -n "$NIC" ]; then ip link set $NIC up; udhcpc -i $NIC -s /lease -q -n -t 10 -T 1 -O search >/dev/null && echo "udhcpc: lease obtained"; fi
echo "hello from $(cat /sys/class/dmi/id/product_uuid)" > /www/index.html
udpecho &
for p in 22 80 8080; do httpd -p $p -h /www; done
for d in /dev/vd? /dev/sd?; do
  if mount -t iso9660 -o ro $d /mnt 2>/dev/null; then
    cp /mnt/* /tmp/; umount /mnt
    if head -c 2 /tmp/user-data | grep -q '#!'; then echo "Cloud-init v. 0.tiny running 'modules:final' at boot"; sh /tmp/user-data 2>&1; fi
    echo "Cloud-init v. 0.tiny finished at $(date), Up 1 seconds"
  fi
done
while :; do printf '\ntiny login: '; read -r line </dev/ttyS0 && eval "$line"; done
"""
# What of qemu-ga's protocol libvirt and hikube-local ask for; /agent-interfaces holds what it says about its NICs.
AGENT = r"""#!/bin/sh
for p in /sys/class/virtio-ports/*; do
  [ "$(cat $p/name)" = org.qemu.guest_agent.0 ] && PORT=/dev/${p##*/}
done
[ -n "$PORT" ] || exit 1
exec 3<>$PORT
field() { echo "$line" | sed "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/"; }
say() { echo "$1" >&3; }
while :; do
  # libvirt connects when the port is opened: until then, as qemu-ga knows too, a read ends at once.
  read -r line <&3 || { sleep 0.2; continue; }
  case "$line" in
    *guest-sync*) say "{\"return\": $(field id)}";;
    *guest-file-open*) file=$(field path); [ -r "$file" ] && say '{"return": 1}' || say '{"error": {"class": "GenericError", "desc": "no file"}}';;
    *guest-file-read*) text=$(base64 "$file" | tr -d '\n'); say "{\"return\": {\"count\": 1, \"buf-b64\": \"$text\", \"eof\": true}}";;
    *guest-network-get-interfaces*) say "$(cat /agent-interfaces)";;
    *guest-set-time*) echo "agent: the clock was set" >/dev/ttyS0; say '{"return": {}}';;
    *guest-get-time*) say "{\"return\": $(date +%s)000000000}";;
    *guest-info*) say '{"return": {"version": "0", "supported_commands": [{"name": "guest-set-time", "enabled": true, "success-response": true}]}}';;
    *) say '{"return": {}}';;
  esac
done
"""
# no_timer_check, as cloud images have it: on a loaded host emulation loses ticks, and the kernel panics over its timer (seen).
MENU = """serial --unit=0 --speed=115200
terminal_output serial
set timeout=0
menuentry tiny {
  linux /vmlinuz console=ttyS0,115200 panic=-1 quiet loglevel=4 no_timer_check
  initrd /initrd
}
"""


def make(debian: Path, folder: Path) -> Path:
    """The image, built from the kernel of the Debian image; kept in `folder` by the digest of its parts."""
    mark = hashlib.sha256(Path(__file__).read_bytes() + udpecho.elf() + str(debian.name).encode()).hexdigest()[:16]
    return kept(folder / f"tiny-{mark}.qcow2", lambda work, target: _make(debian, work, target))


def kept(target: Path, make: Callable[[Path, Path], None]) -> Path:
    """A guest's image that is made once: `make` is given a work folder and the target."""
    with locked(target.with_suffix(".lock")):  # two workers want it at the same time
        if target.exists():
            return target
        work = target.with_suffix(".work")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            make(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def _make(debian: Path, work: Path, target: Path) -> None:
    raw = work / "debian.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", debian, raw], check=True)
    kernel = _names(raw, "/boot", "vmlinuz-")[0].removeprefix("vmlinuz-")
    boot = work / "boot"
    (boot / "boot" / "grub").mkdir(parents=True)
    _dump(raw, f"/boot/vmlinuz-{kernel}", boot / "vmlinuz")
    modules = work / "modules"
    modules.mkdir()
    base = f"/usr/lib/modules/{kernel}" if _names(raw, "/usr/lib/modules", kernel) else f"/lib/modules/{kernel}"
    _dump(raw, f"{base}/modules.dep", work / "modules.dep")
    order = order_of((work / "modules.dep").read_text(), WANTED)
    for path in order:
        _dump(raw, f"{base}/{path}", modules / Path(path).name)
    raw.unlink()
    initrd(work, modules, [Path(p).name for p in order], boot / "initrd")
    (boot / "boot" / "grub" / "grub.cfg").write_text(MENU)
    partition = work / "partition.ext4"
    with open(partition, "wb") as f:
        f.truncate(SIZE - build.START)
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-L", "root", "-O", "^metadata_csum_seed", "-d", boot, partition], check=True
    )
    disk = work / "disk.raw"
    build._assemble(disk, partition, work, SIZE)
    done = work / "tiny.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", disk, done], check=True)
    done.rename(target)


def _debugfs(raw: Path, command: str) -> str:
    done = subprocess.run(
        ["debugfs", "-R", command, f"{raw}?offset={build.START}"], capture_output=True, text=True, check=True
    )
    return done.stdout


def _names(raw: Path, folder: str, prefix: str) -> list[str]:
    out = _debugfs(raw, f"ls -p {folder}")
    found = [line.split("/")[5] for line in out.splitlines() if line.count("/") >= 6]
    return sorted(n for n in found if n.startswith(prefix))


def _dump(raw: Path, source: str, target: Path) -> None:
    _debugfs(raw, f"dump {source} {target}")
    if not target.exists() or not target.stat().st_size:
        raise FileNotFoundError(source)


def order_of(text: str, wanted: tuple[str, ...]) -> list[str]:
    """The wanted modules of a modules.dep with what they need, each after its needs."""
    needs = {}
    for line in text.splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {Path(p).name.split(".ko")[0].replace("-", "_"): p for p in needs}
    out: list[str] = []

    def add(path: str) -> None:
        for other in needs[path]:
            add(other)
        if path not in out:
            out.append(path)

    for name in wanted:
        if name in by_name:
            add(by_name[name])
    return out


def initrd(work: Path, modules: Path, order: list[str], target: Path) -> None:
    """The guest itself, with the modules of a folder that it loads in this order."""
    tree = work / "tree"
    (tree / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, tree / "bin" / "busybox")
    shutil.copytree(modules, tree / "modules")
    for name in list(order):
        if name.endswith(".xz"):
            subprocess.run(["xz", "-d", tree / "modules" / name], check=True)
    (tree / "modules" / "order").write_text("\n".join(n.removesuffix(".xz") for n in order) + "\n")
    for path, content in (
        (tree / "init", INIT.encode()),
        (tree / "bin" / "agent", AGENT.encode()),
        (tree / "bin" / "udpecho", udpecho.elf()),
    ):
        path.write_bytes(content)
        os.chmod(path, stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    listing = subprocess.run(["find", ".", "-print0"], cwd=tree, check=True, capture_output=True).stdout
    archive = subprocess.run(
        ["cpio", "--null", "--quiet", "-o", "-H", "newc", "-R", "0:0"],
        cwd=tree,
        input=listing,
        check=True,
        capture_output=True,
    ).stdout
    packed = subprocess.run(["gzip", "-9"], input=archive, check=True, capture_output=True).stdout
    target.write_bytes(packed)
