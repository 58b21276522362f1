"""Whether hardware virtualisation works: proved by a guest of ours, never assumed.

/dev/kvm can exist, open and make a vCPU and still be useless, so a boot sector that enters long mode, works a little and
leaves through isa-debug-exit must run under KVM, and its loop faster than under TCG. The loop alone counts: the slope
between a short and a long run, since QEMU's start takes longer than either and says nothing of the processor.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any

from hikube_local import files, log
from hikube_local.api.names import ACCELERATORS
from hikube_local.errors import UsageError
from hikube_local.host import facts, qemu_ids
from hikube_local.paths import Layout
from hikube_local.records import dataclass
from hikube_local.run import clean_environment, find

# The boot sector, assembled by hand (AT&T syntax):
#   16 bit: segments and stack; zero 0x1000-0x3fff; 0x1000 -> 0x2000 -> 0x3000 -> one 2 MiB page (0x83);
#           cr3 = 0x1000, cr4.PAE, EFER.LME, lgdt, cr0.PG|PE, long jump
#   64 bit: ecx = 4,000,000 (`code` sets it); loop: add rcx to rdx, store it at 0x5000; then outb 0x21 to port 0xf4; hlt for ever
CODE = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007cbf0010b9000c6631c0fc66f3ab66c70600100320000066c70600200330000066c70600308300000066b80010"
    "00000f22d80f20e06683c8200f22e066b9800000c00f32660d000100000f300f0116a07c0f20c0660d010000800f22c0ea6d7c0800b90009"
    "3d004801ca4889142500500000ffc975f1b02166baf400eef4ebfd0f1f440000000000000000000000000000009a20000f00907c"
)
FILE = "accelerator.json"
EXIT = 0x21 << 1 | 1
_LOOPS = bytes.fromhex("b900093d00")  # the instruction that sets how often the loop runs
SHORT, LONG = 1, 100_000_000
TRIES = 2
# Seconds that LONG loops take on a laptop of 2024 under working KVM; what a guest takes here over this is the slowness.
NOMINAL = 0.02
LEAST = 0.002  # seconds: two starts of QEMU differ by more than this alone
LIMIT = 60.0  # seconds that a trial may take: an emulated or loaded host starts QEMU slowly
LEAST_LIMIT = 3.0
STRETCH = "HIKUBE_LOCAL_TIMEOUT_FACTOR"
CHOICE = "HIKUBE_LOCAL_ACCELERATOR"


_trying = threading.Lock()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which accelerator, why, and how much slower than a laptop's KVM guests run here (1 to 10).

    `ratio`: how many times as fast as emulation KVM was, 0 where it did not run. `lasting`: it holds until the host
    boots anew, or until /dev/kvm changes; another one is tried again by the next command that starts machines.
    """

    kvm: bool
    why: str
    slowness: float
    ratio: float = 0.0
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class Times:
    """The best seconds of the short and of the long trial."""

    short: float
    long: float

    @property
    def slope(self) -> float:
        """Seconds that the loop itself took: QEMU's start is in both and falls out."""
        return max(self.long - self.short, LEAST)


def judge(tcg: Times | None, kvm: Times | None, access: str) -> Verdict:
    """The verdict on measured times; None where the guest did not run. `access`: why /dev/kvm cannot be used, or nothing."""
    slow = _bounded((tcg.slope if tcg else 10 * NOMINAL) / NOMINAL)
    if access:
        return Verdict(False, access, slow)
    if kvm is None:
        why = "/dev/kvm exists, but a trial guest does not run with it"
        return Verdict(False, why, slow, lasting=False)
    ratio = tcg.slope / kvm.slope if tcg else 0.0
    if tcg is not None and ratio < 1:
        why = (
            f"/dev/kvm is slower than emulation: the same loop took {kvm.slope:.2f} s against {tcg.slope:.2f} s (tried)"
        )
        return Verdict(False, why, slow, round(ratio, 1), lasting=False)
    words = f", {ratio:.0f} times as fast as emulation" if tcg else ""
    return Verdict(True, f"a trial guest ran under KVM{words}", _bounded(kvm.slope / NOMINAL), round(ratio, 1))


def _bounded(slowness: float) -> float:
    return round(min(10.0, max(1.0, slowness)), 1)


def code(loops: int) -> bytes:
    """The boot sector whose loop runs so often."""
    return CODE.replace(_LOOPS, b"\xb9" + loops.to_bytes(4, "little")).ljust(510, b"\0") + b"\x55\xaa"


def _trial(accel: str, disk: int, limit: float) -> float | None:
    """Seconds until the guest on the disk (a descriptor) left as it should, or None."""
    cpu = "host" if accel == "kvm" else "max"
    argv = [find("qemu-system-x86_64"), "-machine", f"pc,accel={accel}", "-cpu", cpu, "-nodefaults", "-display", "none"]
    argv += ["-no-reboot", "-m", "16", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    argv += ["-blockdev", f"driver=file,filename=/dev/fd/{disk},node-name=f"]
    argv += ["-blockdev", "driver=raw,file=f,node-name=d", "-device", "ide-hd,drive=d"]
    # As root QEMU runs as another user: the trial has the ids that a machine will have.
    ids = qemu_ids.shared() if accel == "kvm" and os.geteuid() == 0 else None
    as_qemu: dict[str, Any] = {"user": ids[0], "group": ids[1], "extra_groups": []} if ids else {}
    begin = time.monotonic()
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit,
            env=clean_environment(),
            pass_fds=(disk,),
            **as_qemu,
        )
    except subprocess.TimeoutExpired:
        log.ended(argv, None, begin)
        return None
    except PermissionError:  # a container that may not change its ids
        return None
    log.ended(argv, done.returncode, begin)
    return time.monotonic() - begin if done.returncode == EXIT else None


def _times(accel: str, limit: float = LIMIT) -> Times | None:
    """The best of a few short and long trials; None as soon as one did not end as it should within the limit."""
    best: dict[int, float] = {}
    for loops in (SHORT, LONG):
        with tempfile.TemporaryFile() as disk:  # without a name: a kill leaves nothing
            disk.write(code(loops) + bytes(65536 - 512))
            disk.flush()
            os.fchmod(disk.fileno(), 0o666)  # opened again by QEMU's own user
            for _ in range(TRIES):
                took = _trial(accel, disk.fileno(), limit)
                if took is None:
                    return None
                best[loops] = min(took, best.get(loops, took))
    return Times(best[SHORT], best[LONG])


def access(device: str = "/dev/kvm") -> str:
    """Why /dev/kvm cannot be used by whoever QEMU will be, or an empty string; nothing is run."""
    try:
        st = os.stat(device)
    except OSError:
        return f"{device} does not exist: no hardware virtualisation, or switched off in the firmware"
    if os.geteuid() == 0:
        group = qemu_ids.shared(device)[1]
        if st.st_mode & 0o006 == 0o006 or (st.st_mode & 0o060 == 0o060 and st.st_gid == group):
            return ""
        return f"{device} cannot be opened by QEMU's user (mode {st.st_mode & 0o777:o}, group {st.st_gid})"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} cannot be opened by this user (mode {st.st_mode & 0o777:o}, group {_group(st.st_gid)})"
    return ""


def _group(gid: int) -> str:
    import grp

    with contextlib.suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)


def remedy(device: str = "/dev/kvm") -> str:
    """The command that makes the device usable, right for where this is run; empty where there is none."""
    try:
        st = os.stat(device)
    except OSError:
        if facts.container():
            return f"start the container with --device {device}"
        return "switch on virtualisation (VT-x, AMD-V) in the firmware; inside a machine: nested virtualisation"
    if not access(device):
        return ""
    name = _group(st.st_gid)
    if not st.st_mode & 0o060 or st.st_gid == 0:
        return f"sudo chgrp kvm {device} && sudo chmod 0660 {device}"
    if os.geteuid() == 0:
        return f"chmod g+rw {device}"
    if facts.container():
        return f"start the container with --group-add {st.st_gid}"
    if os.environ.get("CI"):
        return f"sudo chmod 0666 {device}"
    import grp
    import pwd

    with contextlib.suppress(KeyError):
        if pwd.getpwuid(os.geteuid()).pw_name in grp.getgrgid(st.st_gid).gr_mem:
            return f"log in again: you were added to the group {name} after this login (or: newgrp {name})"
    return f"sudo usermod -aG {name} $USER, then log in again"


def probe() -> Verdict:
    """Run the trials (about a second)."""
    why, tcg = access(), _times("tcg")
    # A KVM that hangs must not keep anybody waiting: it has several times as long as emulation took.
    limit = max(LEAST_LIMIT, 5 * tcg.long) if tcg else LIMIT
    return judge(tcg, None if why else _times("kvm", limit), why)


def chosen() -> str:
    """What the environment says, kvm or tcg; empty where it says nothing."""
    word = os.environ.get(CHOICE, "").lower()
    if word and word not in ACCELERATORS:
        raise UsageError("HK112", f"{CHOICE} is {word[:40]!r}", fix="write kvm or tcg")
    return word


def verdict(layout: Layout) -> Verdict:
    """The verdict of this boot of the host: what was kept, else tried. Writes nothing."""
    with _trying:  # trials side by side would find each other slow
        return kept(layout) or _tried(access())


def kept(layout: Layout) -> Verdict | None:
    """What was tried before, for a look that tries nothing itself."""
    row = files.read_json(layout.cache / FILE)
    if not isinstance(row, dict) or row.get("key") != _key():
        return None
    known = {f.name for f in fields(Verdict)}
    return Verdict(**{k: v for k, v in row["verdict"].items() if k in known})


def keep(layout: Layout) -> None:
    """Keep the verdict, so that it need not be tried again until the host boots anew; a no that may pass is tried again."""
    before, path = kept(layout), layout.cache / FILE
    if before is not None and before.lasting:
        return
    with _trying:
        row = {"key": _key(), "verdict": asdict(_tried(access()))}
    if files.read_json(path) != row:
        if not path.parent.is_dir():
            layout.make()
        files.write_json(path, row)


def _key() -> dict[str, str]:
    return {"boot": facts.boot_id(), "access": access(), "how": "slope"}


@lru_cache(maxsize=1)
def _tried(access: str) -> Verdict:
    """A trial once a process."""
    return probe()


def host_facts(layout: Layout) -> facts.HostFacts:
    """Everything that decisions need to know of this host."""
    v = verdict(layout)
    memory, free = facts.memory_limit(), facts.meminfo()["MemAvailable"]
    return facts.HostFacts(facts.cpus(), memory, free, v.kvm, v.why, v.slowness, _stretch())


def _stretch() -> float:
    text = os.environ.get(STRETCH) or "1"
    with contextlib.suppress(ValueError):
        if math.isfinite(factor := float(text)) and factor > 0:
            return factor
    raise UsageError("HK112", f"{STRETCH} is {text[:40]!r}, not a number over 0", fix="write 2 for twice the time")
