"""What user-data asks of cloud-init, with its lines: the keys of each cloud-config in it, its scripts, its commands; pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import NamedTuple

from hikube_local.catalogue import data
from hikube_local.catalogue.cloudconfig import CLOUD_CONFIG
from hikube_local.records import dataclass
from hikube_local.source.nodes import Node
from hikube_local.userdata import parts, tree

BOOTHOOK = "the boothook"
_NAMES = {parts.SCRIPT: "the script", "text/cloud-boothook": BOOTHOOK, parts.HANDLER: "the part handler"}


@dataclass(frozen=True, slots=True)
class Config:
    """One cloud-config: its tree (None: it cannot be read), the lines before it; `fixed`: all of it stands at this line.

    `template`: its words are known on the machine only; `branches`: and so is which of its keys are there.
    """

    root: Node | None
    wrong: bool
    text: str
    before: int = 0
    fixed: int = 0
    template: bool = False
    branches: bool = False
    merges: bool = False  # it says itself how it is merged with those before it

    def line(self, number: int) -> int:
        return self.fixed or self.before + number

    @property
    def mapping(self) -> Node | None:
        """The tree, where it is the mapping of keys that cloud-init wants."""
        return self.root if self.root is not None and isinstance(self.root.value, dict) else None

    def get(self, key: str) -> Node | None:
        return self.mapping.get(key) if self.mapping is not None else None

    def items(self, key: str) -> list[Node]:
        """What is listed under a key; nothing where it is no list."""
        node = self.get(key)
        return node.value if node is not None and isinstance(node.value, list) else []


@lru_cache(maxsize=4)
def configs(user_data: str) -> tuple[Config, ...]:
    """The cloud-configs, also those in a MIME message, an archive or a template."""
    return tuple(c for part in all_parts(user_data) for c in _configs(part))


@dataclass(frozen=True, slots=True)
class Script:
    """A script of its own, and the user-data's line where it begins."""

    text: str
    begins: int
    encoded: bool

    def line(self, number: int) -> int:
        return self.begins if self.encoded else self.begins + number - 1

    def survives(self, number: int, name: str) -> bool:
        """Whether a command of this name may fail in its line `number`: `name … || …`."""
        return _lines(self.text).survives(number - 1, name)


@lru_cache(maxsize=16)
def _lines(text: str) -> _Lines:
    return _Lines(text.split("\n"))


@lru_cache(maxsize=16)
def script(user_data: str, name: str = "") -> Script | None:
    """The script of that name in the guest, which is its part's own or its number (part-001); without a name the first one.

    None where there is none, and where it cannot be told which of several it is.
    """
    found = [p for part in all_parts(user_data) for p in exploded(part)]
    scripts = [p for p in found if p.kind.startswith(parts.SCRIPT)]
    number = re.fullmatch(r"part-(\d{3,5})", name)
    at = int(number[1]) - 1 if number else -1
    own = next((p for p in scripts if name and p.name == name), None)
    if own is None and 0 <= at < len(found) and found[at] in scripts and not found[at].name:
        own = found[at]
    if own is None and (not name or len(scripts) == 1):
        own = next(iter(scripts), None)
    return Script(own.text, own.offset + 1, own.encoded) if own else None


def exploded(part: parts.Part) -> Iterator[parts.Part]:
    """An archive's parts, which cloud-init counts each, in its place (user_data.py, _explode_archive)."""
    if part.kind != parts.ARCHIVE:
        yield part
        return
    root, _ = tree.read(part.text)
    lines = part.text.split("\n")
    for _, content, kind in tree.archived(root) if root is not None and isinstance(root.value, list) else ():
        if content is not None:
            block = tree.is_literal(lines, content)
            inside = 0 if part.encoded else content.line - (not block)
            yield parts.Part(kind, content.value, part.offset + inside, part.encoded or not block)


def all_parts(user_data: str) -> list[parts.Part]:
    try:
        return list(parts.take_apart(user_data.encode()))
    except (parts.Unreadable, RecursionError):
        return []


def _configs(part: parts.Part) -> Iterator[Config]:
    fixed = part.offset + 1 if part.encoded else 0
    kind, text = part.kind, part.text
    template = kind == parts.JINJA
    if template:
        kind, text = parts.under_template(text)
    if kind == CLOUD_CONFIG:
        root, wrong = tree.read(text)
        own = (
            root is not None
            and isinstance(root.value, dict)
            and any(k in root.value for k in ("merge_how", "merge_type"))
        )
        branches = template and "{%" in part.text
        yield Config(root, bool(wrong), text, part.offset, fixed, template, branches, part.merges or own)
    elif kind == parts.ARCHIVE:
        for inner in exploded(replace(part, kind=kind, text=text)):
            yield from _configs(inner)


class Commands:
    """The script that cloud-init makes of runcmd (its util.shellify): line 1 is the header, a text is taken as it is, a list
    becomes one quoted line, nothing is left out. Its lines are known where one cloud-config, no template, has a runcmd."""

    def __init__(self, user_data: str) -> None:
        self._items: list[str] = []  # as the shell gets them
        # For each line from the second on: its text, and the user-data's line.
        self._rows: list[str] = []
        self._lines: list[int] = []
        found = [c for c in configs(user_data) if c.get("runcmd") is not None]
        for config in found:
            self._take(config, known=len(found) == 1 and not config.template)

    def _take(self, config: Config, known: bool) -> None:
        lines = config.text.split("\n")
        for item in config.items("runcmd"):
            if tree.value(item) is None:
                continue
            if isinstance(item.value, list):
                text = " ".join(shlex.quote(str(tree.value(word))) for word in item.value)
            else:
                text = str(item.value)
            self._items.append(text)
            block = tree.is_literal(lines, item)
            for n, line in enumerate(text.split("\n") if known else []):
                self._rows.append(line)
                self._lines.append(config.line(item.line + (1 + n if block else 0)))

    def line(self, number: int) -> int:
        """Where line `number` of the script stands in the user-data; 0 where that is not known."""
        at = number - 2
        return self._lines[at] if 0 <= at < len(self._lines) else 0

    def survives(self, number: int, name: str) -> bool:
        """Whether a command of this name may fail there: `name … || …`."""
        at = number - 2
        if 0 <= at < len(self._rows):
            return self._shell.survives(at, name)
        return name in self._anywhere

    @cached_property
    def _shell(self) -> _Lines:
        return _Lines(self._rows)

    @cached_property
    def _anywhere(self) -> frozenset[str]:
        return frozenset(word for text in self._items for word in _survivors(text))


def package_lines(user_data: str) -> dict[str, int]:
    """The line at which each package is asked for: its item under `packages`, else the first command that installs it."""
    found: dict[str, int] = {}
    for config in configs(user_data):
        for name, item in _packages(config.items("packages")):
            found.setdefault(name.partition("=")[0].partition("/")[0], config.line(item.line))
    for number, line in enumerate(user_data.splitlines(), 1):
        if not line.lstrip().startswith("#") and (m := _INSTALLS.search(line[:2000])):
            for name in re.findall(r"[\w.+-]{2,}", m[1]):
                found.setdefault(name, number)
    return found


_INSTALLS = re.compile(r"\b(?:apt|apt-get|dnf|yum|zypper|apk)\b[^\n;&|]{0,120}?\b(?:install|add)\b([^\n;&|]*)")


def _packages(items: list[Node]) -> Iterator[tuple[str, Node]]:
    """(name, its node) of `packages`: names, [name, version], and lists by package manager."""
    for item in items:
        if isinstance(item.value, list):
            if item.value and isinstance(item.value[0].value, str):
                yield item.value[0].value, item.value[0]
        elif isinstance(item.value, dict):
            for _, inner in item.value.values():
                yield from _packages(inner.value if isinstance(inner.value, list) else [])
        elif item.value is not None:
            yield str(item.text), item


# A command that is followed by `||`, where what comes then is no failure itself; between are no other commands.
_SURVIVED = re.compile(r"([^;&|\n]{1,2000})\|\|(?!\s*(?:exit\s+[1-9]|return\b(?!\s+0)|false\b))")
_WORD = re.compile(r"[\w./+:@%=-]+")


def _survivors(text: str) -> frozenset[str]:
    """The words of commands that may fail there: `name … || …`. One pass, whatever is asked of it later."""
    found = _SURVIVED.findall(text.replace("\\\n", " "))
    return frozenset(word for part in found for word in _WORD.findall(part))


class _Lines:
    """Lines of a shell script, those that a backslash joins as one; each is looked at once."""

    def __init__(self, rows: list[str]) -> None:
        self._of: list[int] = []  # the joined line that each row is part of
        joined: list[list[str]] = []
        for row in rows:
            if not joined or not joined[-1][-1].endswith("\\"):
                joined.append([])
            joined[-1].append(row)
            self._of.append(len(joined) - 1)
        self._joined = ["\n".join(part) for part in joined]
        self._found: dict[int, frozenset[str]] = {}

    def survives(self, at: int, name: str) -> bool:
        """Whether a command of this name may fail in row `at` (from 0); False where there is no such row."""
        if not 0 <= at < len(self._of):
            return False
        line = self._of[at]
        if line not in self._found:
            self._found[line] = _survivors(self._joined[line])
        return name in self._found[line]


def changed(before: str, after: str) -> tuple[list[str], list[str]]:
    """What differs: the top-level keys (and boothooks) that cloud-init acts on at each boot, and what it has done for good.

    A key's module says when (catalogue/cloudinit.yaml: frequency); one without a module is read by the core each time, and
    hostname's are looked at by update_hostname too.
    """
    old, new = _asked(before), _asked(after)
    differ = [k for k in {**old, **new} if old.get(k) != new.get(k)]
    rows = data.cloudinit()["keys"]
    always = [k for k in differ if k == BOOTHOOK or (k in rows and _each_boot(rows[k]))]
    return always, [k for k in differ if k not in always]


def again(user_data: str) -> list[str]:
    """What a new instance-id has cloud-init do once more: the keys (and scripts) that it acts on once per instance."""
    rows = data.cloudinit()["keys"]
    return [
        k
        for k in _asked(user_data)
        if k != BOOTHOOK and (k in _NAMES.values() or rows.get(k, {}).get("frequency") == "instance")
    ]


def formats(user_data: str) -> list[str]:
    """The devices of fs_setup: with a new instance-id they are looked at again, and formatted where it says so."""
    rows = [tree.data(item) for config in configs(user_data) for item in config.items("fs_setup")]
    return [str(r["device"]) for r in rows if isinstance(r, dict) and r.get("device")]


def login(user_data: str) -> str:
    """The user that this user-data makes instead of the image's own: `user`, or the first of `users` without `default`."""
    own, listed = _asked_for(user_data)
    if own or _default_among(listed):
        return own
    return max(listed or [], key=lambda u: (u.keys, not u.system), default=_User("")).name  # the first of the likeliest


def makes_default(user_data: str) -> bool:
    """Whether it makes the image's own user, or `user` in its place: the one whom the seed's keys let in."""
    own, listed = _asked_for(user_data)
    return bool(own) or _default_among(listed)  # `user` is added to `users` as the default one (ug_util.py)


def _asked_for(user_data: str) -> tuple[str, list[_User] | None]:
    """The name in `user`, and what `users` lists, where it does."""
    own: str = ""
    listed: list[_User] | None = None
    for config in configs(user_data):
        if users := _users(config.get("user")):
            own = users[0].name
        if (node := config.get("users")) is not None:
            listed = _users(node)
    return own, listed


def _default_among(listed: list[_User] | None) -> bool:
    return listed is None or any(u.name == "default" for u in listed)


class _User(NamedTuple):
    name: str
    keys: bool = False
    system: bool = False


def _users(node: Node | None) -> list[_User]:
    """A user or several: a name, names with commas, a mapping of one, a list of these, or a mapping by name."""
    value = tree.data(node) if node is not None else []
    if isinstance(value, dict) and "name" not in value:
        value = [{"name": name, **(row if isinstance(row, dict) else {})} for name, row in value.items()]
    found: list[_User] = []
    for row in value if isinstance(value, list) else [value]:
        if isinstance(row, str):
            found += [_User(word.strip()) for word in row.split(",") if word.strip()]
        elif isinstance(row, dict) and isinstance(name := row.get("name"), str):
            keys = any(row.get(k) for k in ("ssh_authorized_keys", "ssh-authorized-keys", "ssh_import_id"))
            found.append(_User(name, keys, row.get("system") is True))
    return found


def _each_boot(row: dict[str, object]) -> bool:
    return row.get("frequency") == "boot" or "module" not in row or "update_" in str(row.get("note", ""))


def _asked(user_data: str) -> dict[str, str]:
    """By key what a cloud-config says, by type the other parts' text; a template is taken as it is written."""
    found: dict[str, str] = {}
    for part in all_parts(user_data):
        own = [c for c in _configs(part) if c.mapping is not None]
        for config in own:
            assert config.mapping is not None
            for key, (_, node) in config.mapping.value.items():
                found[key] = found.get(key, "") + (part.text if config.template else repr(tree.data(node)))
        if not own and part.text.strip() and part.kind != CLOUD_CONFIG:
            name = _NAMES.get(part.kind, part.kind or "the text")
            found[name] = found.get(name, "") + part.text
    return found
