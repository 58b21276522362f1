"""A finding: code, place, sentence, help; collected, never raised one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import field, replace
from enum import StrEnum
from typing import Protocol

from hikube_local.language import tr
from hikube_local.records import dataclass


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    DIFFERENCE = "difference"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file, counted from 1; line 0 when there is none."""

    file: str = ""
    line: int = 0
    column: int = 0
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Spot(Protocol):
    """Something with a place of its own, such as a node of a YAML tree. Counted from 1."""

    @property
    def line(self) -> int: ...

    @property
    def column(self) -> int: ...


Path = tuple[str | int, ...]  # of a field below an object's spec


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding, whoever speaks it: manifests, user-data, checks files.

    `at`: a place in a file. Before that is known, what a rule has: the path of a field below spec, or a node or line of
    user-data; `placed` turns them into a place. `path`: the field in words (spec.externalPorts[0]); `ref`: KIND/NAME.
    """

    code: str
    severity: Severity
    message: str
    at: Place | Spot | Path | int = Place()
    help: str = ""
    path: str = ""
    ref: str = ""

    def placed(self, place: Place, ref: str = "", path: str = "") -> Finding:
        """The same, at its place in the file that people edit."""
        return replace(self, at=place, ref=ref, path=path)

    @property
    def place(self) -> Place:
        """In a file; none where it is not placed yet."""
        return self.at if isinstance(self.at, Place) else Place()

    @property
    def line(self) -> int:
        """Of the file or the user-data, from 1; 0 where it has none."""
        return self.at if isinstance(self.at, int) else 0 if isinstance(self.at, tuple) else self.at.line

    @property
    def column(self) -> int:
        return 1 if isinstance(self.at, int | tuple) else self.at.column

    @property
    def word(self) -> str:
        """What people read: a difference from Hikube (HK5xx), or advice, which is none."""
        advice = self.severity is Severity.DIFFERENCE and not self.code.startswith("HK5")
        return "note" if advice else str(self.severity)

    def as_json(self) -> dict[str, object]:
        """The form of `validate -o json`."""
        return {
            "code": self.code,
            "severity": str(self.severity),
            "file": self.place.file,
            "line": self.place.line,
            "column": self.place.column,
            "object": self.ref,
            "path": self.path,
            "message": self.message,
            "help": self.help,
        }

    def render(self) -> str:
        """The finding with its line and a caret, as people read it."""
        from hikube_local.text import columns, sanitize

        where = f"{self.place}: " if self.place.file else ""
        lines = [sanitize(f"{where}{tr(self.word)}[{self.code}]: {tr(self.message)}")]
        if self.place.text and self.place.line:
            text = self.place.text.rstrip()
            start = max(0, self.place.column - 61)
            # A password in a URL is masked, by as many characters, so that the caret stays true.
            hidden = re.sub(r"(?<=://)[^/@\s]+(?=@)", lambda m: "*" * len(m[0]), text)
            shown = sanitize(hidden[start : start + 120].replace("\t", " ")).replace("\n", " ")
            number = f"{self.place.line:>5} | "
            caret = " " * (len(number) + columns(text[start : self.place.column - 1])) + "^"
            lines += [number + shown, caret]
        if self.help:
            lines.append(f"      = {tr('help')}: {sanitize(tr(self.help))}")
        return "\n".join(lines)


def difference(code: str, message: str) -> Finding:
    """What is otherwise than on Hikube for a machine on this host; it has no place in a file."""
    return Finding(code, Severity.DIFFERENCE, message)


def counted(items: Iterable[Finding]) -> str:
    """How many of each severity: `1 error, 2 warnings`; empty for none."""
    found = [d.word for d in items]
    counts = [(found.count(word), word) for word in (*map(str, Severity), "note")]
    return ", ".join(tr(f"{n} {word}{'s' if n > 1 else ''}") for n, word in counts if n)


def folded(items: Iterable[Finding]) -> list[Finding]:
    """The findings for a person: a warning that many objects have alike stands once, with the others' names."""
    out: list[Finding] = []
    first: dict[tuple[str, str], int] = {}
    more: dict[int, list[str]] = {}
    for d in items:
        at = first.get((d.code, d.message))
        if at is not None and d.severity is Severity.WARNING and d.ref and d.ref != out[at].ref:
            more.setdefault(at, []).append(d.ref)
            continue
        first.setdefault((d.code, d.message), len(out))
        out.append(d)
    for at, names in more.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        out[at] = replace(out[at], help="; ".join(filter(None, [out[at].help, f"the same for {shown}"])))
    return out


@dataclass(slots=True)
class Findings:
    """All findings of one run, in the order of their places."""

    items: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        self.items.append(finding)

    @property
    def failed(self) -> bool:
        return any(d.severity is Severity.ERROR for d in self.items)

    def of(self, severity: Severity) -> list[Finding]:
        return [d for d in self.items if d.severity is severity]
