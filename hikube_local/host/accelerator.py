"""Whether hardware virtualisation works: proved by a guest of ours, never assumed.

/dev/kvm can exist, open and make a vCPU and still be useless, so a boot sector that enters long mode, works a little and
leaves through isa-debug-exit must run under KVM within a second, and faster than under TCG. The verdict holds for this
boot of the host.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from functools import lru_cache

from hikube_local import files, log
from hikube_local.errors import UsageError
from hikube_local.host import facts
from hikube_local.paths import Layout
from hikube_local.run import clean_environment, find

# The boot sector, assembled by hand (AT&T syntax):
#   16 bit: segments and stack; zero 0x1000-0x3fff; 0x1000 -> 0x2000 -> 0x3000 -> one 2 MiB page (0x83);
#           cr3 = 0x1000, cr4.PAE, EFER.LME, lgdt, cr0.PG|PE, long jump
#   64 bit: ecx = 4,000,000; loop: add rcx to rdx, store it at 0x5000; then outb 0x21 to port 0xf4; hlt for ever
CODE = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007cbf0010b9000c6631c0fc66f3ab66c70600100320000066c70600200330000066c70600308300000066b80010"
    "00000f22d80f20e06683c8200f22e066b9800000c00f32660d000100000f300f0116a07c0f20c0660d010000800f22c0ea6d7c0800b90009"
    "3d004801ca4889142500500000ffc975f1b02166baf400eef4ebfd0f1f440000000000000000000000000000009a20000f00907c"
)
FILE = "accelerator.json"
EXIT = 0x21 << 1 | 1
# Seconds that the same guest takes on working KVM; TCG's time over this is its slowness.
KVM_NOMINAL = 0.03
LIMIT = 1.0
STRETCH = "HIKUBE_LOCAL_TIMEOUT_FACTOR"


_trying = threading.Lock()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which accelerator, why, and how much slower than KVM it is (1 to 10)."""

    kvm: bool
    why: str
    slowness: float


def _trial(accel: str, disk: int, limit: float) -> float | None:
    """Seconds until the guest on the disk (a descriptor) left as it should, or None."""
    cpu = "host" if accel == "kvm" else "max"
    argv = [find("qemu-system-x86_64"), "-machine", f"pc,accel={accel}", "-cpu", cpu, "-nodefaults", "-display", "none"]
    argv += ["-no-reboot", "-m", "16", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    argv += ["-blockdev", f"driver=file,filename=/dev/fd/{disk},node-name=f"]
    argv += ["-blockdev", "driver=raw,file=f,node-name=d", "-device", "ide-hd,drive=d"]
    begin = time.monotonic()
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit,
            env=clean_environment(),
            pass_fds=(disk,),
        )
    except subprocess.TimeoutExpired:
        log.ended(argv, None, begin)
        return None
    log.ended(argv, done.returncode, begin)
    return time.monotonic() - begin if done.returncode == EXIT else None


def _access() -> str:
    """Why /dev/kvm cannot be used, or an empty string."""
    if not os.path.exists("/dev/kvm"):
        return "/dev/kvm does not exist: no hardware virtualisation, or switched off in the firmware"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm may not be opened by this user: sudo usermod -aG kvm $USER, then log in again"
    return ""


def probe() -> Verdict:
    """Run the trials (about half a second)."""
    with tempfile.TemporaryFile() as disk:  # without a name: a kill leaves nothing
        disk.write(CODE.ljust(510, b"\0") + b"\x55\xaa" + bytes(65536 - 512))
        disk.flush()
        tcg = _trial("tcg", disk.fileno(), 20.0)
        slowness = min(10.0, max(1.0, (tcg or 10.0) / KVM_NOMINAL))
        if why := _access():
            return Verdict(False, why, slowness)
        kvm = _trial("kvm", disk.fileno(), LIMIT)
    if kvm is None:
        return Verdict(False, "/dev/kvm is there, but a guest does not run under it (tried)", slowness)
    if tcg is not None and kvm > tcg:
        return Verdict(False, f"/dev/kvm is slower than emulation ({kvm:.2f} s against {tcg:.2f} s, tried)", slowness)
    return Verdict(True, f"a trial guest ran under KVM in {kvm:.2f} s", 1.0)


def verdict(layout: Layout) -> Verdict:
    """The verdict of this boot of the host: what was kept, else tried. Writes nothing."""
    with _trying:  # trials side by side would find each other slow
        return kept(layout) or _tried(_access())


def kept(layout: Layout) -> Verdict | None:
    """What was tried before, for a look that tries nothing itself."""
    row = files.read_json(layout.cache / FILE)
    return Verdict(**row["verdict"]) if isinstance(row, dict) and row.get("key") == _key() else None


def keep(layout: Layout) -> None:
    """Keep the verdict, so that it need not be tried again until the host boots anew."""
    found, path = verdict(layout), layout.cache / FILE
    row = {"key": _key(), "verdict": asdict(found)}
    if files.read_json(path) != row:
        if not path.parent.is_dir():
            layout.make()
        files.write_json(path, row)


def _key() -> dict[str, str]:
    return {"boot": facts.boot_id(), "access": _access()}


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
