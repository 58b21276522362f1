"""What user-data is made of, recognised as cloud-init recognises it: by the first line, or by the MIME type; pure."""

from __future__ import annotations

import email
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from hikube_local.catalogue import data

MOST = 16 << 20  # bytes that a gzip may unpack to
GZIP = b"\x1f\x8b"
CLOUD_CONFIG, JINJA, ARCHIVE, SCRIPT = (
    "text/cloud-config",
    "text/jinja2",
    "text/cloud-config-archive",
    "text/x-shellscript",
)
INCLUDE = ("text/x-include-url", "text/x-include-once-url")


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its MIME type (empty: none that cloud-init knows), its text, the lines before it in the whole."""

    kind: str
    text: str
    offset: int = 0


class Unreadable(ValueError):
    """The user-data cannot be taken apart; the text says why."""


def kind_of(text: str) -> str:
    """The MIME type that the first line stands for, or an empty string."""
    head = text.lstrip()[:200].lower()
    found = [h for h in data.cloudinit()["headers"] if head.startswith(h.lower())]
    return data.cloudinit()["headers"][max(found, key=len)] if found else ""


def is_mime(text: str) -> bool:
    return bool(re.match(r"(?i)(content-type:|mime-version:)", text.lstrip()[:100]))


def take_apart(raw: bytes) -> Iterator[Part]:
    """The parts of user-data, in their order; raises Unreadable."""
    if raw.startswith(GZIP):
        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            raw = unpacker.decompress(raw, MOST)
        except zlib.error as e:
            raise Unreadable(f"its gzip content is damaged: {e}") from None
        if not unpacker.eof:
            raise Unreadable("its gzip content ends early, or unpacks to more than 16 MiB")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise Unreadable(f"byte 0x{raw[e.start]:02x} at {e.start} is not UTF-8") from None
    if not is_mime(text):
        yield Part(kind_of(text), text)
        return
    message = email.message_from_string(text)
    if not message.is_multipart():
        yield _mime(message, text)
        return
    for part in message.walk():
        if not part.is_multipart():
            yield _mime(part, text)


def _mime(part: email.message.Message, whole: str) -> Part:
    payload = part.get_payload(decode=True)
    raw = payload if isinstance(payload, bytes) else b""
    text = raw.decode("utf-8", "replace")
    said = part.get_content_type()
    # cloud-init looks at the content where the type says nothing of its own.
    kind = (kind_of(text) or "") if said in ("text/plain", "text/x-not-multipart", "application/octet-stream") else said
    first = next((line for line in text.splitlines() if line.strip()), "")
    at = whole.find(text.strip("\n")[:200]) if first else -1
    offset = whole.count("\n", 0, at) if at >= 0 else 0
    return Part(kind, text, offset)
