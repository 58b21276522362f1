"""The checks of `test` carried out: in the guest through testinfra, or from outside."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from typing import Any

from hikube_local.lab.checklist import Check
from hikube_local.records import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a check: `found` tells what was there for each thing that did not fit."""

    check: Check
    found: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        return not self.found


Http = Callable[[int, str], tuple[int, str]]


def probe(check: Check, host: Any, http: Http) -> Outcome:
    """Carry it out. `host` is testinfra's; `http(port, path)` asks from outside the guest: (status, body)."""
    try:
        return Outcome(check, tuple(_PROBES[check.kind](check.values, host, http)))
    except Exception as e:
        return Outcome(check, (f"the check could not run: {e}"[:300],))


def _differs(what: str, have: Any, want: Any) -> list[str]:
    return [] if have == want else [f"{what} is {have!r}, not {want!r}"]


def _text(found: str, values: dict[str, Any]) -> list[str]:
    shown = found.strip()[-200:] or "nothing"
    out = []
    if "stdout" in values and found.strip() != str(values["stdout"]).strip():
        out.append(f"the output is {shown!r}")
    if "contains" in values and str(values["contains"]) not in found:
        out.append(f"{values['contains']!r} is not in {shown!r}")
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
