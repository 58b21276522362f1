"""Top-level keys of cloud-config and their types, by our own table (catalogue/cloudinit.yaml); pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hikube_local.catalogue import data
from hikube_local.source.finding import Finding, Severity
from hikube_local.source.nodes import Node
from hikube_local.text import nearest
from hikube_local.userdata import tree

HERE = "22.4"  # Debian 12's cloud-init, which most images of the catalogue are near to
_WORDS = {
    "array": "a list",
    "object": "a mapping",
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "null": "nothing",
    "date": "a date",
}
_MORE = ("merge_how", "merge_type")


def aside(name: str) -> bool:
    """Whether a key is nobody's module: one for anchors, or for how parts are merged."""
    return name.startswith("x-") or name in _MORE


def check(root: Node) -> Iterator[Finding]:
    """Findings about keys and types, each at its place."""
    keys = data.cloudinit()["keys"]
    count = 0
    for name, (key, node) in root.value.items():
        row = keys.get(name)
        if row is None:
            if not aside(name):
                near = nearest(name, list(keys)) if (count := count + 1) <= 50 else None
                help = f"did you mean {near}?" if near else "`cloud-init schema --docs all` lists the known keys"
                what = f"{name[:60]!r} is not a key that cloud-init knows: it is silently ignored"
                yield Finding("HK341", Severity.ERROR if near else Severity.WARNING, what, key, path=name, help=help)
            continue
        yield from _age(name, row, key)
        if row.get("system"):
            yield Finding("HK343", Severity.WARNING, f"{name} works only in the image's /etc/cloud", key, path=name)
        yield from _value(node, row, name)


def _age(path: str, row: dict[str, Any], key: Node) -> Iterator[Finding]:
    """What became of a key over the versions; also of those below the top level."""
    if "gone" in row:
        help = f"write {row['instead']}" if "instead" in row else ""
        yield Finding(
            "HK343", Severity.WARNING, f"{path} was removed in cloud-init {row['gone']}", key, path=path, help=help
        )
    elif "deprecated" in row:
        help = f"write {row['instead']}" if "instead" in row else ""
        what = f"{path} is deprecated since cloud-init {row['deprecated']}"
        # Another spelling of the same key does no harm.
        spelling = str(row.get("instead", "")) == key.text.replace("-", "_") and "." in path
        yield Finding("HK343", Severity.DIFFERENCE if spelling else Severity.WARNING, what, key, path=path, help=help)
    if _version(row.get("since", "0")) > _version(HERE):
        what = f"{path} needs cloud-init {row['since']}: Debian 12 has {HERE} and ignores it"
        yield Finding("HK343", Severity.WARNING, what, key, path=path)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(p) for p in str(text).split(".") if p.isdigit())


def _value(node: Node, row: dict[str, Any], path: str) -> Iterator[Finding]:
    kind = tree.type_of(node)
    allowed = row.get("type", [])
    if allowed and not _fits(kind, allowed):
        if _fits(kind, row.get("tolerated", [])) or kind == "null":
            return  # what bites of these is told by the traps
        wanted = " or ".join(_WORDS[t] for t in allowed)
        if taken := _taken(node, kind, allowed):
            what = f"{path}: {taken}; the schema of newer cloud-init expects {wanted}"
            yield Finding("HK342", Severity.DIFFERENCE, what, node, path=path)
            return
        what = f"{path} is {_WORDS[kind]}, cloud-init expects {wanted}"
        yield Finding("HK342", Severity.ERROR, what, node, path=path, help=_type_help(kind, allowed))
        return
    late = (row.get("type_since") or {}).get(kind)
    if late and _version(late) > _version(HERE):
        what = f"{path} may be {_WORDS[kind]} since cloud-init {late}: Debian 12 has {HERE} and refuses it"
        yield Finding("HK343", Severity.WARNING, what, node, path=path)
    if kind == "array" and isinstance(row.get("items"), dict):
        for i, item in enumerate(node.value):
            yield from _value(item, row["items"], f"{path}[{i}]")
    elif kind == "object":
        yield from _mapping(node, row, path)
    elif "enum" in row and (value := tree.value(node)) not in row["enum"]:
        same = [e for e in row["enum"] if isinstance(e, type(value))]
        switch = truth(value) is not None and ("boolean" in allowed or {"off", "on"} & set(map(str, row["enum"])))
        number = isinstance(value, str) and value.isdigit() and "integer" in allowed
        if same and not switch and not number:
            shown = ", ".join(str(e) for e in row["enum"])
            yield Finding("HK342", Severity.ERROR, f"{path} is {value!r}, not one of {shown}", node, path=path)


# What cloud-init's is_true and is_false take (util.py, TRUE_STRINGS and FALSE_STRINGS).
_TRUE, _FALSE = frozenset(("true", "1", "on", "yes")), frozenset(("off", "0", "no", "false"))


def truth(value: Any) -> bool | None:
    """A switch as cloud-init reads it, whatever its type; None for what is none."""
    word = str(value).strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None


def _taken(node: Node, kind: str, allowed: list[str]) -> str:
    """How cloud-init's code takes a value that its schema warns of, in words; empty where it does not."""
    value = tree.value(node)
    if "boolean" in allowed and kind in ("integer", "string", "number") and (switch := truth(value)) is not None:
        return f"{node.text} is read as {str(switch).lower()}"
    if kind == "string" and {"integer", "number"} & set(allowed) and re.fullmatch(r"-?\d{1,18}(\.\d+)?", str(value)):
        return f"the text {node.text!r} is read as a number"
    if "string" in allowed and kind in ("integer", "number", "date") and node.text == str(value):
        return f"{node.text} is read as text"
    return ""


def _mapping(node: Node, row: dict[str, Any], path: str) -> Iterator[Finding]:
    known = row.get("properties") or {}
    have = set(node.value)
    for name, (key, child) in node.value.items():
        # cloud-init reads every key of a user with `-` as `_` (ug_util.py); others stand under both spellings here.
        plain = name.replace("-", "_")
        entry = known.get(name) or (known.get(plain) if "lock_passwd" in known else None)
        if entry is not None:
            have.add(plain)
            if name not in known:
                entry = {**entry, "deprecated": "24.2", "instead": plain}
            yield from _age(f"{path}.{name}", entry, key)
            yield from _value(child, entry, f"{path}.{name}")
        elif isinstance(row.get("values"), dict):
            yield from _value(child, row["values"], f"{path}.{name}")
        elif known and not row.get("additional"):
            near = nearest(name, list(known))
            help = f"did you mean {near}?" if near else f"known keys: {', '.join(sorted(known))[:200]}"
            yield Finding(
                "HK341",
                Severity.ERROR,
                f"{path}.{name[:60]} is not a key that cloud-init knows",
                key,
                path=path,
                help=help,
            )
    for name in row.get("required", []):
        if name not in have:
            yield Finding("HK342", Severity.ERROR, f"{path} has no {name}", node, path=path, help=f"add {name}:")
    one_of = row.get("one_of")
    if one_of and not any(n in have for n in one_of):
        yield Finding("HK342", Severity.ERROR, f"{path} has none of {', '.join(one_of)}", node, path=path)


def _fits(kind: str, allowed: list[str]) -> bool:
    return kind in allowed or (kind == "integer" and "number" in allowed)


def _type_help(kind: str, allowed: list[str]) -> str:
    if "array" in allowed and kind in ("string", "object"):
        return "begin each item with a dash"
    if "string" in allowed and kind in ("integer", "boolean", "number", "date"):
        return "put it in quotes"
    return ""
