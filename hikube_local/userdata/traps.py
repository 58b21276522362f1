"""What cloud-init takes and what bites all the same; each trap a small function over the text or the tree; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hikube_local.catalogue import data
from hikube_local.manifests import keys
from hikube_local.manifests.diagnostics import Severity
from hikube_local.manifests.nodes import Node
from hikube_local.manifests.userdata import WORDS, clear_passwords, shuts_ssh_out
from hikube_local.userdata import tree
from hikube_local.userdata.notes import Note

WARNING, TOLD = Severity.WARNING, Severity.DIFFERENCE
_COMMANDS = ("runcmd", "bootcmd")
# Users that an image has before cloud-init makes any.
_SYSTEM = frozenset(
    ["root", "daemon", "bin", "sys", "adm", "mail", "nobody", "www-data", "sshd", "systemd-network", "messagebus"]
)
_NET = re.compile(
    # A command may be written as a list too: its words stand apart by more than blanks.
    r"(?:(?<!-v )(?<!which )(?<!type )\b(?:curl|wget)\b(?=[ \"',]+\S)(?![^\n]*(?:localhost|127\.0\.0\.1|\[::1\]))|\bgit[\s,\"']+clone\b|\bpip3?[\s,\"']+install\b|\bnpm[\s,\"']+(?:i|install)\b"
    r"|\b(?:apt|apt-get|dnf|yum|zypper|apk|pacman)\b[^\n;&|]{0,120}\b(?:update|upgrade|install|add|dist-upgrade)\b"
    r"|\bsnap[\s,\"']+install\b|\b(?:docker|podman)[\s,\"']+(?:pull|run)\b|\badd-apt-repository\b"
    r"|\bhelm[\s,\"']+(?:repo|install)\b)"
)
# A host's name: no path, no dot file, none of the files that end so.
_LOCAL = re.compile(
    r"(?<![\w./~-])(?:https?://)?(?!(?:rc|jail|env|fail2ban|user|zshrc|bashrc)\.local)"
    r"[a-z0-9][a-z0-9-]{0,62}(?:\.[a-z0-9-]{1,63}){0,8}\.local(?![\w./-]*\.|[\w-])",
    re.I,
)
LONGEST = 2000  # characters of a line that are looked at


def of_text(text: str, script: bool) -> Iterator[Note]:
    """Traps of any part."""
    # Comments say what they like; a line longer than any command is data.
    lines = [("" if line.lstrip().startswith("#") else line)[:LONGEST] for line in text.splitlines()]
    plain = "\n".join(lines)
    if "\r\n" in text:
        what = "its lines end in CR LF" + (
            ": the kernel looks for an interpreter whose name ends in CR" if script else ""
        )
        yield Note("HK354", WARNING, what, 1, help="save it with Unix line ends")
    if (at := shuts_ssh_out(plain)) is not None:
        yield known("HK329", plain.count("\n", 0, at) + 1)
    cured = re.search(r"\bDomains\s*=.*\blocal\b", plain)
    for number, line in enumerate(lines, 1):
        if not cured and (found := _LOCAL.search(line)):
            what = f"{found[0]}: systemd-resolved asks no DNS server for names under .local, so Debian and Ubuntu refuse it"
            help = "write a drop-in for systemd-resolved or networkd first (Domains=~local), or use the IP"
            yield Note("HK351", WARNING, what, number, help=help)
        if found := _NET.search(line):
            yield Note("HK350", TOLD, f"needs the internet: {found[0].strip()[:60]}", number)


def known(code: str, at: Any, path: str = "", about: str = "") -> Note:
    """A warning that `validate` gives too, in the same words."""
    what, help = WORDS[code]
    return Note(code, WARNING, what.format(about), at, path, help)


def of_config(root: Node, keys_given: bool, bare: bool) -> Iterator[Note]:
    """Traps of a cloud-config."""
    yield from _commands(root)
    yield from _users(root, keys_given, bare)
    yield from _keys(root)
    yield from _files(root)
    yield from _packages(root)
    yield from _network(root)
    yield from _passwords(root)
    yield from _words(root)


def _commands(root: Node) -> Iterator[Note]:
    for name in _COMMANDS:
        node = root.get(name)
        if node is None or not isinstance(node.value, list):
            continue
        for i, item in enumerate(node.value):
            path = f"{name}[{i}]"
            if isinstance(item.value, dict):
                first = next(iter(item.value), "")
                what = f"{path} is a mapping, because of the ': ' behind {first[:40]!r}: cloud-init cannot run it"
                yield Note("HK345", Severity.ERROR, what, item, path, "put the whole command in quotes, or write `- |`")
            elif isinstance(item.value, list):
                for part in item.value:
                    yield from _word(part, path)
            elif item.plain and not isinstance(tree.value(item), str):
                shown = tree.value(item)
                what = f"{path}: {item.text} is read as {shown!r} by YAML 1.1, not as a command"
                yield Note("HK353", WARNING, what, item, path, "put it in quotes")
        yield from _masked(node, name)


def _word(part: Node, path: str) -> Iterator[Note]:
    """An argument that YAML makes another one: 0755 becomes 493, no becomes False."""
    if isinstance(part.value, dict | list):
        return
    found = tree.value(part)
    if part.plain and not isinstance(found, str) and found is not None and str(found) != part.text:
        what = f"{path}: the argument {part.text} is read as {found!r} by YAML 1.1"
        yield Note("HK353", WARNING, what, part, path, "put it in quotes")


def _masked(node: Node, name: str) -> Iterator[Note]:
    texts = [" ".join(str(p) for p in tree.data(i)) if isinstance(i.value, list) else i.text for i in node.value]
    careful = any(re.match(r"set -(?:[a-z]*e|o errexit)", t) for t in texts[:2])
    if name == "runcmd" and len(texts) > 1 and not careful:
        what = "only the last command's exit code counts: one that fails before it is reported as success"
        yield Note("HK346", TOLD, what, node, name, "begin with `- set -e`, or join what belongs together with &&")


def _users(root: Node, keys_given: bool, bare: bool) -> Iterator[Note]:
    node = root.get("users")
    if node is None or tree.data(node) is None:
        return
    users = _listed(tree.data(node))
    if any(u == "default" or (isinstance(u, dict) and u.get("name") == "default") for u in users):
        return
    if keys_given:
        yield known("HK317", node, "users")
    named = [u for u in users if isinstance(u, dict)]
    ways = ("ssh_authorized_keys", "ssh-authorized-keys", "ssh_import_id")
    words = ("passwd", "hashed_passwd", "plain_text_passwd")
    locked = [u for u in named if any(u.get(w) for w in words) and u.get("lock_passwd", u.get("lock-passwd", True))]
    rest = tree.data(root)
    change = rest.get("chpasswd")
    given = rest.get("password") or (isinstance(change, dict) and (change.get("list") or change.get("users")))
    opened = [u for u in named if u not in locked and any(u.get(w) for w in words)]
    enter = given or opened or any(u.get(w) for u in named for w in ways)
    if not enter and (bare or not keys_given):
        what = "users: has no `default`, and none of these users has a key or a password: nobody can log in"
        help = "add `- default`, or ssh_authorized_keys to a user"
        if locked:
            what = f"users: the password of {locked[0].get('name', '')} is locked, which is cloud-init's default: nobody can log in"
            help = "add `lock_passwd: false`, or ssh_authorized_keys"
        yield Note("HK317", WARNING, what, node, "users", help)


def _keys(root: Node) -> Iterator[Note]:
    """Keys that let nobody in: those of users, and the default user's at the top."""
    users = root.get("users")
    rows = users.value if users is not None and isinstance(users.value, list) else []
    for owner in [root, *(r for r in rows if isinstance(r.value, dict))]:
        for name in ("ssh_authorized_keys", "ssh-authorized-keys"):
            node = owner.get(name)
            texts = node.value if node is not None and isinstance(node.value, list) else [node] if node else []
            for item in texts:
                if not isinstance(text := tree.value(item), str):
                    continue
                kind = keys.examine(text)
                if kind is keys.KeyKind.PRIVATE:
                    what = f"a private key stands in {name}: the guest and whoever reads this file can read it"
                    yield Note(
                        "HK314", Severity.ERROR, what, item, name, "put the .pub file's line here, and replace that key"
                    )
                elif kind is keys.KeyKind.MALFORMED:
                    what = f"{name}: this is no public key that sshd would take (a placeholder?)"
                    yield Note("HK313", WARNING, what, item, name, "paste the line of ~/.ssh/id_ed25519.pub")


def _listed(users: object) -> list[Any]:
    """users: as a list, whichever of its forms was written: a list, `a,b`, or a mapping of names."""
    if isinstance(users, list):
        return users
    if isinstance(users, str):
        return [u.strip() for u in users.split(",")]
    return (
        [{"name": k, **(v if isinstance(v, dict) else {})} for k, v in users.items()] if isinstance(users, dict) else []
    )


def _files(root: Node) -> Iterator[Note]:
    node = root.get("write_files")
    if node is None or not isinstance(node.value, list):
        return
    users = tree.data(root).get("users")
    named = [u.get("name") for u in users if isinstance(u, dict)] if isinstance(users, list) else []
    made = {n for n in named if isinstance(n, str)}
    for i, item in enumerate(node.value):
        if not isinstance(item.value, dict):
            continue
        path = f"write_files[{i}]"
        mode = item.get("permissions")
        if mode is not None and isinstance(number := tree.value(mode), int) and not isinstance(number, bool):
            good = mode.text.startswith("0")
            what = f"{path}.permissions {mode.text} is a number: "
            what += (
                "YAML 1.1 reads it as octal, which is what is meant" if good else f"it becomes the mode {number:04o}"
            )
            yield Note(
                "HK347", WARNING, what, mode, path, f"write '{mode.text if good else '0' + mode.text}' in quotes"
            )
        if tree.data(item).get("defer") in (True, "true", "yes", 1):
            continue
        owner = str(tree.data(item).get("owner") or "").partition(":")[0]
        if owner and owner not in _SYSTEM:
            late = "users: makes it only afterwards" if owner in made else "the image may not have it yet"
            what = f"{path}.owner is {owner}, and write_files runs before users are made: {late}"
            yield Note("HK348", WARNING, what, item.get("owner"), path, "add `defer: true`")
        where = str(tree.data(item).get("path") or "")
        if re.match(r"/home/[^/]+/", where):
            what = (
                f"{path} makes {where.rsplit('/', 1)[0]} before its user is made: the home folder belongs to root then"
            )
            yield Note("HK348", WARNING, what, item.get("path"), path, "add `defer: true`")


def _packages(root: Node) -> Iterator[Note]:
    node = root.get("packages")
    if node is None or not node.value:
        return
    rest = tree.data(root)
    if not any(rest.get(k) for k in ("package_update", "apt_update", "package_upgrade", "apt_upgrade")):
        what = (
            "packages without package_update: Debian's and Ubuntu's cloud-init asks for new lists all the same, others'"
        )
        what += " take what the image's old or empty lists name"
        yield Note("HK349", WARNING, what, node, "packages", "add `package_update: true`")


def _network(root: Node) -> Iterator[Note]:
    for name, (key, node) in root.value.items():
        row = data.cloudinit()["keys"].get(name) or {}
        if row.get("network") and tree.data(node) not in (None, False, [], {}, ""):
            yield Note("HK350", TOLD, f"needs the internet: {name}", key, name)


def _passwords(root: Node) -> Iterator[Note]:
    for where in clear_passwords(tree.data(root)):
        at = root.get(where.partition(".")[0].partition(":")[0])
        yield known("HK330", at or 1, where, where)


def _words(root: Node) -> Iterator[Note]:
    node = root.get("final_message")
    if node is not None and not str(tree.data(node) or "").strip():
        what = "final_message has no text: nothing on the console tells the end of cloud-init"
        yield Note("HK352", WARNING, what, node, "final_message", "leave it out, or write a sentence")


def yaml_word(node: Any) -> str:
    """What YAML 1.1 made of a plain word (yes, no, on, off), for the help of a type error; empty for others."""
    if isinstance(node, Node) and node.plain and node.text.lower() in ("yes", "no", "on", "off", "y", "n"):
        return f"YAML 1.1 reads {node.text} as {tree.value(node)}: put it in quotes"
    return ""
