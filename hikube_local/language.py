"""The language that a person reads, by the environment as gettext takes it; what has no translation is English.

Texts are written where they are told, in English, and translated where they are shown: `tr` finds the text, or the one with
holes that it was made of, among the messages of catalogue/LANGUAGE.po. What programs read (JSON, codes, names) is never translated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "de", "fr", "it")
_HOLE = re.compile(r"\{(\d+)\}")
# The same in a translation, where English puts an s or nothing: {1|plural|singular}, as `{0} oggett{1|i|o}`.
_PUT = re.compile(r"\{(\d+)(?:\|([^|{}]*)\|([^|{}]*))?\}")
_DEEPEST, _JOINTS_TRIED = 4, 3  # texts inside of texts; places where two may have been put together
_LONGEST = 4000  # characters of a text that is looked at
# What joins two texts in English, and how a language writes it that has its own way.
_JOINTS = (": ", "; ", ", ", " (")
_WRITTEN = {"fr": {": ": " : ", "; ": " ; "}}
_BEHIND = ("; ", ": ", ", ")
_asked = ""


def use(asked: str) -> None:
    """The language of this process from now on (--lang)."""
    global _asked
    _asked = asked
    _current.cache_clear()


def language(asked: str = "") -> str:
    """`asked`; else the first of LANGUAGE's that there is (a list, in any locale but C), else LC_ALL, LC_MESSAGES or LANG."""
    locale = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    listed = os.environ.get("LANGUAGE", "").split(":") if _of(locale) not in ("", "C", "POSIX") else []
    return next((found for word in (asked or _asked, *listed, locale) if (found := _of(word)) in LANGUAGES), "en")


def _of(locale: str) -> str:
    """fr of fr_CH.UTF-8."""
    return re.split(r"[_.@]", locale, maxsplit=1)[0]


@cache
def _current() -> str:
    return language()


def tr(text: str) -> str:
    """A text in the language of this process; as it is, where nothing is known of it."""
    return text if _current() == "en" or not text else _translated(text, _current(), _DEEPEST)


def messages(which: str) -> dict[str, str]:
    """The texts of a language's .po file, each by its English; holes are {0}, {1} …"""
    path = Path(__file__).with_name("catalogue") / f"{which}.po"
    found = re.findall(r'^msgid "(.*)"\nmsgstr "(.*)"$', path.read_text(encoding="utf-8"), re.M)
    return {_plain(key): _plain(value) for key, value in found if key}


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), text)


class _Template:
    """A text with holes: what stands between them, the numbers of the holes, and the same in the language."""

    def __init__(self, key: str, value: str) -> None:
        parts = _HOLE.split(key)
        self.literals, self.numbers, self.value = [_unbraced(p) for p in parts[::2]], parts[1::2], value

    def match(self, text: str) -> dict[str, str] | None:
        """What stands in the holes, each as short as can be; in time that grows with the text alone."""
        first, *inner = self.literals
        last = inner.pop() if inner else ""
        if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
            return None
        at, end, found = len(first), len(text) - len(last), []
        for literal in inner:
            there = text.find(literal, at, end)
            if there < 0:
                return None
            found.append(text[at:there])
            at = there + len(literal)
        return dict(zip(self.numbers, [*found, text[at:end]], strict=True))


class _Known:
    """The messages of a language: texts as they are, and those with holes by what they begin with."""

    def __init__(self, which: str) -> None:
        self.texts: dict[str, str] = {}
        self.templates: dict[str, list[_Template]] = {}
        rows = [(key, value) for key, value in messages(which).items() if key != value]
        # What is put behind another text is met without its joint, too.
        rows += [(key[2:], value.lstrip(" ;:,")) for key, value in rows if key.startswith(_BEHIND)]
        rows += [(key.strip(), value.strip()) for key, value in rows if key != key.strip()]
        # Of two that fit, the one that says more itself.
        for key, value in sorted(rows, key=lambda row: -len(_HOLE.sub("", row[0]))):
            if _HOLE.search(key):
                made = _Template(key, value)
                self.templates.setdefault(made.literals[0][:3], []).append(made)
            else:
                self.texts[_unbraced(key)] = _unbraced(value)

    def candidates(self, text: str) -> Iterator[_Template]:
        for begin in dict.fromkeys((text[:3], text[:2], text[:1], "")):
            yield from self.templates.get(begin, ())


def _unbraced(text: str) -> str:
    return text.replace("{{", "{").replace("}}", "}")


@cache
def _known(which: str) -> _Known:
    return _Known(which)


def _translated(text: str, which: str, deep: int) -> str:
    known = _known(which)
    bare = text.strip()
    if (found := known.texts.get(text)) is not None:
        return found
    if bare != text:
        return text.replace(bare, _translated(bare, which, deep)) if bare else text
    if deep <= 0 or " " not in text or len(text) > _LONGEST:
        return text
    for template in known.candidates(text):
        if (holes := template.match(text)) is not None:
            # A hole with one word holds a name: a machine may be called `network`.
            inner = {k: _translated(v, which, deep - 1) if " " in v else v for k, v in holes.items()}
            return filled(template.value, inner)
    return _joined(text, which, deep)


def filled(template: str, inner: dict[str, str]) -> str:
    """A translation with what is put in."""

    def put(hole: re.Match[str]) -> str:
        value = inner.get(hole[1], "")
        return value.replace("{", "{{").replace("}", "}}") if hole[2] is None else hole[2] if value else hole[3]

    return _unbraced(_PUT.sub(put, template))


def _joined(text: str, which: str, deep: int) -> str:
    """Two texts that were put behind each other, where both are known."""
    for joint in _JOINTS:
        at, written = -1, _WRITTEN.get(which, {}).get(joint, joint)
        for _ in range(_JOINTS_TRIED):
            if (at := text.find(joint, at + 1)) < 0:
                break
            head, tail = text[:at], text[at + len(joint) :]
            close = ")" if joint == " (" and tail.endswith(")") else ""
            tail = tail.removesuffix(close)
            first = _translated(head, which, deep - 2) if " " in head or head.endswith("ing") else head
            second = _translated(tail, which, deep - 2) if " " in tail else tail  # one word may be anything's name
            if first != head or second != tail:
                return first + written + second + close
    return text
