"""Kubernetes quantities (apimachinery's grammar) as exact integers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # with decimal it is a millisecond of each command, and whole bytes need none of it
    from fractions import Fraction

_FORM = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,3}))?")
_FACTOR: dict[str | None, tuple[int, int]] = {  # as numerator and denominator
    None: (1, 1),
    **{s: (1, 1000**i) for i, s in ((3, "n"), (2, "u"), (1, "m"))},
    **{s: (1000**i, 1) for i, s in enumerate("kMGTPE", 1)},
    **{f"{s}i": (1024**i, 1) for i, s in enumerate("KMGTPE", 1)},
}


def _ratio(text: str | int) -> tuple[int, int]:
    """Numerator and denominator, not reduced."""
    if isinstance(text, int):
        return text, 1
    match = _FORM.fullmatch(text) if len(text) <= 64 and text.isascii() else None
    if not match or not (match[2] or match[3]):
        raise ValueError(f"{text[:40]!r} is not a quantity: write 30Gi, 1.5Gi, 500M or plain bytes")
    sign, whole, part, suffix, exponent = match.groups("")
    times, parts = _FACTOR[suffix or None]
    if power := int(exponent or 0):
        times, parts = (10**power, 1) if power > 0 else (1, 10**-power)
    value = int(whole + part) * times
    return -value if sign == "-" else value, parts * 10 ** len(part)


def parse(text: str | int) -> Fraction:
    """The exact value of a quantity such as 30Gi, 1.5Gi, 500M, 2e9, 500m or 7; ValueError for anything else."""
    from fractions import Fraction

    return Fraction(*_ratio(text))


def in_bytes(text: str | int) -> int:
    """Whole bytes, rounded up as Kubernetes does."""
    value, parts = _ratio(text)
    return -(-value // parts)
