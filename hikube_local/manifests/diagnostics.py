"""A finding about a manifest: code, place, sentence, help; collected, never raised one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum


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


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding. `path` is the field (spec.externalPorts[0]), `object` KIND/NAME."""

    code: str
    severity: Severity
    message: str
    place: Place = Place()
    ref: str = ""  # KIND/NAME of the object
    path: str = ""
    help: str = ""

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
        lines = [sanitize(f"{where}{self.word}[{self.code}]: {self.message}")]
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
            lines.append(f"      = help: {sanitize(self.help)}")
        return "\n".join(lines)


def counted(items: Iterable[Diagnostic]) -> str:
    """How many of each severity: `1 error, 2 warnings`; empty for none."""
    found = [d.word for d in items]
    counts = [(found.count(word), word) for word in (*map(str, Severity), "note")]
    return ", ".join(f"{n} {word}{'s' if n > 1 else ''}" for n, word in counts if n)


def folded(items: Iterable[Diagnostic]) -> list[Diagnostic]:
    """The findings for a person: a warning that many objects have alike stands once, with the others' names."""
    out: list[Diagnostic] = []
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

    items: list[Diagnostic] = field(default_factory=list)

    def add(self, diagnostic: Diagnostic) -> None:
        self.items.append(diagnostic)

    @property
    def failed(self) -> bool:
        return any(d.severity is Severity.ERROR for d in self.items)

    def of(self, severity: Severity) -> list[Diagnostic]:
        return [d for d in self.items if d.severity is severity]
