"""Commands of runcmd and bootcmd as the guest's shell gets them: what YAML took away, and what a list does not do; pure."""

from __future__ import annotations

from collections.abc import Iterator

from hikube_local.manifests.diagnostics import Severity
from hikube_local.manifests.nodes import Node
from hikube_local.userdata import tree
from hikube_local.userdata.notes import Note

_SHELLS = frozenset(
    ("sh", "bash", "dash", "zsh", "ash", "ksh", "busybox", "su", "sudo", "ssh", "env", "expr", "test", "[")
)
_OPERATORS = frozenset((">", ">>", "<", "<<", "|", "||", "&&", ";", "&", "2>", "2>>", "2>&1", "&>"))
# Programs that take names of files: for them a star is meant for the shell.
_FILES = frozenset(("rm", "cp", "mv", "ls", "chmod", "chown", "chgrp", "cat", "ln", "touch", "rmdir"))


def of_list(item: Node, path: str) -> Iterator[Note]:
    """A command as a list is run word for word, by no shell."""
    words = [str(tree.value(w)) for w in item.value if not isinstance(w.value, dict | list)]
    program = words[0].rpartition("/")[2] if words else ""
    if program in _SHELLS:
        return
    for node, word in zip(item.value[1:], words[1:], strict=False):
        if word in _OPERATORS or (program in _FILES and word.startswith("/") and "*" in word):
            what = f"{path}: a list is run without a shell, so {word!r} is handed to {program} as it is"
            yield Note("HK361", Severity.WARNING, what, node, path, "write the command as text, or [sh, -c, '…']")
            return


def of_text(item: Node, lines: list[str], path: str) -> Iterator[Note]:
    """A plain text that YAML ended at ` #`, in the middle of a quoted word."""
    if not item.plain or not 0 < item.line <= len(lines) or "\n" in item.text:
        return
    line = lines[item.line - 1][item.column - 1 :]
    if line.startswith(item.text) and line[len(item.text) :].lstrip().startswith("#") and open_quote(item.text):
        what = f"{path}: YAML takes ` #` as a comment, so a quote stays open and the shell reads on behind it"
        yield Note("HK358", Severity.ERROR, what, item, path, "put the whole in quotes or use `|`")


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
