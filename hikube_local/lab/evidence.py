"""What a guest's cloud-init left: its log read into modules, errors and their lines of user-data; pure.

Result files alone are no proof (cloud-init's issues 6281, 3627, 7037): each top-level key's module must have run as well.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from typing import Any

from hikube_local.catalogue import data
from hikube_local.readiness import cloudinit
from hikube_local.records import dataclass
from hikube_local.text import sanitize
from hikube_local.userdata import parts, requested, schema, whole

MOST = 200  # problems that are told
LONGEST, UNLIKE = 2000, 20_000  # characters of a line, and lines that differ, of the output that are looked at
_LINE = re.compile(r"^(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[,.]\d+) - (\S+)\[(\w+)\]: (.*)$")
_SPAN = re.compile(r"^(start|finish): ([\w-]+)(?:/([\w-]+))?: (?:(SUCCESS|FAIL|WARN): )?(.*)$")
_APT = re.compile(
    r"^(E: .*|Err:\d+ .*|W: Failed to fetch .*|.*Temporary failure (?:in name resolution|resolving).*|.*Could not resolve.*)$"
)
_UNRESOLVED = re.compile(
    r"(?:Temporary failure resolving|[Cc]ould not resolve(?: host)?:?) '?([\w.-]+)'?|Temporary failure in name resolution"
)
_NOTHING = re.compile(r"empty cloud config$")  # the header alone: it asks for nothing, so nothing is lost
_LOGGED = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]{12} - [\w.]+\[")
_ECHO = re.compile(r"failed with exceptions, re-raising|^Running module \S+ \(.*\) failed")
# Programs' own words for what went wrong: their exit codes are kept nowhere.
_SAID = re.compile(
    r"^(?:[\w./-]+: .*(?:No such file or directory|Permission denied|command not found|Operation not permitted|No space left"
    r" on device)$|[\w./-]{1,200}: (?:line )?\d{1,6}: .*not found$|Failed to (?:start|stop|enable|restart|reload) |Job for \S+ failed|Unit \S+ (?:not found|could not be found"
    r"|does not exist)|Traceback \(most recent call last\):)"
)
_SCRIPT = re.compile(r"/var/lib/cloud/instance/scripts/([\w.-]{1,100}): (?:line )?(\d{1,6}): (.*)")


@dataclass(frozen=True, slots=True)
class Module:
    """One module of one stage: when it ran (seconds from the first line), for how long, how it ended."""

    stage: str
    name: str
    start: float
    seconds: float
    result: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong, the log lines that show it, the line of user-data that caused it (0: not known)."""

    message: str
    lines: tuple[str, ...] = ()
    line: int = 0
    recoverable: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was read."""

    status: str = ""
    modules: tuple[Module, ...] = ()
    problems: tuple[Problem, ...] = ()
    said: tuple[str, ...] = ()  # the lines that runcmd and scripts wrote


def read(status: bytes, log: bytes, output: bytes, user_data: str, cut: bool = False) -> Evidence:
    """From status.json, cloud-init.log, cloud-init-output.log and the user-data that the guest got; `cut`: their ends."""
    lines = sanitize(log[-4_000_000:]).splitlines()
    modules = _modules(lines)
    said = sanitize(output)
    found = [*_from_status(status), *_from_log(lines), *_from_output(said, user_data)]
    found += _not_run(user_data, modules, cut)
    if cut:
        found.append(Problem("the logs are too long: only their ends were read", recoverable=True))
    state = cloudinit.read(status)
    word = "not known" if state is None else "done" if state.done and state.ok else "error" if state.done else "running"
    return Evidence(word, tuple(modules), tuple(_most(found)), _said(said))


def _most(found: list[Problem]) -> list[Problem]:
    """Each once and in their order, of too many those that matter: an error never makes room for a warning."""
    once: dict[str, Problem] = {}
    for p in found:
        if p.message not in once or (once[p.message].recoverable and not p.recoverable):
            once[p.message] = p
    kept = {p.message for p in sorted(once.values(), key=lambda p: p.recoverable)[:MOST]}
    return [p for p in once.values() if p.message in kept]


def _said(output: str) -> tuple[str, ...]:
    """What the last stage wrote into cloud-init-output.log, without cloud-init's own words."""
    final = output[-200_000:].rpartition(" running 'modules:final' at ")[2].partition("\n")[2]
    own = ("ci-info: ", "Cloud-init v. ", "<14>", "-----END SSH HOST KEY")
    lines, key = [], False
    for text in final.splitlines():
        key = (key or text.startswith("-----BEGIN SSH HOST KEY")) and not text.startswith("-----END SSH HOST KEY")
        if text.strip() and not key and not text.startswith(own) and not _LOGGED.match(text[:200]):
            lines.append(text)
    return tuple(lines)


def _when(text: str) -> float:
    return datetime.fromisoformat(text.replace(",", ".")).timestamp()


def _modules(lines: list[str]) -> list[Module]:
    """Modules, by the start and finish that cloud-init's own reporting writes."""
    begun: dict[tuple[str, str], float] = {}
    modules = []
    first = 0.0
    for text in lines:
        if not (m := _LINE.match(text)):
            continue
        try:
            now = _when(m[1])
        except ValueError:
            continue
        first = first or now
        if not (span := _SPAN.match(m[4])):
            continue
        word, stage, name, result, _ = span.groups()
        if not name or not name.startswith("config-"):
            continue  # a stage, or a step that is no module
        key = (stage, name)
        if word == "start":
            begun[key] = now
            continue
        start = begun.pop(key, now)
        modules.append(Module(stage, _plain(name), start - first, max(0.0, now - start), result or "SUCCESS"))
    return modules


def _plain(name: str) -> str:
    return name.removeprefix("config-").replace("-", "_")


def _from_status(status: bytes) -> list[Problem]:
    state = cloudinit.read(status)
    found = [Problem(f"cloud-init: {error}") for error in state.errors] if state else []
    try:
        v1: Any = json.loads(status)["v1"]
        for stage in cloudinit.STAGES:
            for level, texts in (v1.get(stage, {}).get("recoverable_errors") or {}).items():
                if level != "DEPRECATED":
                    found += [Problem(f"{stage}: {sanitize(str(t))[:300]}", recoverable=True) for t in texts]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return found


def _from_log(lines: list[str]) -> list[Problem]:
    found = []
    for i, text in enumerate(lines):
        m = _LINE.match(text)
        if not m or m[3] not in ("ERROR", "WARNING", "CRITICAL"):
            continue
        near = [line for line in lines[max(0, i - 2) : i + 8] if line.strip()]
        trace = any(line.startswith("Traceback") for line in lines[i + 1 : i + 4])
        if _ECHO.search(m[4]):
            continue  # the module's own row tells it
        harmless = _NOTHING.search(m[4]) or not re.search(r"[Ff]ail|[Ii]nvalid|Unhandled", m[4])
        recoverable = m[3] == "WARNING" and not trace and bool(harmless)
        found.append(Problem(m[4][:300], tuple(near[:10]), recoverable=recoverable))
    return found


def _from_output(output: str, user_data: str) -> list[Problem]:
    found = []
    lost = {line: None for line in output.splitlines() if _UNRESOLVED.search(line)}
    if lost:
        names = sorted({m[1] for line in lost if (m := _UNRESOLVED.search(line)) and m[1]})[:5]
        what = f"the network: {', '.join(names) or 'names'} could not be resolved"
        found.append(Problem(what, tuple(lost)[:4]))
    commands, lines = requested.Commands(user_data), requested.package_lines(user_data)
    for text in list(dict.fromkeys(line[:LONGEST] for line in output.splitlines()))[:UNLIKE]:
        if lost and text.startswith(("Err:", "W: Failed to fetch", "  Temporary")):
            continue  # all for the same reason
        if text in lost:
            continue
        if m := _SCRIPT.search(text):
            # The script goes on after it, and ends as its last command does. One that is to be survived says so: `|| true`.
            number, what = int(m[2]), m[3][:200]
            if m[1] == "runcmd":
                may, line = commands.survives(number, what.partition(": ")[0]), commands.line(number)
                found.append(Problem(f"runcmd: {what}", (text,), line, recoverable=may))
            else:
                script = requested.script(user_data, m[1])
                may = script is not None and script.survives(number, what.partition(": ")[0])
                line = script.line(number) if script else 0
                found.append(Problem(f"the script: {what}", (text,), line, recoverable=may))
        elif _SAID.match(text):
            found.append(Problem(f"the output says: {text[:200]}", (text,), recoverable=True))
        elif _APT.match(text):
            words = re.findall(r"[\w.+-]{2,}", text[:400])
            line = next((lines[w] for w in reversed(words) if w in lines), 0)
            found.append(Problem(f"packages: {text[:200]}", (text,), line))
    return found


def _not_run(user_data: str, modules: list[Module], cut: bool) -> list[Problem]:
    """Keys of user-data whose module never ran, or failed; a script that nothing ran. Of a log that is `cut` a warning."""
    if not user_data.strip():
        return []
    if not modules and (parts.known(parts.kind_of(user_data)) or parts.is_mime(user_data)):
        return [Problem("no module found in /var/log/cloud-init.log: cannot tell what cloud-init did")]
    # After a reboot the log has both boots: one that failed is not mended by the next one's "previously ran".
    results = {m.name: m.result for m in sorted(modules, key=lambda m: m.result == "FAIL")}
    found = [Problem(lost.words, line=lost.line) for lost in whole.replaced(user_data)]
    for config in requested.configs(user_data):
        root = config.root
        if not config.wrong and (root is None or root.value is None):
            continue  # the header alone asks for nothing
        if root is None or not isinstance(root.value, dict):
            what = "cloud-init read no configuration from this user-data: it is not a YAML mapping"
            found.append(Problem(what, line=config.line(1)))
            continue
        for key, (node, _) in root.value.items():
            # Of a template's branches one is taken, on the machine.
            rows = _key(key, config.line(node.line), results)
            found += [replace(p, recoverable=True) for p in rows] if config.branches or cut else rows
    if (script := requested.script(user_data)) and "scripts_user" not in results:
        found.append(Problem("the script: the module scripts_user did not run in this image", line=script.begins))
    return found


def _key(key: str, line: int, results: dict[str, str]) -> list[Problem]:
    if schema.aside(key) or parts.HOLE in key:  # the hole is what a template makes
        return []
    row = data.cloudinit()["keys"].get(key)
    if row is None:
        return [Problem(f"{key}: no module of cloud-init knows this key", line=line)]
    name = row.get("module")
    if name and name not in results:
        return [Problem(f"{key}: its module {name} did not run in this image", line=line)]
    if name and results[name] == "FAIL":
        return [Problem(f"{key}: its module {name} failed", line=line)]
    return []
