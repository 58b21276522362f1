"""What a plain scalar means to Kubernetes' reader (go-yaml v2 behind sigs.k8s.io/yaml), and to PyYAML.

No Python reader agrees with it, so the table is ours; where the readers differ, the loader warns.
"""

from __future__ import annotations

import math
import re

_TRUE = frozenset(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"])
_FALSE = frozenset(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"])
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_SPECIAL = {
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INT = re.compile(r"([-+]?)(0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|0[0-7]*|[1-9][0-9]*)")
# Booleans of YAML 1.1 that newer readers take as text.
_OLD_BOOLEANS = (_TRUE | _FALSE) - frozenset(["true", "True", "TRUE", "false", "False", "FALSE"])
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9]*)?")

Value = str | int | float | bool | None


def resolve(text: str) -> Value:
    """The value of a plain scalar as `kubectl apply` sends it."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text in _SPECIAL:
        return _SPECIAL[text]
    if text[0] not in "+-.0123456789" or len(text) > 400:
        return text
    plain = text.replace("_", "")
    if match := _INT.fullmatch(plain):
        sign, digits = match.groups()
        base = {"x": 16, "o": 8, "b": 2}.get(digits[1:2].lower()) or (8 if len(digits) > 1 and digits[0] == "0" else 10)
        number = int(digits[2:] if base != 10 and digits[1:2].isalpha() else digits, base)
        number = -number if sign == "-" else number
        if -(2**63) <= number < 2**64:
            return number
    if _FLOAT.fullmatch(plain):
        value = float(plain)
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    return text


def disagreement(text: str) -> str | None:
    """How other YAML readers take this plain scalar, in words, where that differs from Kubernetes' reader."""
    if _SEXAGESIMAL.fullmatch(text):
        return "text to Kubernetes, a number in base 60 to other readers"
    if text in _OLD_BOOLEANS:
        return "a boolean to Kubernetes, text to YAML 1.2 readers"
    if re.fullmatch(r"[-+]?0[0-7]+", text):
        return f"{resolve(text)} (octal) to Kubernetes, {text.lstrip('+-0') or '0'} to YAML 1.2 readers"
    if re.fullmatch(r"[-+]?0o[0-7]+", text):
        return f"{resolve(text)} (octal) to Kubernetes, text to YAML 1.1 readers"
    if re.fullmatch(r"[-+]?[0-9]+[eE][0-9]+", text):
        return "a number to Kubernetes, text to YAML 1.1 readers"
    return None
