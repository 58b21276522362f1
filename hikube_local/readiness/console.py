"""What a guest's console says: stage, module, trouble, the end of cloud-init; a pure reader that is fed text."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import field, replace

from hikube_local.readiness.stages import Progress, Stage, Trouble
from hikube_local.records import dataclass
from hikube_local.text import sanitize

KEPT = 40
LONGEST = 4096  # characters of a line that are looked at

_KERNEL_TIME = r"^(?:\[\s*\d+\.\d+\] )"
_CLOUD_RUN = re.compile(r"Cloud-init v\. \S+ running '([\w:-]+)' at")
_CLOUD_END = re.compile(r"Cloud-init v\. \S+ finished at")
_CLOUD_STAGE = {
    "init-local": Stage.CLOUD_INIT_LOCAL,
    "init": Stage.CLOUD_INIT,
    "modules:config": Stage.CLOUD_CONFIG,
    "modules:final": Stage.CLOUD_FINAL,
}
_MODULE = re.compile(r"(cc_\w+|Running module ([\w-]+))")
# In the order of a boot: the first that fits a line moves the stage on.
_STAGES: tuple[tuple[re.Pattern[str], Stage], ...] = (
    (re.compile(r"^(SeaBIOS \(version|BdsDxe: |UEFI |iPXE )"), Stage.FIRMWARE),
    (
        re.compile(
            r"(GRUB loading|Welcome to GRUB|GNU GRUB|^\s*Booting `|ISOLINUX|SYSLINUX|^Loading Linux|systemd-boot)"
        ),
        Stage.BOOTLOADER,
    ),
    (re.compile(r"(Linux version \d|Decompressing Linux|^EFI stub:)|" + _KERNEL_TIME), Stage.KERNEL),
    (re.compile(r"(systemd\[1\]: |^Welcome to (?!GRUB).*!|OpenRC|^Begin: |init started: |^INIT: )"), Stage.INIT),
    (
        re.compile(
            r"(Reached target .*[Nn]etwork|Network is Online|Wait for Network|udhcpc: lease|networkd-wait-online|Starting networking)"
        ),
        Stage.NETWORK,
    ),
)
_UNIT = re.compile(r"^(?:\[\s*(?:OK|FAILED|DEPEND)\s*\]|\s+(?:Starting|Started|Mounting)) ?(.{3,80})")
# systemd's line about what it waits for, drawn again and again in the same row.
# Which of the two is the build's choice (status-unit-format; Debian 12 has the second).
_JOB = re.compile(
    r"(?:A start job is running for (?P<a>.{3,100}?)(?:\.\.\.)?|Job (?P<b>.{3,100}?)/start running) \([^()/]{1,30} / (?P<limit>[^()/]{1,20})\)"
)
_LOGIN = re.compile(r"(?:^|\n)[\w.@-]{0,64} ?login: ?$")

_PROMPT = re.compile(r"[\w.@-]{1,64} login: ")


# systemd shortens a line in the middle, and its colours with it: what is left of a sequence lost its escape.
_RUBBLE = re.compile(r"…\[?[0-9;]{0,12}m(?![\w.])|\[[0-9;]{0,12}m(?=\s|$|\.)")


def _unit(text: str) -> str:
    """What systemd says of a unit, without rubble: its description where it has one beside the unit's name."""
    clean = _RUBBLE.sub(lambda m: "…" if m[0][0] == "…" else "", text).strip(" .")
    head, dash, description = clean.partition(" - ")
    return f"{head.rsplit(' ', 1)[0]} {description.strip(' .')}" if dash and " " in head else clean


@dataclass(frozen=True, slots=True)
class _Sign:
    """A line that means trouble."""

    pattern: re.Pattern[str]
    code: str
    message: str
    remedy: str


_SIGNS = (
    _Sign(
        re.compile(r"(No bootable device|BdsDxe: No bootable option)"),
        "HK901",
        "the firmware found nothing to boot from",
        "is the first of `disks` the system disk, and does its VMDisk have a source? an empty disk cannot boot",
    ),
    _Sign(
        re.compile(
            r"^(grub>|grub rescue>|.*error: (?:unknown filesystem|no such (?:partition|device)|file [`'].* not found))"
        ),
        "HK902",
        "the boot loader stopped",
        "its configuration refers to a missing disk or kernel: check with `console`",
    ),
    _Sign(
        re.compile(r"Kernel panic - not syncing"),
        "HK903",
        "the kernel panicked",
        "the lines above it name the cause; `VFS: Unable to mount root` means a wrong disk order or a missing driver",
    ),
    _Sign(
        re.compile(
            r"(You are in emergency mode|Entering emergency mode|Give root password for maintenance|^\(initramfs\)|dracut-emergency)"
        ),
        "HK904",
        "the guest is in emergency mode",
        "a file system or device from /etc/fstab or the kernel command line is missing; log in with `console`",
    ),
    _Sign(
        re.compile(r"(Out of memory: Killed process|oom-kill:|invoked oom-killer)"),
        "HK905",
        "the guest ran out of memory",
        "choose a larger instanceType",
    ),
)
# Alone it means little (another disk may boot), and a "Security Violation" stands in every failed boot with secure boot.
_REFUSED = re.compile(r"^BdsDxe: failed to load Boot.*: Access Denied")
_UNSIGNED = _Sign(
    _REFUSED,
    "HK911",
    "the firmware refuses the boot loader: secure boot is on, and it is not signed by a key that the firmware knows",
    "choose an instanceProfile without secure boot, or an image with a signed boot loader (shim). Hikube refuses it too, but "
    "for one that is signed with Microsoft's key of 2023 alone, which this host's OVMF may be too old to know",
)
_SILENT_FAILURES = (
    re.compile(r"Failed running /var/lib/cloud/"),
    re.compile(r"\[FAILED\] Failed to start .*(?:cloud-init|Cloud-init|cloud-config|cloud-final)"),
    re.compile(r"cc_\w+\.py\[ERROR\]|util\.py\[ERROR\]|\bcloud-init\[\d+\]: .*\bERROR\b"),
    re.compile(r"Failed loading yaml blob|Invalid cloud-config provided|Unhandled non-multipart"),
    re.compile(r"Running module \w+ .* failed"),
)


def final_message(cloud_init: str) -> re.Pattern[str] | None:
    """The `final_message` that a user wrote, as a pattern: its variables may be anything."""
    from hikube_local.catalogue.cloudconfig import parsed

    config = parsed(cloud_init)
    text = config.get("final_message") if isinstance(config, dict) else None
    if not isinstance(text, str) or len(text.strip()) < 4:
        return None
    line = max(text.strip().splitlines(), key=len)
    parts = re.split(r"\$\{?\w+\}?|\{\{.*?\}\}", line)
    if not any(len(p.strip()) >= 4 for p in parts):
        return None
    return re.compile(".{0,80}".join(re.escape(p) for p in parts))


@dataclass(slots=True)
class Console:
    """Feed it what the console said; ask it where the guest is."""

    final: re.Pattern[str] | None = None
    progress: Progress = Progress(Stage.FIRMWARE)
    trouble: Trouble | None = None
    finished: bool = False
    login: bool = False
    any_sign: bool = False
    again: int = 0  # boots after the first one
    failures: list[str] = field(default_factory=list)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))
    _refused: bool = False
    _raw: bytes = b""
    _firmware: bytes = b""
    _rest: str = ""

    def feed(self, raw: bytes, firmware: bool = False) -> None:
        """Take in bytes of the serial console, or of the firmware's own log."""
        # Whole lines only: an escape sequence, a character or a word may be cut at a block's end.
        if firmware:
            whole_raw, _, self._firmware = (self._firmware + raw).rpartition(b"\n")
            self._firmware = self._firmware[-LONGEST:]
            for line in sanitize(whole_raw).split("\n"):
                self._line(line[:LONGEST], firmware=True)
            return
        whole_raw, _, self._raw = (self._raw + raw).rpartition(b"\n")
        self._raw = self._raw[-LONGEST:]
        whole, self._rest = sanitize(whole_raw), sanitize(self._raw)
        self.any_sign = self.any_sign or bool(whole.strip() or self._rest.strip())
        for line in whole.split("\n"):
            self._line(line[:LONGEST])
        if self._rest:
            if _LOGIN.search("\n" + self._rest):
                self.login = True
            self._waiting(self._rest)
            for prompt in ("grub>", "grub rescue>", "(initramfs)"):
                if self._rest.strip().startswith(prompt):
                    self._signs(self._rest.strip())

    def _line(self, line: str, firmware: bool = False) -> None:
        if not line.strip():
            return
        if not firmware:
            self.lines.append(line)
        self._signs(line)
        if firmware:
            return
        if match := _CLOUD_RUN.search(line):
            self._move(_CLOUD_STAGE.get(match[1], Stage.CLOUD_INIT))
            return
        if _CLOUD_END.search(line) or (self.final and self.final.search(line)):
            self.finished = True
            self._move(Stage.DONE)
            return
        for pattern in _SILENT_FAILURES:
            if pattern.search(line) and len(self.failures) < 20:
                self.failures.append(line.strip())
                break
        if _PROMPT.match(line):
            self.login = True  # a kernel message came behind the prompt
        for pattern, stage in _STAGES:
            if pattern.search(line):
                self._move(stage, stage is Stage.BOOTLOADER or (stage is Stage.KERNEL and "Linux version " in line))
        self._detail(line)

    def _waiting(self, text: str) -> None:
        for job in _JOB.finditer(text):
            unit, limit = job["a"] or job["b"], job["limit"]
            self.progress = Progress(self.progress.stage, f"waits for {unit.strip()} ({limit.strip()})")

    def _detail(self, line: str) -> None:
        self._waiting(line)
        stage = self.progress.stage
        if stage.order >= Stage.CLOUD_INIT_LOCAL.order:
            if match := _MODULE.search(line):
                self.progress = Progress(stage, match[2] or match[1])
        elif match := _UNIT.search(line):
            self.progress = Progress(stage, _unit(match[1]))

    def _move(self, stage: Stage, again: bool = False) -> None:
        """Stages go forward; `again`: a line that only a boot's beginning has, so the guest was rebooted."""
        if stage.order > self.progress.stage.order:
            self.progress = Progress(stage)
        elif again and self.progress.stage.order > Stage.KERNEL.order:
            self.again += 1
            self.progress, self.finished, self.login = Progress(stage), False, False

    def _signs(self, line: str) -> None:
        self._refused = self._refused or bool(_REFUSED.search(line))
        for sign in _SIGNS:
            if not sign.pattern.search(line):
                continue
            if self._refused and sign.code == "HK901":
                sign = _UNSIGNED
            if self.trouble is None:
                before = [text for text in self.lines if text != line][-8:]
                self.trouble = Trouble(sign.code, sign.message, (*before, line), sign.remedy)
            elif self.trouble.code == sign.code and len(self.trouble.lines) < 16:
                self.trouble = replace(self.trouble, lines=(*self.trouble.lines, line))
            return
