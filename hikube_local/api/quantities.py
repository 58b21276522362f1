"""Kubernetes quantities (apimachinery's grammar) as exact integers."""

from __future__ import annotations

import re
from fractions import Fraction

_FORM = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,3}))?")
_FACTOR: dict[str | None, Fraction] = {
    None: Fraction(1),
    **{s: Fraction(1, 1000**i) for i, s in ((3, "n"), (2, "u"), (1, "m"))},
    **{s: Fraction(1000**i) for i, s in enumerate("kMGTPE", 1)},
    **{f"{s}i": Fraction(1024**i) for i, s in enumerate("KMGTPE", 1)},
}


def parse(text: str | int) -> Fraction:
    """The exact value of a quantity such as 30Gi, 1.5Gi, 500M, 2e9, 500m or 7; ValueError for anything else."""
    if isinstance(text, int):
        return Fraction(text)
    match = _FORM.fullmatch(text) if len(text) <= 64 and text.isascii() else None
    if not match:
        raise ValueError(f"{text[:40]!r} is not a quantity: write 30Gi, 1.5Gi, 500M or plain bytes")
    sign, number, suffix, exponent = match.groups()
    value = Fraction(number.rstrip(".")) * (Fraction(10) ** int(exponent) if exponent else _FACTOR[suffix])
    return -value if sign == "-" else value


def in_bytes(text: str | int) -> int:
    """Whole bytes, rounded up as Kubernetes does."""
    value = parse(text)
    return -(-value.numerator // value.denominator)
