"""What root's sandbox sees instead of the host's own folders: ours over libvirt's, in its mount namespace alone."""

from __future__ import annotations

import os
from pathlib import Path

from hikube_local import files
from hikube_local.backends.qemu import firmware
from hikube_local.host.accelerator import verdict
from hikube_local.paths import Layout

CA, TPM_LOG = "/var/lib/swtpm-localca", "/var/log/swtpm"
UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers")  # there where the host has control groups of version 2 alone
VIRTLOGD = "max_size = 16777216\nmax_backups = 3\n"


def words(layout: Layout, ids: tuple[int, int]) -> list[list[str]]:
    """The words of each `mount`. Never a copy of the host's folders, which hold its domains, autostart links and hooks."""
    run = layout.runtime
    etc = files.make_folder(run / "etc", 0o755)
    files.write(
        etc / "libvirtd.conf",
        'auth_unix_ro = "none"\nauth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\nunix_sock_ro_perms = "0700"\n',
    )
    conf = f'user = "+{ids[0]}"\ngroup = "+{ids[1]}"\ndynamic_ownership = 1\nremember_owner = 0\n'
    # No /dev of libvirt's own for each QEMU: it could not take over our mount on /dev/kvm, and a namespace whose holder was
    # killed is entered again through a QEMU, which must see what the holder saw.
    # Of the control groups only the one that shuts devices: those for CPU make a group of each thread, whose wakeups cost
    # a tenth of the throughput between two guests (bench); limits are QEMU's own here.
    # In version 2 libvirt makes a group of each thread all the same, which fails where the one above has no "cpu" to give
    # (seen with libvirt 11 under systemd): there it has both.
    kept = '"cpu", "devices"' if UNIFIED.exists() else '"devices"'
    files.write(etc / "qemu.conf", f"{conf}namespaces = []\ncgroup_controllers = [{kept}]\n")
    files.write(etc / "virtlogd.conf", VIRTLOGD)
    pairs = [
        (layout.state, run / "state"),
        (layout.cache, run / "cache"),
        (etc, Path("/etc/libvirt")),
        (files.make_folder(run / "lib", 0o711), Path("/var/lib/libvirt")),
        (files.make_folder(layout.cache / "libvirt", 0o711), Path("/var/cache/libvirt")),
        (files.make_folder(run / "libvirtlog", 0o711), Path("/var/log/libvirt")),
        (files.make_folder(run / "libvirt", 0o711), Path("/run/libvirt")),
    ]
    # Mounted, not a link: AppArmor's rules for swtpm go by the path that a file has in the end (Ubuntu's usr.bin.swtpm).
    at = run / "lib" / "swtpm"
    if at.is_symlink():
        at.unlink()  # an earlier version's
    files.make_folder(at, 0o711)
    pairs.append((files.make_folder(firmware.tpm_folder(layout), 0o711), Path("/var/lib/libvirt/swtpm")))
    if Path(CA).is_dir():
        # swtpm makes a CA of its own at its first use; the host's stays as it is.
        own, about = files.make_folder(run / "tpm-ca", 0o750), os.stat(CA)
        os.chown(own, about.st_uid, about.st_gid)
        pairs.append((own, Path(CA)))
        if Path(TPM_LOG).is_dir():
            pairs.append((files.make_folder(run / "tpmlog", 0o711), Path(TPM_LOG)))
    for _, target in pairs:
        if target.parent != Path("/var/lib/libvirt"):  # that one is made inside what is mounted before it
            files.make_folder(target, 0o755)
    out = [["--bind", str(a), str(b)] for a, b in pairs] + accounts(run, ids)
    if Path("/dev/kvm").exists() and not verdict(layout).kvm:
        # libvirt asks QEMU what KVM can do; one that does not work keeps it waiting for minutes (seen: 130 s).
        # A file that QEMU's user may not open says "no KVM" to both, and lets libvirt keep what it learned.
        files.write(etc / "no-kvm", "", 0o600)
        out.append(["--bind", str(etc / "no-kvm"), "/dev/kvm"])
    if Path("/run/dbus").is_dir():
        out.append(["-t", "tmpfs", "tmpfs", "/run/dbus"])
    return out


def lost(pid: int, run: Path, ids: tuple[int, int]) -> list[list[str]]:
    """The accounts' mounts that are gone: whoever adds a user on the host renames a new file over /etc/passwd, and what
    was mounted on the old one goes with it."""
    there = {line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    return [words for words in accounts(run, ids) if words[-1] not in there]


def accounts(run: Path, ids: tuple[int, int]) -> list[list[str]]:
    """libvirt wants its compiled-in user to exist before it reads qemu.conf; seen only inside, the host keeps its own."""
    out = []
    uid, gid = ids
    for name, lines in (
        ("passwd", [f"libvirt-qemu:x:{uid}:{gid}::/var/lib/libvirt:/usr/sbin/nologin"]),
        ("group", [f"libvirt-qemu:x:{gid}:", "kvm:x:64056:"]),
    ):
        text = Path("/etc", name).read_text(errors="replace")
        missing = [line for line in lines if f"{line.split(':')[0]}:" not in text]
        if missing:
            copy = run / "etc" / name
            files.write(copy, text.rstrip("\n") + "\n" + "\n".join(missing) + "\n", 0o644)
            out.append(["--bind", str(copy), f"/etc/{name}"])
    return out
