"""The nested host: built once from Debian's packages and Python's wheels, booted on an overlay, entered with ssh.

QEMU's emulation offers AMD's SVM with nested paging, so /dev/kvm works in its guest. One vCPU, and QEMU 10 from the
host's own tree: with two vCPUs or with QEMU 7.2 the emulated host resets itself or hangs (seen). A guest in SMM under its KVM (secure
boot) ends QEMU 10 itself ("tcg_handle_interrupt: assertion failed: (bql_locked())", seen): SMM is tried emulated alone.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from packaging.markers import Marker

from tests.conftest import ROOT
from tests.e2e.conftest import KEPT
from tests.growth import patience
from tests.guests.tiny import kept

SUITE, PYTHON = "trixie", "3.13"
MIRROR = "http://deb.debian.org/debian"
# Beside what the Makefile installs: a kernel with kvm_amd, and what a person's machine has.
SYSTEM = (
    "linux-image-amd64,systemd-sysv,udev,dbus-user-session,libpam-systemd,systemd-resolved,openssh-server,sudo,git,make,"
    "python3-venv,python3-pip,apparmor,kmod,procps,iputils-ping,ca-certificates,acl"
)
USER, UID = "dev", 1000
SIZE = "14G"
# mitigations and the watchdog cost an emulated host time; SVM's further features are not emulated whole.
COMMAND_LINE = (
    "root=/dev/vda console=ttyS0 rw mitigations=off nokaslr nowatchdog kvm_amd.vgif=0 kvm_amd.vls=0 kvm_amd.nested=0 "
    "kvm_amd.avic=0 kvm.enable_pmu=0 kvm.ignore_msrs=1 "
    # Loading all profiles takes minutes under emulation; the case about AppArmor loads the one that it needs.
    "systemd.mask=apparmor.service systemd.mask=man-db.timer systemd.mask=dpkg-db-backup.timer"
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_5_x86_64")

NETWORK = "[Match]\nName=en*\n[Network]\nDHCP=yes\n"
PIP = "[global]\nno-index = true\nfind-links = /opt/wheels\n"


def packages() -> list[str]:
    """Everything that the Makefile would install: the host needs no network then."""
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    rows = re.findall(r"(?m)^(?:TEST_)?PACKAGES := (.*)$", text)
    return sorted({*SYSTEM.split(","), *" ".join(rows).split()})


def digest() -> str:
    made_by = "".join(map(inspect.getsource, (_make, _furnish, _for_its_python)))
    parts = [made_by, (ROOT / ".ci" / "requirements.txt").read_text(), *packages(), SUITE, PYTHON, SIZE, PIP, NETWORK]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def build() -> Path:
    """The folder of the host: disk.img, vmlinuz, initrd, key, and tree/ for its QEMU. Made once for what goes in."""
    folder = KEPT / "test-hosts"
    folder.mkdir(parents=True, exist_ok=True)
    made = kept(folder / digest(), _make)
    for other in folder.iterdir():  # those of other packages are not needed again
        if other.is_dir() and other != made and not other.name.endswith(".work"):
            shutil.rmtree(other, ignore_errors=True)
    return made


def _make(work: Path, target: Path) -> None:
    out = work / "host"
    out.mkdir()
    print(f"nested host: {len(packages())} packages of Debian {SUITE} and what they need", flush=True)
    tar = work / "tree.tar"
    argv = ["mmdebstrap", "--variant=minbase", "--format=tar", "--quiet", '--aptopt=Acquire::Languages "none"']
    argv += [f"--include={','.join(packages())}", SUITE, str(tar), f"deb {MIRROR} {SUITE} main"]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    tree = out / "tree"
    tree.mkdir()
    subprocess.run(["tar", "-xf", tar, "-C", tree, "--numeric-owner", "--exclude=./dev/*"], check=True)
    tar.unlink()
    print("nested host: Python's packages", flush=True)
    wheels = tree / "opt" / "wheels"
    wheels.mkdir(parents=True)
    lock = work / "requirements.txt"
    lock.write_text(_for_its_python((ROOT / ".ci" / "requirements.txt").read_text()))
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "-r", str(lock), "--no-deps"]
    argv += ["--python-version", PYTHON, "--only-binary=:all:", *(w for p in PLATFORMS for w in ("--platform", p))]
    subprocess.run([*argv, "-d", wheels], check=True, stderr=subprocess.DEVNULL)
    _furnish(tree, out / "key")
    for name, link in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        shutil.copy(sorted((tree / "boot").glob(link))[-1], out / name)
    with open(out / "disk.img", "wb") as f:
        f.truncate(int(SIZE.removesuffix("G")) << 30)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-L", "host", "-d", tree, out / "disk.img"], check=True)
    out.rename(target)


def _for_its_python(lock: str) -> str:
    """The lock without markers, which pip would judge by the Python that runs it."""
    environment = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.5"}

    def row(match: re.Match[str]) -> str:
        wanted = Marker(match[2]).evaluate(environment)
        return match[1] + match[3] if wanted else ""

    return re.sub(r"(?m)^([a-z0-9][^ ;\n]*) ; ([^\\\n]+)( \\\n(?: +.*\n?)+)", row, lock)


def _furnish(tree: Path, key: Path) -> None:
    """A user with sudo, ssh, a network by DHCP: what an installer would have asked for."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = key.with_suffix(".pub").read_text()
    files = {
        "etc/hostname": "nested\n",
        "etc/hosts": "127.0.0.1 localhost nested\n",
        "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
        "etc/systemd/network/10.network": NETWORK,
        "etc/pip.conf": PIP,
        "etc/sudoers.d/dev": f"{USER} ALL=(ALL) NOPASSWD: ALL\n",
        "etc/machine-id": "",
        "root/.ssh/authorized_keys": public,
        f"home/{USER}/.ssh/authorized_keys": public,
    }
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
    os.chmod(tree / "etc/sudoers.d/dev", 0o440)
    inside = ["chroot", str(tree)]
    subprocess.run(
        [*inside, "useradd", "-m", "-u", str(UID), "-s", "/bin/bash", "-G", "sudo,kvm", USER],
        check=True,
        capture_output=True,
    )
    subprocess.run([*inside, "chown", "-R", f"{USER}:{USER}", f"/home/{USER}"], check=True)
    subprocess.run(
        [*inside, "systemctl", "enable", "--quiet", "systemd-networkd", "ssh"], check=True, capture_output=True
    )
    subprocess.run([*inside, "systemctl", "mask", "--quiet", "apt-daily.timer", "apt-daily-upgrade.timer"], check=False)


class Nested:
    """The host while it runs. `payload`: a folder that it finds at /payload."""

    def __init__(self, payload: Path, artefacts: Path) -> None:
        self.folder = build()
        self.artefacts = artefacts
        self.work = Path(tempfile.mkdtemp(prefix="nested-", dir="/var/tmp"))
        self.port = _free_port()
        self._make_disks(payload)
        self.process: subprocess.Popen[bytes] | None = None

    def _make_disks(self, payload: Path) -> None:
        base, overlay = self.folder / "disk.img", self.work / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay], check=True)
        need = sum(p.stat().st_size for p in payload.rglob("*") if p.is_file())
        with open(self.work / "payload.img", "wb") as f:
            f.truncate((need * 5 // 4 + (64 << 20)) >> 12 << 12)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-d", payload, self.work / "payload.img"], check=True)

    def boot(self) -> None:
        """Until ssh answers."""
        root = self.folder / "tree"
        # Its own QEMU, in its own tree: bound into a mount namespace, so that nothing is left when it ends.
        script = (
            'for d in dev proc; do mount --rbind /$d "$0/$d"; done; mkdir -p "$0/mnt/work" "$0/mnt/base"; '
            'mount --bind "$1" "$0/mnt/work"; mkdir -p "$0$2"; mount --bind "$2" "$0$2"; shift 2; exec chroot "$0" "$@"'
        )
        argv = [
            "qemu-system-x86_64",
            "-accel",
            "tcg,thread=multi,tb-size=1024",
            "-cpu",
            "max",
            "-smp",
            "1",
            "-m",
            "6144",
        ]
        argv += ["-kernel", f"{self.folder}/vmlinuz", "-initrd", f"{self.folder}/initrd", "-append", COMMAND_LINE]
        argv += ["-drive", "file=/mnt/work/disk.qcow2,if=virtio,cache=unsafe"]
        argv += ["-drive", "file=/mnt/work/payload.img,if=virtio,format=raw,cache=unsafe"]
        argv += ["-netdev", f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"]
        argv += ["-device", "virtio-net-pci,netdev=n", "-device", "virtio-rng-pci", "-display", "none", "-nodefaults"]
        argv += ["-serial", "file:/mnt/work/console.log"]
        apart = ["unshare", "-m", "--propagation", "private", "sh", "-ec", script]
        with open(self.work / "qemu.log", "ab") as out:
            self.process = subprocess.Popen(
                [*apart, root, self.work, self.folder, *argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        self.wait()
        self.ssh("mkdir -p /payload && mount -o ro /dev/vdb /payload", user="root")

    def wait(self) -> None:
        deadline = time.monotonic() + patience(300)
        while self.ssh("true", check=False).returncode:
            assert self.process and self.process.poll() is None, (self.work / "qemu.log").read_text()[-2000:]
            assert time.monotonic() < deadline, self.console()[-3000:]
            time.sleep(2)

    def reboot(self) -> None:
        """The host's own, and it is back."""
        before = self.ssh("cat /proc/sys/kernel/random/boot_id").stdout
        self.ssh("systemctl reboot", user="root", check=False)
        deadline = time.monotonic() + patience(400)
        while (now := self.ssh("cat /proc/sys/kernel/random/boot_id", check=False)).stdout in (
            "",
            before,
        ) or now.returncode:
            assert time.monotonic() < deadline, self.console()[-3000:]
            time.sleep(2)
        self.ssh("mkdir -p /payload && mount -o ro /dev/vdb /payload", user="root")

    def console(self) -> str:
        path = self.work / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def ssh(
        self, script: str, user: str = USER, check: bool = True, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run a script there by sh -e."""
        argv = ["ssh", "-q", "-i", str(self.folder / "key"), "-p", str(self.port), "-o", "StrictHostKeyChecking=no"]
        argv += ["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-F", "none"]
        argv += [f"{user}@127.0.0.1", "bash -le -s"]
        try:
            done = subprocess.run(argv, input=script, capture_output=True, text=True, timeout=patience(timeout))
        except subprocess.TimeoutExpired as e:
            done = subprocess.CompletedProcess(
                argv, 255, _text(e.stdout), f"{_text(e.stderr)}\nno end within {timeout} s"
            )
        with open(self.work / "session.log", "a", encoding="utf-8") as f:
            f.write(f"$ [{user}] {script}\n{done.stdout}{done.stderr}[{done.returncode}]\n")
        if check and done.returncode:
            raise AssertionError(f"{script[-300:]}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n[{done.returncode}]")
        return done

    def close(self) -> None:
        """End it, and keep what tells of it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.artefacts.mkdir(parents=True, exist_ok=True)
        for name in ("console.log", "session.log", "qemu.log"):
            if (self.work / name).exists():
                shutil.copy(self.work / name, self.artefacts / name)
        shutil.rmtree(self.work, ignore_errors=True)


def _text(out: bytes | str | None) -> str:
    return out.decode("utf-8", "replace") if isinstance(out, bytes) else out or ""


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
