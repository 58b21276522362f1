"""What cloud-init takes and what bites all the same; each trap a small function over the text or the tree; pure."""

from __future__ import annotations

import base64
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import Any

from hikube_local.catalogue import data
from hikube_local.manifests.userdata import clear_passwords, known, shuts_ssh_out
from hikube_local.source.finding import Finding, Severity
from hikube_local.source.nodes import Node
from hikube_local.userdata import accounts, parts, schema, shell, tree

WARNING, TOLD = Severity.WARNING, Severity.DIFFERENCE
# Users that an image has before cloud-init makes any.
_SYSTEM = frozenset(
    [
        *("root", "daemon", "bin", "sys", "adm", "mail", "nobody", "www-data", "sshd", "systemd-network", "messagebus"),
        # base-passwd of Debian and Ubuntu, and what every image of theirs installs
        *("sync", "games", "man", "lp", "news", "uucp", "proxy", "backup", "list", "irc", "gnats", "_apt"),
        *("systemd-resolve", "systemd-timesync", "syslog", "uuidd", "tss", "polkitd", "_chrony", "dnsmasq"),
    ]
)
_NET = re.compile(
    # A command may be written as a list too: its words stand apart by more than blanks.
    r"(?:(?<!-v )(?<!which )(?<!type )\b(?:curl|wget)\b(?=[ \"',]+\S)(?![^\n]*(?:localhost|127\.0\.0\.1|\[::1\]))|\bgit[\s,\"']+clone\b|\bpip3?[\s,\"']+install\b|\bnpm[\s,\"']+(?:i|install)\b"
    r"|\b(?:apt|apt-get|dnf|yum|zypper|apk|pacman)\b[^\n;&|]{0,120}\b(?:update|upgrade|install|add|dist-upgrade)\b"
    r"|\bsnap[\s,\"']+install\b|\b(?:docker|podman)[\s,\"']+(?:pull|run)\b|\badd-apt-repository\b"
    r"|\bhelm[\s,\"']+(?:repo|install)\b)"
)
# A host's name: no path, no dot file, none of the files that end so, no cluster's own domain.
_NAME = (
    r"(?!(?:rc|jail|env|fail2ban|user|zshrc|bashrc)\.local)(?![\w.-]*cluster\.local)"
    r"[a-z0-9][a-z0-9-]{0,62}(?:\.[a-z0-9-]{1,63}){0,8}\.local(?![\w/-]*\.|[\w-])"
)
# Where a name is looked up: behind a program that connects, in a URL, before a path of another host.
_LOCAL = re.compile(
    r"(?:\b(?:curl|wget|ping6?|ssh|scp|sftp|rsync|nc|ncat|telnet|dig|host|nslookup|getent|mount(?:\.\w+)?|psql|pg_isready"
    r"|mysql|mysqladmin|redis-cli|ntpdate|chronyc|smbclient|ldapsearch|nmap|traceroute|openssl\s+s_client)\b[^\n|;&>]{0,200}?"
    rf"(?:[ \t\"',=@])(?P<a>{_NAME})|[a-z]{{2,10}}://(?:[^\s/@]{{1,80}}@)?(?P<b>{_NAME})|(?<![\w./~-])(?P<c>{_NAME}):/)",
    re.I,
)
_SERVERS = re.compile(rf"^\s*(?:-\s+|servers?\s*[:=]\s*|pools?\s*[:=]\s*)[\"']?(?P<a>{_NAME})[\"']?\s*$", re.I)
_HOSTS = re.compile(r"^\s*[0-9a-f.:]{3,45}[ \t]+(\S.*)$", re.I)  # a line of /etc/hosts
LONGEST = 2000  # characters of a line that are looked at


def of_text(text: str, script: bool) -> Iterator[Finding]:
    """Traps of any part."""
    # Comments say what they like; a line longer than any command is data.
    lines = [("" if _comment(line) else line)[:LONGEST] for line in text.splitlines()]
    plain = "\n".join(lines)
    first = text.find("\n")
    if script and "\r\n" in text and text[max(0, first - 1)] != "\r":
        # Where the first line ends so too, cloud-init mends all of them (util.py, dos2unix).
        what = "lines after the first end in CR LF: the shell reads the CR as part of each command"
        yield Finding("HK354", WARNING, what, 1, help="save it with Unix line endings")
    if (at := shuts_ssh_out(plain)) is not None:
        yield known("HK329", plain.count("\n", 0, at) + 1)
    own = _own_names(lines)
    cured = re.search(r"\bDomains\s*=.*\blocal\b|\b(?:avahi|libnss-mdns|mdns)\b", plain)
    servers = False
    for number, line in enumerate(lines, 1):
        servers = bool(re.match(r"\s*(?:servers|pools)\s*:", line)) or (servers and line.lstrip().startswith("- "))
        found = _LOCAL.search(line) or (_SERVERS.search(line) if servers else None)
        name = next((g for g in found.groupdict().values() if g), "") if found else ""
        if name and not cured and name.lower() not in own:
            what = f"{name}: systemd-resolved does not ask DNS for .local names: Debian and Ubuntu cannot resolve it"
            help = "write a drop-in for systemd-resolved or networkd first (Domains=~local), or use the IP"
            yield Finding("HK351", WARNING, what, number, help=help)
        if found := _NET.search(line):
            yield Finding("HK350", TOLD, f"needs the internet: {found[0].strip()[:60]}", number)


def _comment(line: str) -> bool:
    """Whether a line is a comment, and not the one that says who runs a script."""
    start = line.lstrip()
    return start.startswith("#") and not start.startswith("#!")


def _own_names(lines: list[str]) -> frozenset[str]:
    """Names that are answered without DNS: the machine's own, and those of lines for /etc/hosts."""
    found: set[str] = set()
    for line in lines:
        if m := re.match(r"\s*(?:fqdn|hostname)\s*:\s*[\"']?([\w.-]{1,255})", line):
            found.add(m[1].lower())
        elif "/etc/hosts" in line:
            found |= {w.lower() for w in re.findall(r"[\w.-]+\.local\b", line)[:50]}
        elif m := _HOSTS.match(line):
            found |= {w.lower().strip("\"'") for w in m[1].split()[:20]}
    return frozenset(found)


def of_config(root: Node, text: str) -> Iterator[Finding]:
    """Traps of one cloud-config, each part for itself."""
    yield from shell.of_commands(root, text.split("\n"))
    yield from accounts.of_keys(root)
    yield from _contents(root)
    yield from _network(root)
    yield from _passwords(root)
    yield from _words(root)


def of_whole(root: Node, keys_given: bool, bare: bool, text: str) -> Iterator[Finding]:
    """Traps of what all parts come to together; `text` is the whole user-data."""
    yield from accounts.of_users(root, keys_given, bare, text)
    yield from accounts.of_groups(root)
    yield from _owners(root)
    yield from _packages(root)
    yield from _formats(root)


def _formats(root: Node) -> Iterator[Finding]:
    node = root.get("fs_setup")
    for i, item in enumerate(node.value if node is not None and isinstance(node.value, list) else ()):
        row = tree.data(item) if isinstance(item.value, dict) else {}
        raw = "partition" in row and str(row["partition"]).lower() == "none"
        if raw or schema.truth(row.get("overwrite")) is True:
            why = "partition: none" if raw else "overwrite: true"
            device = str(row.get("device"))[:60]
            what = f"fs_setup[{i}] formats {device} again and erases its data when the instance-id changes ({why})"
            help = "leave partition out (auto looks for a file system first) and set overwrite: false"
            yield Finding("HK360", WARNING, what, item, path=f"fs_setup[{i}]", help=help)


def _items(root: Node) -> Iterator[tuple[str, Node, dict[str, Any]]]:
    """(path, node, values) of write_files."""
    node = root.get("write_files")
    for i, item in enumerate(node.value if node is not None and isinstance(node.value, list) else ()):
        if isinstance(item.value, dict):
            yield f"write_files[{i}]", item, tree.data(item)


def _contents(root: Node) -> Iterator[Finding]:
    """What a file's row says of itself: its mode, and how its content is packed."""
    for path, item, row in _items(root):
        mode = item.get("permissions")
        if mode is not None and isinstance(number := tree.value(mode), int) and not isinstance(number, bool):
            good = mode.text.startswith("0")
            what = f"{path}.permissions {mode.text} is a number: "
            what += "YAML 1.1 reads it as octal, as intended" if good else f"it becomes the mode {number:04o}"
            help = f"write '{mode.text if good else '0' + mode.text}' in quotes"
            yield Finding("HK347", TOLD if good else WARNING, what, mode, path=path, help=help)
        content = item.get("content")
        if (
            content is not None
            and isinstance(content.value, str)
            and (why := packed(content.value, row.get("encoding")))
        ):
            what = f"{path}.content {why}: cloud-init writes neither this file nor those after it"
            yield Finding("HK340", Severity.ERROR, what, content, path=path, help="use the output of base64 -w0 FILE")


def packed(content: str, encoding: object) -> str:
    """Why a file's content cannot be unpacked as cloud-init does it (cc_write_files.py); empty where it can."""
    word = str(encoding or "").lower().strip()
    if (
        word not in ("gz", "gzip", "gz+base64", "gzip+base64", "gz+b64", "gzip+b64", "b64", "base64")
        or parts.HOLE in content
    ):
        return ""
    raw = content.encode()
    if "b64" in word or "base64" in word:
        try:
            raw = base64.b64decode(raw)
        except ValueError as e:
            return f"is not base64 ({str(e).lower()})"
    if word.startswith("gz") and ("64" in word or not content.startswith("H4sI")):  # what !!binary holds is text here
        try:
            gzip.GzipFile(fileobj=io.BytesIO(raw)).read(parts.MOST)
        except (OSError, EOFError, zlib.error):
            return "is not gzip"
    return ""


def _owners(root: Node) -> Iterator[Finding]:
    """Files that are written before their owner, or the home folder around them, is made."""
    rest = tree.data(root)
    users = accounts.listed(rest.get("users", ["default"]))
    made = {u["name"] for u in users if isinstance(u, dict) and isinstance(u.get("name"), str)}
    made |= {u for u in users if isinstance(u, str)} | accounts.default_users(users)
    first = repr(rest.get("bootcmd") or "")
    for path, item, row in _items(root):
        if schema.truth(row.get("defer")) is True:
            continue
        owner = str(row.get("owner") or "").partition(":")[0]
        if (
            owner
            and owner.lower() != "none"
            and owner not in _SYSTEM
            and not re.search(rf"add\b.*\b{re.escape(owner)}\b", first)
        ):
            late = "users: creates this user only afterwards" if owner in made else "the image may not have this user"
            what = f"{path}.owner is {owner}, but write_files runs before users are created: {late}"
            yield Finding("HK348", WARNING, what, item.get("owner") or item, path=path, help="add `defer: true`")
        home = re.match(r"/home/([^/]+)/", str(row.get("path") or ""))
        if home and home[1] in made:
            what = f"{path} creates /home/{home[1]} before its user: the home directory then belongs to root"
            yield Finding("HK348", WARNING, what, item.get("path") or item, path=path, help="add `defer: true`")


def _packages(root: Node) -> Iterator[Finding]:
    node = root.get("packages")
    if node is None or not node.value:
        return
    rest = tree.data(root)
    if not any(rest.get(k) for k in ("package_update", "apt_update", "package_upgrade", "apt_upgrade")):
        what = "packages without package_update: Debian's and Ubuntu's cloud-init updates the lists anyway, others use"
        what += " the old or empty lists of the image"
        yield Finding("HK349", TOLD, what, node, path="packages", help="add `package_update: true`")


def _network(root: Node) -> Iterator[Finding]:
    for name, (key, node) in root.value.items():
        row = data.cloudinit()["keys"].get(name) or {}
        if row.get("network") and tree.data(node) not in (None, False, [], {}, ""):
            yield Finding("HK350", TOLD, f"needs the internet: {name}", key, path=name)


def _passwords(root: Node) -> Iterator[Finding]:
    for where in clear_passwords(tree.data(root)):
        at = root.get(where.partition(".")[0].partition(":")[0])
        yield known("HK330", at or 1, where, where)


def _words(root: Node) -> Iterator[Finding]:
    node = root.get("final_message")
    if node is not None and not str(tree.data(node) or "").strip():
        what = "final_message has no text: the console does not show that cloud-init has finished"
        yield Finding("HK352", WARNING, what, node, path="final_message", help="leave it out, or write a sentence")


def yaml_word(node: Any) -> str:
    """What YAML 1.1 made of a plain word (yes, no, on, off), for the help of a type error; empty for others."""
    if isinstance(node, Node) and node.plain and node.text.lower() in ("yes", "no", "on", "off", "y", "n"):
        return f"YAML 1.1 reads {node.text} as {tree.value(node)}: put it in quotes"
    return ""
