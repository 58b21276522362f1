"""The language that a person reads, by the environment as gettext takes it; what has no translation is English."""

from __future__ import annotations

import os
import re

LANGUAGES = ("en", "fr")


def language(asked: str = "") -> str:
    """`asked`; else the first of LANGUAGE's that there is (a list, in any locale but C), else LC_ALL, LC_MESSAGES or LANG."""
    locale = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    listed = os.environ.get("LANGUAGE", "").split(":") if _of(locale) not in ("", "C", "POSIX") else []
    return next((found for word in (asked, *listed, locale) if (found := _of(word)) in LANGUAGES), "en")


def _of(locale: str) -> str:
    """fr of fr_CH.UTF-8."""
    return re.split(r"[_.@]", locale, maxsplit=1)[0]
