"""Commands of runcmd and bootcmd as the guest's shell gets them: what YAML took away, and what a list does not do; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hikube_local.source.finding import Finding, Severity
from hikube_local.source.nodes import Node
from hikube_local.userdata import tree

_COMMANDS = ("runcmd", "bootcmd")
_SHELLS = frozenset(
    ("sh", "bash", "dash", "zsh", "ash", "ksh", "busybox", "su", "sudo", "ssh", "env", "expr", "test", "[")
)
_OPERATORS = frozenset((">", ">>", "<", "<<", "|", "||", "&&", ";", "&", "2>", "2>>", "2>&1", "&>"))
_COMMENT = re.compile(r"\s*#")
# Programs that take names of files: for them a star is meant for the shell.
_FILES = frozenset(("rm", "cp", "mv", "ls", "chmod", "chown", "chgrp", "cat", "ln", "touch", "rmdir"))


def of_commands(root: Node, lines: list[str]) -> Iterator[Finding]:
    """runcmd and bootcmd of a cloud-config whose text has these lines."""
    for name in _COMMANDS:
        node = root.get(name)
        if node is None or not isinstance(node.value, list):
            continue
        for i, item in enumerate(node.value):
            path, value = f"{name}[{i}]", tree.value(item)
            if isinstance(item.value, dict):
                first = next(iter(item.value), "")
                what = f"{path} is a mapping, because of the ': ' after {first[:40]!r}: cloud-init cannot run it"
                yield Finding(
                    "HK345",
                    Severity.ERROR,
                    what,
                    item,
                    path=path,
                    help="put the whole command in quotes, or write `- |`",
                )
            elif isinstance(item.value, list):
                for part in item.value:
                    yield from _word(part, path)
                yield from _list(item, path)
            elif value is not None and not isinstance(value, str):
                what = f"{path}: YAML 1.1 reads {item.text} as {value!r}, and cloud-init then skips all of {name}"
                yield Finding("HK345", Severity.ERROR, what, item, path=path, help="put it in quotes")
            elif value is not None:
                yield from _text(item, lines, path)
        yield from _masked(node, name)


def _list(item: Node, path: str) -> Iterator[Finding]:
    """A command as a list is run word for word, by no shell."""
    words = [str(tree.value(w)) for w in item.value if not isinstance(w.value, dict | list)]
    program = words[0].rpartition("/")[2] if words else ""
    if program in _SHELLS:
        return
    for node, word in zip(item.value[1:], words[1:], strict=False):
        if word in _OPERATORS or (program in _FILES and word.startswith("/") and "*" in word):
            what = f"{path}: a list is run without a shell, so {word!r} is passed to {program} as is"
            yield Finding(
                "HK361", Severity.WARNING, what, node, path=path, help="write the command as text, or [sh, -c, '…']"
            )
            return


def _text(item: Node, lines: list[str], path: str) -> Iterator[Finding]:
    """A plain text that YAML ended at ` #`, in the middle of a quoted word."""
    if not item.plain or not 0 < item.line <= len(lines) or "\n" in item.text:
        return
    line, at = lines[item.line - 1], item.column - 1
    if line.startswith(item.text, at) and _COMMENT.match(line, at + len(item.text)) and open_quote(item.text):
        what = f"{path}: YAML reads ` #` as a comment, so a quote stays open and the shell reads on into the next line"
        yield Finding("HK358", Severity.ERROR, what, item, path=path, help="put the whole command in quotes or use `|`")


def open_quote(text: str) -> bool:
    """Whether a quote is still open at the end, as a POSIX shell reads it (comments and escapes counted)."""
    quote, escaped, before = "", False, " "
    for c in text:
        if escaped:
            escaped = False
        elif quote == "'":
            quote = "" if c == "'" else quote
        elif c == "\\":
            escaped = True
        elif quote:
            quote = "" if c == quote else quote
        elif c in "'\"`":
            quote = c
        elif c == "#" and before.isspace():
            return False
        before = c
    return bool(quote)


def _word(part: Node, path: str) -> Iterator[Finding]:
    """An argument that YAML makes another one: 0755 becomes 493, no becomes False."""
    if isinstance(part.value, dict | list):
        return
    found = tree.value(part)
    if part.plain and not isinstance(found, str) and found is not None and str(found) != part.text:
        what = f"{path}: the argument {part.text} is read as {found!r} by YAML 1.1"
        yield Finding("HK353", Severity.WARNING, what, part, path=path, help="put it in quotes")


def _masked(node: Node, name: str) -> Iterator[Finding]:
    texts = [" ".join(str(p) for p in tree.data(i)) if isinstance(i.value, list) else i.text for i in node.value]
    careful = any(re.match(r"set -(?:[a-z]*e|o errexit)", t) for t in texts[:2])
    if name == "runcmd" and len(texts) > 1 and not careful:
        what = "only the last command's exit code counts: if an earlier one fails, success is reported"
        yield Finding(
            "HK346",
            Severity.DIFFERENCE,
            what,
            node,
            path=name,
            help="begin with `- set -e`, or join dependent commands with &&",
        )
