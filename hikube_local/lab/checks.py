"""The checks of `test`: a list in a file or an annotation, each probed in the guest through testinfra, or from outside."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from hikube_local.errors import UsageError

ANNOTATION = "hikube.local/checks"
# What each kind of check may say, and what it must.
KINDS: dict[str, tuple[set[str], set[str]]] = {
    "run": ({"command", "exit", "stdout", "contains", "matches"}, {"command"}),
    "file": ({"path", "exists", "mode", "owner", "group", "contains"}, {"path"}),
    "service": ({"name", "active", "enabled"}, {"name"}),
    "package": ({"name", "installed"}, {"name"}),
    "user": ({"name", "groups", "sudo", "keys", "exists"}, {"name"}),
    "port": ({"port", "listening"}, {"port"}),
    "http": ({"port", "path", "status", "contains"}, {"port"}),
    "mount": ({"path"}, {"path"}),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its kind, what it says, of which machine (empty: each), after a reboot or not."""

    kind: str
    values: dict[str, Any]
    machine: str = ""
    after_reboot: bool = False

    @property
    def title(self) -> str:
        first = next(iter(self.values.values()), "")
        return f"{self.kind} {str(first)[:80]}" + (" (after reboot)" if self.after_reboot else "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a check: `found` tells what was there for each thing that did not fit."""

    check: Check
    found: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        return not self.found


def parse(text: str, origin: str) -> list[Check]:
    """The checks of a YAML text; HK331 names what is wrong with it."""
    try:
        rows = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise UsageError("HK331", f"{origin} is not YAML: {e}"[:300]) from None
    if rows is None:
        return []
    if not isinstance(rows, list):
        raise UsageError("HK331", f"{origin} is no list of checks", fix="- run: {command: …}")
    return [_one(row, f"{origin}, check {n}") for n, row in enumerate(rows, 1)]


def _one(row: Any, where: str) -> Check:
    if not isinstance(row, dict):
        raise UsageError("HK331", f"{where} is no mapping", fix="- run: {command: …}")
    kinds = [k for k in row if k in KINDS]
    others = set(row) - set(KINDS) - {"machine", "after"}
    if len(kinds) != 1 or others:
        what = f"{where} has {', '.join(map(repr, row)) or 'nothing'}"
        raise UsageError("HK331", what, fix=f"one of {', '.join(KINDS)}, beside it machine: and after: reboot")
    kind, values = kinds[0], row[kinds[0]]
    allowed, needed = KINDS[kind]
    if not isinstance(values, dict) or set(values) - allowed or needed - set(values):
        raise UsageError("HK331", f"{where}: {kind} takes {', '.join(sorted(allowed))}, and needs {', '.join(needed)}")
    _types(kind, values, where)
    if row.get("after") not in (None, "reboot"):
        raise UsageError("HK331", f"{where}: after: is {row['after']!r}", fix="after: reboot")
    return Check(kind, values, str(row.get("machine", "")), row.get("after") == "reboot")


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _pattern(value: Any) -> bool:
    try:
        re.compile(str(value))
    except re.error:
        return False
    return True


# What would mislead later; a name that is not here may be anything.
_GOOD: dict[str, Callable[[Any], bool]] = {
    # 0644 without quotes is read as 420: our own warning of user-data holds here too.
    "mode": lambda value: isinstance(value, str) and bool(re.fullmatch("[0-7]{3,4}", value)),
    "groups": lambda value: isinstance(value, list),
    "keys": lambda value: isinstance(value, list | int),
    "matches": _pattern,
    **dict.fromkeys(("port", "status", "exit"), _number),
    **dict.fromkeys(("exists", "active", "enabled", "installed", "listening", "sudo"), _flag),
}


def _types(kind: str, values: dict[str, Any], where: str) -> None:
    """HK331 before anything boots."""
    for name, value in values.items():
        if name in _GOOD and not _GOOD[name](value):
            fix = "quote a mode: '0644'; groups and keys are lists"
            raise UsageError("HK331", f"{where}: {kind}.{name} is {value!r}"[:200], fix=fix)


Http = Callable[[int, str], tuple[int, str]]


def probe(check: Check, host: Any, http: Http) -> Outcome:
    """Carry it out. `host` is testinfra's; `http(port, path)` asks from outside the guest: (status, body)."""
    try:
        return Outcome(check, tuple(_PROBES[check.kind](check.values, host, http)))
    except Exception as e:
        return Outcome(check, (f"it could not be looked at: {e}"[:300],))


def _differs(what: str, have: Any, want: Any) -> list[str]:
    return [] if have == want else [f"{what} is {have!r}, not {want!r}"]


def _text(found: str, values: dict[str, Any]) -> list[str]:
    shown = found.strip()[-200:] or "nothing"
    out = []
    if "stdout" in values and found.strip() != str(values["stdout"]).strip():
        out.append(f"the output is {shown!r}")
    if "contains" in values and str(values["contains"]) not in found:
        out.append(f"{values['contains']!r} does not stand in {shown!r}")
    if "matches" in values and not re.search(str(values["matches"]), found, re.M):
        out.append(f"{values['matches']!r} does not match {shown!r}")
    return out


def _run(v: dict[str, Any], host: Any, http: Http) -> list[str]:
    done = host.run(str(v["command"]))
    out = _differs("the exit code", done.rc, v.get("exit", 0))
    out += _text(done.stdout, v)
    return [*out, f"stderr: {done.stderr.strip()[-200:]}"] if out and done.stderr.strip() else out


def _file(v: dict[str, Any], host: Any, http: Http) -> list[str]:
    f = host.file(str(v["path"]))
    wanted = v.get("exists", True)
    if f.exists != wanted:
        return ["it does not exist" if wanted else "it exists"]
    if not wanted:
        return []
    out = []
    if "mode" in v:
        mode = int(str(v["mode"]), 8)
        out += [] if f.mode == mode else [f"its mode is {f.mode:04o}, not {mode:04o}"]
    out += _differs("its owner", f.user, v["owner"]) if "owner" in v else []
    out += _differs("its group", f.group, v["group"]) if "group" in v else []
    return out + (_text(f.content_string, {"contains": v["contains"]}) if "contains" in v else [])


def _service(v: dict[str, Any], host: Any, http: Http) -> list[str]:
    s = host.service(str(v["name"]))
    out = _differs("active", s.is_running, v.get("active", True))
    return out + (_differs("enabled", s.is_enabled, v["enabled"]) if "enabled" in v else [])


def _package(v: dict[str, Any], host: Any, http: Http) -> list[str]:
    return _differs("installed", host.package(str(v["name"])).is_installed, v.get("installed", True))


def _user(v: dict[str, Any], host: Any, http: Http) -> list[str]:
    u = host.user(str(v["name"]))
    if u.exists != v.get("exists", True):
        return ["there is no such user" if not u.exists else "the user exists"]
    if not u.exists:
        return []
    missing = sorted(set(v.get("groups", [])) - set(u.groups))
    out = [f"it is not in {', '.join(missing)}, but in {', '.join(u.groups)}"] if missing else []
    if "sudo" in v:
        may = host.run("sudo -n -l -U %s", u.name).stdout
        out += _differs("sudo", "may run the following" in may, v["sudo"])
    if "keys" in v:
        text = host.run("cat %s/.ssh/authorized_keys 2>/dev/null", u.home).stdout
        have = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        want = v["keys"]
        if isinstance(want, bool):
            out += _differs("has keys", bool(have), want)
        elif isinstance(want, int):
            out += _differs("the number of keys", len(have), want)
        else:
            gone = [k for k in want if not any(str(k).split()[1:2] == h.split()[1:2] for h in have)]
            out += [f"{len(gone)} of {len(want)} keys are not there"] if gone else []
    return out


def _port(v: dict[str, Any], host: Any, http: Http) -> list[str]:
    number = int(v["port"])
    code = "ss -H -lnt sport = :%s"
    return _differs("listening", bool(host.run(code, str(number)).stdout.strip()), v.get("listening", True))


def _http(v: dict[str, Any], host: Any, http: Http) -> list[str]:
    status, body = http(int(v["port"]), str(v.get("path", "/")))
    if not status:
        return [body]
    return _differs("the status", status, v.get("status", 200)) + _text(
        body, {"contains": v["contains"]} if "contains" in v else {}
    )


def _mount(v: dict[str, Any], host: Any, http: Http) -> list[str]:
    return _differs("mounted", host.mount_point(str(v["path"])).exists, True)


_PROBES: dict[str, Callable[[dict[str, Any], Any, Http], list[str]]] = {
    "run": _run,
    "file": _file,
    "service": _service,
    "package": _package,
    "user": _user,
    "port": _port,
    "http": _http,
    "mount": _mount,
}
