"""The language that a person reads, by the environment as gettext takes it; what has no translation is English."""

from __future__ import annotations

import os

LANGUAGES = ("en", "fr")


def language(asked: str = "") -> str:
    """`asked`, else the first of LC_ALL, LC_MESSAGES and LANG that says something: en or fr."""
    said = asked or next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    found = said[:2].lower()
    return found if found in LANGUAGES else "en"
