"""Whether this host can run machines: each check with the command that mends it. The same checks run before `up`."""

from __future__ import annotations

import glob
import importlib.util
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from hikube_local.errors import HikubeError
from hikube_local.host import facts, network, userns
from hikube_local.host.check import HostCheck
from hikube_local.paths import Layout, document
from hikube_local.run import INSTALL, run
from hikube_local.text import sanitize, size

TOOLS = (
    "qemu-system-x86_64",
    "qemu-img",
    "libvirtd",
    "virtlogd",
    "dnsmasq",
    "slirp4netns",
    "nft",
    "ip",
    "unshare",
)
OPTIONAL = ("virsh", "ssh", "mmdebstrap", "tini")
SOCKET_LIMIT = 107
WANTED_SPACE = 5 << 30  # bytes: a cloud image, a system disk that grows, a checkpoint
# Namespaces and what is made in them, and a look at helpers that run as other users (capabilities(7)).
ROOT_NEEDS = {"NET_ADMIN": 12, "SYS_PTRACE": 19, "SYS_ADMIN": 21}
CONTAINER = (
    f"start the container with {' '.join(f'--cap-add {c}' for c in ROOT_NEEDS)} --device /dev/net/tun"
    " --security-opt apparmor=unconfined; or run this as an ordinary user in it: then each machine is isolated"
)
BINDING = (
    "sudo apt-get install python3-libvirt, and make the virtual environment with --system-site-packages;"
    " or install hikube-local with its extra [libvirt] (it compiles: libvirt-dev, pkg-config, gcc, python3-dev)"
)


def path_of(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")


def binding() -> HostCheck:
    found = importlib.util.find_spec("libvirt") is not None
    return HostCheck(
        "libvirt binding",
        found,
        "python3-libvirt is there" if found else "libvirt's Python binding is missing",
        "" if found else BINDING,
    )


# Where distributions keep what libvirt loads to run QEMU.
DRIVERS = (
    "/usr/lib/*/libvirt/connection-driver",
    "/usr/lib64/libvirt/connection-driver",
    "/usr/lib/libvirt/connection-driver",
)


def driver() -> HostCheck:
    """libvirt's part that runs QEMU: since Debian 13 a package of its own, which libvirt's daemon only recommends."""
    found = [f for folder in DRIVERS for f in glob.glob(f"{folder}/libvirt_driver_qemu.so")]
    fix = "" if found else "sudo apt-get install libvirt-daemon-driver-qemu"
    return HostCheck("libvirt's QEMU driver", bool(found), found[0] if found else "not installed", fix)


def tools() -> Iterator[HostCheck]:
    for name in TOOLS + OPTIONAL:
        path = path_of(name)
        fix = "" if path else f"sudo apt-get install {INSTALL.get(name, name)}"
        yield HostCheck(name, bool(path), _version(path) if path else "not installed", fix, name in TOOLS)


_VERSION = {"ip": "-V", "ssh": "-V"}


def _version(path: str) -> str:
    try:
        out = run([path, _VERSION.get(os.path.basename(path), "--version")], timeout=5, check=False)
    except HikubeError:
        return path
    text = sanitize(out.stdout or out.stderr).strip().splitlines()
    return text[0][:80] if text else path


def namespace() -> HostCheck:
    """A bridge is made inside a namespace."""
    name = "network namespace"
    if os.geteuid() == 0:
        lacking = facts.lacks(ROOT_NEEDS)
        why = f"root lacks {', '.join(lacking)}" if lacking else userns.probe(["unshare", "-n", "-m"])
        return HostCheck(name, not why, why or "a bridge could be made inside one", CONTAINER if why else "")
    found, why = userns.find()
    if found:
        through = " through rootlesskit" if found is userns.UsernsLauncher.ROOTLESSKIT else ""
        return HostCheck(name, True, f"a bridge could be made inside one{through}")
    fix = CONTAINER if facts.container() else userns.remedy()
    return HostCheck(name, False, f"{why}; {ALONE}", fix, needed=False)


ALONE = "without it each machine is isolated: its listed ports work, but it cannot reach other machines or their names"


def tun() -> HostCheck:
    """A user without it has each machine alone; root has no such fallback."""
    if os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return HostCheck("/dev/net/tun", True, "can be opened")
    fix = "sudo modprobe tun" if not os.path.exists("/dev/net/tun") else "sudo chmod 0666 /dev/net/tun"
    if os.geteuid() == 0:
        return HostCheck("/dev/net/tun", False, "cannot be opened", fix)
    return HostCheck("/dev/net/tun", False, f"cannot be opened; {ALONE}", fix, needed=False)


def accelerator(layout: Layout) -> HostCheck:
    from hikube_local.host.accelerator import chosen, remedy, verdict

    if not path_of("qemu-system-x86_64"):
        return HostCheck(
            "accelerator", False, "QEMU is not installed", "sudo apt-get install qemu-system-x86", needed=False
        )
    v = verdict(layout)
    detail = v.why if v.kvm else f"emulation (TCG), about {v.slowness:.0f} times as slow as a laptop's KVM: {v.why}"
    fix = "" if v.kvm else remedy() or f"machines run without it, slower; see {document('troubleshooting.md')}"
    if said := chosen():
        detail += f"; HIKUBE_LOCAL_ACCELERATOR={said} overrules it"
    return HostCheck("accelerator", v.kvm, detail, fix, needed=False)


def surroundings(layout: Layout) -> Iterator[HostCheck]:
    """What else decides how machines run here; none of it is needed."""
    from hikube_local.host import autostart

    where = facts.container()
    if where:
        yield HostCheck("container", True, f"this runs in a container ({where})", needed=False)
    if _word("/proc/cpuinfo", "hypervisor"):
        yield HostCheck("nested", True, "this host is a virtual machine itself: KVM is slower in it", needed=False)
    if os.path.exists("/dev/kvm"):
        smm = (
            "available; KVM inside a virtual machine often does not support it"
            if _word("/proc/cpuinfo", "hypervisor")
            else "available"
        )
        yield HostCheck("secure boot (SMM)", True, smm, needed=False)
        ok = os.path.exists("/dev/vhost-net")
        detail = (
            "the kernel carries the machines' packets" if ok else "QEMU carries the machines' packets, a little slower"
        )
        yield HostCheck("vhost-net", ok, detail, "" if ok else "sudo modprobe vhost_net", needed=False)
    pages = _number("/proc/sys/vm/nr_hugepages")
    yield HostCheck("huge pages", True, f"{pages} reserved; machines do not use them (HK509)", needed=False)
    yield HostCheck("confinement", True, _confinement(), needed=False)
    cgroup = "version 2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "version 1, or none"
    yield HostCheck("cgroup", True, f"{cgroup}; a machine's limits are QEMU's own", needed=False)
    if not layout.root and os.path.isdir("/run/systemd/system"):
        ok = not autostart.needs_linger(layout)
        detail = "machines outlive your login" if ok else "machines lose their runtime folder when your last login ends"
        yield HostCheck("lingering", ok, detail, "" if ok else "sudo loginctl enable-linger $USER", needed=False)


def _confinement() -> str:
    """What of the kernel's security modules is on."""
    modules = _read("/sys/kernel/security/lsm").strip().split(",")
    on = []
    if "apparmor" in modules or _read("/sys/module/apparmor/parameters/enabled").strip() == "Y":
        swtpm = "; with a profile for swtpm" if os.path.exists("/etc/apparmor.d/usr.bin.swtpm") else ""
        on.append(f"AppArmor{swtpm}")
    if os.path.exists("/sys/fs/selinux/enforce"):
        on.append(f"SELinux ({'enforcing' if _read('/sys/fs/selinux/enforce').strip() == '1' else 'permissive'})")
    return ", ".join(on) or "neither AppArmor nor SELinux"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _number(path: str) -> int:
    text = _read(path).strip()
    return int(text) if text.isdigit() else 0


def _word(path: str, word: str) -> bool:
    return f" {word} " in _read(path).replace("\n", " ")


def memory() -> HostCheck:
    total, available = facts.memory_limit(), facts.meminfo()["MemAvailable"]
    ok = available > 1 << 30
    return HostCheck(
        "memory", ok, f"{size(total)}, {size(available)} available", "" if ok else "close other programs", needed=False
    )


def disk_space(layout: Layout) -> HostCheck:
    folder = layout.state
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    ok = free > WANTED_SPACE
    return HostCheck(
        "disk space",
        ok,
        f"{size(free)} free in {folder}" + ("" if ok else f", {size(WANTED_SPACE)} are wanted for images and disks"),
        "" if ok else "free space there, or set HIKUBE_LOCAL_HOME",
        needed=False,
    )


def folders(layout: Layout) -> HostCheck:
    """Whether the folders are ours alone, and whether as root QEMU's user can pass through those above its files."""
    ours = (layout.state, layout.cache, layout.state / "disks", layout.state / "machines")
    for folder in (*ours, layout.images, layout.images / "sha256"):
        try:
            st = folder.stat()
        except FileNotFoundError:
            continue
        except OSError as e:
            return HostCheck("folders", False, f"{folder} cannot be looked at: {e.strerror}", "run this as its owner")
        if st.st_uid != os.geteuid():
            fix = "choose another HIKUBE_LOCAL_HOME, or run as that user"
            return HostCheck("folders", False, f"{folder} belongs to another user (uid {st.st_uid})", fix)
        if st.st_mode & 0o002:
            return HostCheck("folders", False, f"every user may write to {folder}", f"chmod o-w {folder}")
        if layout.root and not st.st_mode & 0o001:
            return HostCheck("folders", False, f"QEMU's user cannot pass through {folder}", f"chmod o+x {folder}")
    return HostCheck("folders", True, f"{layout.state} and {layout.cache}")


def low_ports() -> HostCheck:
    with socket.socket() as s:
        try:
            s.bind(("127.77.255.254", 22))
        except PermissionError:
            fix = "sudo sysctl net.ipv4.ip_unprivileged_port_start=0"
            detail = "cannot be bound: port p is published as p+10000"
            return HostCheck("ports under 1024", False, detail, fix, needed=False)
        except OSError as e:
            return HostCheck(
                "ports under 1024",
                False,
                f"port 22 is in use on every address ({e.strerror}): it is published as 10022",
                "let sshd listen on one address (ListenAddress)",
                needed=False,
            )
    return HostCheck("ports under 1024", True, "can be bound")


def socket_paths(layout: Layout) -> HostCheck:
    longest = len(os.fsencode(layout.runtime)) + len("/m/hk0123456789a/console.sock")
    ok = longest <= SOCKET_LIMIT
    return HostCheck(
        "socket paths", ok, f"{longest} of {SOCKET_LIMIT} bytes", "" if ok else "set XDG_RUNTIME_DIR to a short folder"
    )


def bridges() -> HostCheck:
    """What WholeIP can be on this host."""
    if not path_of("ip"):
        return HostCheck("WholeIP", False, "not known without ip", needed=False)
    found = sorted(network.links("bridge"))
    here = f"bridges here: {', '.join(found)}" if found else "this host has no bridge"
    if os.geteuid() != 0:
        detail = (
            f"on the machine's own loopback address, on the ports where its guest listens ({here}; bridges need root)"
        )
        return HostCheck("WholeIP", True, detail, needed=False)
    if not found:
        return HostCheck(
            "WholeIP", True, f"on the machine's own loopback address ({here}; with one: up --bridge NAME)", needed=False
        )
    if _number("/proc/sys/net/bridge/bridge-nf-call-iptables") == 1:
        detail = f"{here}; but iptables FORWARD rules apply to bridged packets, and Docker's rules drop them"
        return HostCheck("WholeIP", False, detail, "sudo sysctl net.bridge.bridge-nf-call-iptables=0", needed=False)
    return HostCheck("WholeIP", True, f"up --bridge NAME puts a machine on the LAN ({here})", needed=False)


def examine(layout: Layout) -> list[HostCheck]:
    """Every check, for `doctor`."""
    checks = [*tools(), driver(), binding(), namespace(), tun(), socket_paths(layout), folders(layout)]
    return [*checks, accelerator(layout), *surroundings(layout), memory(), disk_space(layout), low_ports(), bridges()]


def require(layout: Layout, machines: bool, packages: Sequence[str] = ()) -> None:
    """What `up` cannot do without, told at once; cheap, since nothing is started but one namespace."""
    missing = [
        HostCheck(n, False, "not installed", f"sudo apt-get install {INSTALL.get(n, n)}")
        for n in TOOLS
        if not path_of(n)
    ]
    missing += [HostCheck(p, False, "not installed", f"sudo apt-get install {p}") for p in packages]
    if not machines:
        missing = [c for c in missing if c.name == "qemu-img"]
    else:
        # A user without them gets each machine alone; root has no such fallback.
        needed = (driver(), binding(), socket_paths(layout), *((namespace(), tun()) if layout.root else ()))
        missing += [c for c in needed if not c.ok]
    if missing:
        wanted = sorted(
            {
                c.fix.rpartition(" ")[2]
                for c in missing
                if c.fix.startswith("sudo apt-get install ") and ";" not in c.fix
            }
        )
        others = [c.fix for c in missing if not c.fix.startswith("sudo apt-get install ") or ";" in c.fix]
        fix = "; ".join(([f"sudo apt-get install {' '.join(wanted)}"] if wanted else []) + others)
        what = ", ".join(f"{c.name}: {c.detail}" for c in missing)
        code = "HK605" if [c.name for c in missing] == ["libvirt binding"] else "HK601"
        raise HikubeError(code, f"this host cannot run machines yet: {what}", fix=fix)
