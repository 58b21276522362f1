"""What one guest says of itself, and how two of them differ: the same, as expected (with the code that says why), or not; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from hikube_local.lab.checks import Outcome
from hikube_local.records import dataclass

# One line of the guest's shell: a name, a tab, and the first words of a program's answer; what is missing is empty.
_ASKED = {
    "os": ". /etc/os-release; echo $PRETTY_NAME",
    "kernel": "uname -r",
    "architecture": "uname -m",
    "hostname": "hostname",
    "cloud-init": "cloud-init --version 2>&1 | sed 's/.* //'",
    "datasource": "sed 's/^[^:]*: //; s/ .*//' /run/cloud-init/result.json 2>/dev/null; cloud-id 2>/dev/null",
    "cloud-init status": "cloud-init status 2>/dev/null | sed -n 's/^status: //p'",
    "failed units": "systemctl --failed --plain --no-legend 2>/dev/null | awk '{print $1}' | sort",
    "interfaces": "for i in /sys/class/net/*; do [ ${i##*/} = lo ] || echo ${i##*/} mtu $(cat $i/mtu); done",
    "names": "awk '/^(search|domain)/ {print $2}' /etc/resolv.conf",
    "disks": "lsblk -dbno NAME,SIZE,TYPE 2>/dev/null",
    "root file system": "findmnt -no FSTYPE /",
    "firmware": "[ -d /sys/firmware/efi ] && echo uefi || echo bios",
    "cpus": "nproc",
    "cpu": "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sort -u",
    "memory": "awk '/^MemTotal/ {print int($2/1024) \" MiB\"}' /proc/meminfo",
    "clocksource": "cat /sys/devices/system/clocksource/clocksource0/current_clocksource",
    "virtualization": "systemd-detect-virt",
    "listening": "ss -Hlntu 2>/dev/null | awk '{print $1\"/\"$5}' | sed 's/.*\\//&/; s/\\/.*:/\\//' | sort -u",
    "boot seconds": "systemd-analyze time 2>/dev/null | sed -n '1s/.*= //p'",
}
COMMAND = "; ".join(
    f"printf '%s\\t' '{name}'; ({how}) 2>/dev/null | tr '\\n\\t' ', ' ; echo" for name, how in _ASKED.items()
)
# What is expected to differ between a laptop and Hikube: the code of the difference that says why (docs/differences.md).
EXPECTED = {
    "cpu": "HK513",
    "cpus": "HK501",
    "memory": "HK502",
    "clocksource": "HK503",
    "virtualization": "HK503",
    "boot seconds": "HK503",
}
MEMORY_SLACK = 0.05  # what firmware and kernel keep for themselves is not the same everywhere
SAME, AS_EXPECTED, UNEXPECTED = "same", "expected", "unexpected"
FORM = 1  # of a record
_CHECK = "check "


def read(text: str) -> dict[str, str]:
    """The answers to COMMAND, by their names."""
    rows = (line.partition("\t") for line in text.splitlines())
    return {name: value.strip(" ,")[:2000] for name, tab, value in rows if tab and name in _ASKED}


@dataclass(frozen=True, slots=True)
class Row:
    """One thing on both sides. `code`: of the difference that explains it."""

    machine: str
    what: str
    here: str
    there: str
    verdict: str
    code: str = ""


def outcomes(found: Iterable[Outcome]) -> dict[str, str]:
    """How checks ended, by what they check."""
    return {f"{_CHECK}{o.check.title}": "passed" if o.passed else f"failed: {'; '.join(o.found)}" for o in found}


def is_check(what: str) -> bool:
    return what.startswith(_CHECK)


def compare(machine: str, here: dict[str, str], there: dict[str, str]) -> list[Row]:
    """Each fact that either side has."""
    out = []
    for what in dict.fromkeys((*here, *there)):
        a, b = here.get(what, ""), there.get(what, "")
        code = EXPECTED.get(what, "")
        verdict = SAME if _equal(what, a, b) else AS_EXPECTED if code else UNEXPECTED
        out.append(Row(machine, what, a, b, verdict, code if verdict == AS_EXPECTED else ""))
    return out


def _equal(what: str, a: str, b: str) -> bool:
    if what == "memory" and all(re.fullmatch(r"\d{1,9} MiB", value) for value in (a, b)):
        m, n = (int(value.split()[0]) for value in (a, b))
        return abs(m - n) <= MEMORY_SLACK * max(m, n)
    return a == b


def record(where: str, version: str, at: str, machines: dict[str, dict[str, str]]) -> dict[str, Any]:
    """What `--record` writes: where and when it was, and the facts of each machine ("namespace/name" without the namespace)."""
    return {"form": FORM, "where": where, "hikube-local": version, "time": at, "machines": machines}


def from_record(value: Any) -> dict[str, dict[str, str]] | None:
    """The machines of a record; None where it is none."""
    if not isinstance(value, dict) or value.get("form") != FORM or not isinstance(value.get("machines"), dict):
        return None
    rows = value["machines"]
    if not all(isinstance(facts, dict) for facts in rows.values()):
        return None
    return {str(name): {str(k): str(v) for k, v in facts.items()} for name, facts in rows.items()}
