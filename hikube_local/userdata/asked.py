"""What user-data asks of cloud-init, with its lines: the keys of each cloud-config in it, its scripts, its commands; pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from hikube_local.catalogue import data
from hikube_local.manifests.nodes import Node
from hikube_local.userdata import parts, tree

_LITERAL = re.compile(r"\|[0-9+-]*\s*(?:#.*)?$")


@dataclass(frozen=True, slots=True)
class Config:
    """One cloud-config: its tree (None: it cannot be read), the lines before it; `fixed`: all of it stands at this line."""

    root: Node | None
    wrong: bool
    text: str
    before: int = 0
    fixed: int = 0
    template: bool = False

    def line(self, number: int) -> int:
        return self.fixed or self.before + number


def configs(user_data: str) -> list[Config]:
    """The cloud-configs, also those in a MIME message, an archive or a template."""
    return [c for part in _parts(user_data) for c in _configs(part)]


def script(user_data: str) -> int:
    """The line where the first script begins; 0 where there is none."""
    return next((p.offset + 1 for p in _parts(user_data) if p.kind.startswith(parts.SCRIPT)), 0)


def _parts(user_data: str) -> list[parts.Part]:
    try:
        return list(parts.take_apart(user_data.encode()))
    except (parts.Unreadable, RecursionError):
        return []


def _configs(part: parts.Part) -> Iterator[Config]:
    fixed = part.offset + 1 if part.encoded else 0
    kind, text = part.kind, part.text
    template = kind == parts.JINJA
    if template:
        first, _, rest = parts.without_template(text).partition("\n")
        kind, text = parts.kind_of(rest), " " * len(first) + "\n" + rest
    if kind == parts.CLOUD_CONFIG:
        root, wrong = tree.read(text)
        yield Config(root, bool(wrong), text, part.offset, fixed, template)
    elif kind == parts.ARCHIVE:
        root, _ = tree.read(text)
        for item in root.value if root is not None and isinstance(root.value, list) else []:
            content = item if isinstance(item.value, str) else item.get("content")
            if content is None or not isinstance(content.value, str):
                continue
            said = item.get("type") if isinstance(item.value, dict) else None
            found = str(said.value) if said else parts.kind_of(content.value) or parts.CLOUD_CONFIG
            at = part.offset + content.line - (not _literal(text, content))
            yield from _configs(parts.Part(found, content.value, at, not _literal(text, content)))


def _literal(text: str, node: Node) -> bool:
    """Whether a value is a block whose lines are those of the file, from the line below its indicator on."""
    lines = text.split("\n")
    return 0 < node.line <= len(lines) and bool(_LITERAL.search(lines[node.line - 1]))


def command(user_data: str, number: int) -> tuple[int, str]:
    """(line of the user-data, its text) of line `number` of the script that cloud-init makes of runcmd; (0, "") if unknown.

    Line 1 is the script's header; a text is taken as it is, a list becomes one quoted line (cloud-init's util.shellify).
    """
    found = [c for c in configs(user_data) if c.root is not None and isinstance(c.root.value, dict)]
    found = [c for c in found if c.root.get("runcmd") is not None]  # type: ignore[union-attr]
    if len(found) != 1 or found[0].template:
        return 0, ""
    config = found[0]
    items = config.root.get("runcmd")  # type: ignore[union-attr]
    at = 2
    for item in items.value if items is not None and isinstance(items.value, list) else []:
        if isinstance(item.value, list):
            text = " ".join(shlex.quote(str(tree.value(word))) for word in item.value)
        else:
            text = str(item.value)
        lines = text.split("\n")
        if at <= number < at + len(lines):
            below = 1 + number - at if _literal(config.text, item) else 0
            return config.line(item.line + below), lines[number - at]
        at += len(lines)
    return 0, ""


def changed(before: str, after: str) -> tuple[list[str], list[str]]:
    """The top-level keys that differ: those that cloud-init acts on at each boot, and those it has done for good.

    A key's module says when (catalogue/cloudinit.yaml: frequency); hostname's are looked at by update_hostname too.
    """
    old, new = _keys(before), _keys(after)
    differ = [k for k in {**old, **new} if old.get(k) != new.get(k)]
    rows = data.cloudinit()["keys"]
    always = [
        k
        for k in differ
        if k in rows and (rows[k].get("frequency") == "boot" or "update_" in str(rows[k].get("note", "")))
    ]
    return always, [k for k in differ if k not in always]


def _keys(user_data: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for config in configs(user_data):
        if config.root is not None and isinstance(config.root.value, dict):
            found |= {k: found.get(k, "") + repr(tree.data(v)) for k, (_, v) in config.root.value.items()}
    return found
