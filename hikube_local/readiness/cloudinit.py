"""cloud-init's own result files, read into words; pure. Everything in them comes from the guest: data, never trusted."""

from __future__ import annotations

import json
import re
from typing import Any

from hikube_local.readiness.stages import Trouble
from hikube_local.records import dataclass
from hikube_local.text import sanitize

_BEGAN = re.compile(rb"start: [\w-]+/config-([\w-]{1,60}):")
_NUMBER = re.compile(r"[0-9]{1,9}")
STAGES = ("init-local", "init", "modules-config", "modules-final")


@dataclass(frozen=True, slots=True)
class CloudInit:
    """What status.json says: whether it ended, whether well, and the errors by stage."""

    done: bool
    ok: bool
    stage: str
    errors: tuple[str, ...]


def read(status: bytes) -> CloudInit | None:
    """The content of /run/cloud-init/status.json, or None for anything else."""
    try:
        v1: Any = json.loads(status).get("v1")
    except (ValueError, AttributeError, RecursionError):
        return None
    if not isinstance(v1, dict):
        return None
    errors: list[str] = []
    ended = 0
    for name in STAGES:
        part = v1.get(name)
        if not isinstance(part, dict):
            continue
        found = part.get("errors")
        for error in found if isinstance(found, list) else []:
            errors.append(f"{name}: {sanitize(str(error))[:400]}")
        ended += isinstance(part.get("finished"), int | float)
    stage = v1.get("stage")
    last = v1.get("modules-final")
    done = not stage and isinstance(last, dict) and isinstance(last.get("finished"), int | float)
    return CloudInit(done, not errors, sanitize(str(stage))[:40] if stage else "", tuple(errors[:20]))


def module(log: bytes) -> str:
    """The module that began last, by the end of /var/log/cloud-init.log; empty where none is named."""
    found = _BEGAN.findall(log)
    return sanitize(found[-1]).replace("-", "_")[:40] if found else ""


def _own(args: str) -> bool:
    """Whether a command line is cloud-init itself."""
    words = args.split()[:2]
    return any(word.endswith("/cloud-init") for word in words) and (
        "python" in words[0] or len(words) == 1 or words[0].endswith("/cloud-init")
    )


def busy_with(processes: str) -> str:
    """The command that cloud-init waits for, by `ps -eo pid,ppid,etimes,args`: the youngest child's youngest child.

    With the seconds since it began; empty where cloud-init waits for none.
    """
    children: dict[str, list[tuple[int, str, str]]] = {}
    roots = []
    for line in processes.splitlines()[:4000]:
        words = line[:400].split(None, 3)
        if len(words) < 4 or not _NUMBER.fullmatch(words[2]) or "tee -a /var/log/cloud-init" in words[3]:
            continue  # cloud-init's own pipe is no command that it waits for
        pid, parent, spent, args = words
        children.setdefault(parent, []).append((int(spent), pid, args))
        if _own(args):
            roots.append(pid)
    found = ""
    for pid in roots:
        for _ in range(20):
            below = [c for c in children.get(pid, []) if not _own(c[2])]
            if not below:
                break
            seconds, pid, args = min(below)
            found = f"`{sanitize(args)[:120]}` for {seconds} s"
    return found


def trouble(result: CloudInit, console: list[str]) -> Trouble:
    """The failure of cloud-init with what is known of its cause."""
    first = result.errors[0] if result.errors else (console[0] if console else "cloud-init reported an error")
    remedy = "see /var/log/cloud-init.log and /var/log/cloud-init-output.log in the guest (hikube-local ssh NAME)"
    if "runcmd" in " ".join([*result.errors, *console]) or "scripts" in first:
        remedy = "a command of runcmd failed; its output is in /var/log/cloud-init-output.log in the guest"
    return Trouble("HK906", f"cloud-init failed: {first}", tuple([*result.errors, *console][-12:]), remedy)
