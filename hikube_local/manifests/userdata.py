"""What can be said of user-data without a machine: whether the chart carries it, its header, the users trap."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hikube_local.api.objects import BUSES, VMInstanceSpec
from hikube_local.catalogue.cloudconfig import SECRET_LIMIT, is_mime, kind_of, parsed
from hikube_local.render.seed import UserDataRefused, chart_text
from hikube_local.source.finding import Finding, Path, Place, Severity, Spot


def userdata_rules(spec: VMInstanceSpec) -> Iterator[Finding]:
    text = spec.cloudInit
    if not text:
        if spec.whole_ip:
            yield from open_to_all()
        return
    where = ("cloudInit",)
    try:
        carried = chart_text(text)
    except UserDataRefused as e:
        yield Finding("HK315", Severity.ERROR, str(e), where, "indent every line at least as far as the first one")
        return
    if not carried:
        what = "cloudInit is blank: KubeVirt does not start a machine with an empty user-data"
        yield Finding("HK335", Severity.ERROR, what, where, "write #cloud-config, or remove cloudInit")
        return
    if len(carried.encode()) > SECRET_LIMIT:
        yield Finding("HK327", Severity.ERROR, "cloudInit is larger than a Secret may be (1 MiB)", where)
        return
    if not kind_of(carried) and not is_mime(carried):
        yield _finding("HK316")
    yield from _firewall(spec, carried)
    yield from _devices(spec, carried)
    config = parsed(carried)
    if isinstance(config, dict):
        yield from _passwords(config)
    users = config.get("users") if isinstance(config, dict) else None
    if any(spec.sshKeys) and isinstance(users, list) and users:
        has_default = any(u == "default" or (isinstance(u, dict) and u.get("name") == "default") for u in users)
        if not has_default:
            yield _finding("HK317")


_FIREWALLS = re.compile(r"\b(ufw|nft|nftables|iptables|firewalld|firewall-cmd)\b")
# What `cloudinit check` says of the same traps: (sentence, help) by code.
WORDS = {
    "HK316": (
        "user-data has no header that cloud-init knows: cloud-init will ignore it",
        "begin with #cloud-config or #!/bin/sh",
    ),
    "HK317": (
        "users: has no `default`, so cloud-init creates no default user and nobody gets the sshKeys",
        "add `- default` as the first item of users:",
    ),
    "HK329": (
        "`ufw enable` without `ufw allow ssh` before it blocks SSH access",
        "allow OpenSSH first, then enable",
    ),
    "HK330": (
        "the user-data has a password in clear text ({}); whoever can read the machine's metadata can read it",
        "use sshKeys, or a hash (mkpasswd -m sha-512)",
    ),
}
_UFW_ON = re.compile(r"\bufw\b[^\n#;&|]{0,80}\benable\b")
_UFW_LET = re.compile(
    r"\bufw\s+default\s+allow\b((\s+incoming))?|\bufw\b[^\n#;&|]{0,80}?\b(?:allow|limit)\b([^\n#;&|]{0,160})", re.I
)
_SSHD_PORT = re.compile(r"(?im)^[\s\"'-]*(?:echo\s+[\"']?)?(?:#\s*)?Port[\s=]+(\d{1,5})\b|[/|,]Port\s+(\d{1,5})")
_TOP = re.compile(r"(?m)^([A-Za-z_-]+)\s*:")


_DEVICE = re.compile(r"/dev/((?:vd|sd)[a-z])(?:\d{1,3})?\b")


def _devices(spec: VMInstanceSpec, text: str) -> Iterator[Finding]:
    """Disks that user-data names and that are not there: the seed has the letter behind the last disk."""
    from hikube_local.catalogue import data as tables
    from hikube_local.render import domain, machine

    if (spec.instanceProfile or "ubuntu") not in tables.profiles() or any(
        d.bus not in (None, *BUSES) for d in spec.disks
    ):
        return  # told elsewhere
    have = domain.targets(
        [machine.bus_of(spec, i, False) for i in range(len(spec.disks))] + [machine.seed_device(spec, "").bus]
    )
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    named = {m[1] for line in lines for m in _DEVICE.finditer(line[:2000])}
    for device in sorted(named):
        if device == have[-1]:
            what = f"/dev/{device} in the user-data is the cloud-init seed: this machine has {len(spec.disks)} disks"
        elif device not in have and not any(d.hotpluggable for d in spec.disks) and device[:2] in {h[:2] for h in have}:
            what = f"/dev/{device} in the user-data does not exist: this machine has {', '.join(have[:-1]) or 'none'}"
        else:
            continue
        help = (
            f"add a VMDisk to disks, which becomes /dev/{have[-1]}" if device == have[-1] else "add the VMDisk to disks"
        )
        yield Finding("HK362", Severity.WARNING, what, ("cloudInit",), help)


def _firewall(spec: VMInstanceSpec, text: str) -> Iterator[Finding]:
    """WholeIP puts nothing in front of the guest; a firewall that is switched on before it lets ssh in shuts its owner out."""
    if spec.whole_ip and not _FIREWALLS.search(text):
        yield from open_to_all()
    if shuts_ssh_out(text) is not None:
        yield _finding("HK329")


def shuts_ssh_out(text: str) -> int | None:
    """Where ufw is switched on before it lets ssh in; None where it is not, or where that cannot be told."""
    on = next((m for m in _UFW_ON.finditer(text) if _runs(text, m.start())), None)
    if on is None:
        return None
    ports = {22, *(int(p) for pair in _SSHD_PORT.findall(text) for p in pair if p and int(p) < 65536)}
    for m in _UFW_LET.finditer(text):
        # A file is written before any command runs, wherever it stands.
        early = m.start() < on.start() or _section(text, m.start()) == "write_files"
        if early and (m[2] or _lets_in(m[3] or "", ports)):
            return None
    return on.start()


def _section(text: str, at: int) -> str:
    """The top-level key of a cloud-config under which a place stands; empty in a script."""
    found = ""
    for m in _TOP.finditer(text, 0, at):
        found = m[1].replace("-", "_")
    return found if found in ("write_files", "runcmd", "bootcmd") else ""


def _runs(text: str, at: int) -> bool:
    """Whether a command there is run: not words in a file that is written, unless that file is a script."""
    if _section(text, at) != "write_files":
        return True
    begin = max((m.start() for m in re.finditer(r"(?m)^\s*-\s", text[:at])), default=0)
    return "#!" in text[begin:at]


def _lets_in(words: str, ports: set[int]) -> bool:
    """Whether `ufw allow WORDS` lets ssh in: by name, by sshd's port, by a range, from somewhere, or by what is not known."""
    if re.search(r"ssh|[$`{%\ue000-\uf8ff]", words, re.I):
        return True
    if re.search(r"\bfrom\b|\bin\s+on\b", words) and not re.search(r"\bport\b", words):
        return True
    for low, high in re.findall(r"(?<![\d.])(\d{1,5})(?::(\d{1,5}))?(?![\d.])", words):
        if any(int(low) <= p <= int(high or low) for p in ports):
            return True
    name = re.search(r"^[\s,\"']*([A-Z][\w -]{1,40})", words)  # an application profile
    return name is not None and name[1].split()[0] not in (
        "Nginx",
        "Apache",
        "WWW",
        "DNS",
        "CUPS",
        "Samba",
        "Postfix",
        "Dovecot",
    )


def known(code: str, at: Place | Spot | Path | int, path: str = "", about: str = "") -> Finding:
    """A warning about user-data in the words of the table, for `validate` and for `cloudinit check`."""
    what, help = WORDS[code]
    return Finding(code, Severity.WARNING, what.format(about), at, help, path)


def _finding(code: str, about: str = "") -> Finding:
    return known(code, ("cloudInit",), about=about)


def open_to_all() -> Iterator[Finding]:
    """The warning of WholeIP without a firewall of the guest's own."""
    what = "WholeIP: every port of the guest is open to the internet on Hikube, and the user-data sets up no firewall"
    yield Finding("HK328", Severity.WARNING, what, ("externalMethod",), "set one up (ufw, nftables), or use PortList")


def _passwords(config: dict[str, Any]) -> Iterator[Finding]:
    """Passwords in clear, whose values are never printed."""
    for where in clear_passwords(config):
        yield _finding("HK330", where)


def clear_passwords(config: dict[str, Any]) -> list[str]:
    """Where a cloud-config has a password in clear."""
    found = []
    if isinstance(config.get("password"), str | int) and not _hashed(str(config["password"])):
        found.append("password")
    change = config.get("chpasswd")
    listed = change.get("list") if isinstance(change, dict) else None
    lines = listed.splitlines() if isinstance(listed, str) else listed if isinstance(listed, list) else []
    if any(isinstance(x, str) and ":" in x and not _hashed(x.split(":", 1)[1]) for x in lines):
        found.append("chpasswd.list")
    entries = change.get("users") if isinstance(change, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        word = entry.get("password") if isinstance(entry, dict) else None
        if word and entry.get("type", "hash") == "text":
            found.append("chpasswd.users: password")
    users = config.get("users")
    for user in users if isinstance(users, list) else []:
        if isinstance(user, dict) and user.get("plain_text_passwd"):
            found.append(f"users: {str(user.get('name', '?'))[:40]}: plain_text_passwd")
        for word in ("passwd", "hashed_passwd"):
            given = user.get(word) if isinstance(user, dict) else None
            # A word that no hash can be does not open the account either: it is taken for the hash.
            if isinstance(given, str) and given and not _HASH.fullmatch(given):
                found.append(f"users: {str(user.get('name', '?'))[:40]}: {word}, which must be a hash")
    return found


# crypt(5): $id$…, DES (13 characters) and its extended form (_ and 19); `!` and `*` open no account.
_HASH = re.compile(r"[$!*].*|[./0-9A-Za-z]{13}|_[./0-9A-Za-z]{19}", re.S)


def _hashed(text: str) -> bool:
    return text.startswith(("$1$", "$2", "$5$", "$6$", "$y$", "$7$")) or text.strip() in ("R", "RANDOM")
