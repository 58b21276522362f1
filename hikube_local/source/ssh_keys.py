"""SSH public keys: whole, placeholder, malformed, or a private one."""

from __future__ import annotations

import base64
import binascii
from enum import StrEnum

TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


class KeyKind(StrEnum):
    GOOD = "good"
    MALFORMED = "malformed"
    PRIVATE = "private"
    EMPTY = "empty"


def examine(text: str) -> KeyKind:
    """What this entry of sshKeys is; options before the type are allowed as in authorized_keys."""
    if not text.strip():
        return KeyKind.EMPTY
    if "PRIVATE KEY" in text:
        return KeyKind.PRIVATE
    words = text.split()
    for i, word in enumerate(words[:-1]):
        if word in TYPES:
            return KeyKind.GOOD if _holds(word, words[i + 1]) else KeyKind.MALFORMED
    return KeyKind.MALFORMED


def _holds(kind: str, blob: str) -> bool:
    """A public key's blob begins with its own type and is made of whole length-prefixed fields."""
    try:
        raw = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        return False
    fields, at = [], 0
    while at + 4 <= len(raw):
        n = int.from_bytes(raw[at : at + 4], "big")
        fields.append(raw[at + 4 : at + 4 + n])
        at += 4 + n
    return at == len(raw) and len(fields) >= 2 and fields[0] == kind.encode()
