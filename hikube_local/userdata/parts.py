"""What user-data is made of, recognised as cloud-init recognises it: by the first line, or by the MIME type; pure."""

from __future__ import annotations

import email
import gzip
import io
import re
import zlib
from collections.abc import Iterator

from hikube_local.catalogue import data
from hikube_local.catalogue.cloudconfig import is_mime, kind_of
from hikube_local.records import dataclass

MOST = 16 << 20  # bytes that a gzip may unpack to
GZIP = b"\x1f\x8b"
JINJA, ARCHIVE, SCRIPT = "text/jinja2", "text/cloud-config-archive", "text/x-shellscript"
_OPEN, _CLOSE = re.compile(r"\{[{%#]"), {"{{": "}}", "{%": "%}", "{#": "#}"}
HOLE = "\uf8ff"  # what stands for a letter of a template's expression
INCLUDE = ("text/x-include-url", "text/x-include-once-url")


# Types whose content says what it is, and those that are unpacked first (cloud-init's user_data.py).
_UNSAID = ("text/plain", "text/x-not-multipart", "text/x-shellscript")
_PACKED = (
    *("application/gzip", "application/gzip-compressed", "application/gzipped", "application/x-compress"),
    *("application/x-compressed", "application/x-gunzip", "application/x-gzip", "application/x-gzip-compressed"),
)
HANDLER = "text/part-handler"


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its MIME type (empty: none that cloud-init knows), its text, the lines before it in the whole.

    `encoded`: its lines are not those of the whole, so all that is found stands where it begins. `name`: the file that a
    MIME part names, by which its script lies in the guest.
    """

    kind: str
    text: str
    offset: int = 0
    encoded: bool = False
    name: str = ""
    merges: bool = False  # a header says how it is merged with the parts before it


class Unreadable(ValueError):
    """The user-data cannot be taken apart; the text says why."""


def take_apart(raw: bytes) -> Iterator[Part]:
    """The parts of user-data, in their order; raises Unreadable."""
    raw = _unpacked(raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise Unreadable(f"byte 0x{raw[e.start]:02x} at {e.start} is not UTF-8") from None
    if not is_mime(text):
        if re.match(r"(?i)content-type:\s*multipart/", text.lstrip()[:100]):
            raise Unreadable("it has no MIME-Version:, so cloud-init does not read it as a MIME message")
        yield Part(kind_of(text), text)
        return
    message = email.message_from_string(text)
    if message.get_content_maintype() == "multipart" and not message.is_multipart():
        boundary = message.get_boundary()
        why = f"its boundary {boundary!r} does not occur below" if boundary else "its Content-Type has no boundary"
        raise Unreadable(f"it is a MIME message without parts: {why}")
    at = counted = line = 0
    for part in message.walk():
        if not part.is_multipart():
            given = str(part.get_payload())
            at = max(at, text.find(given[:200], at)) if given.strip() else at
            line += text.count("\n", counted, at)
            counted = at
            yield _mime(part, line)
            at += len(given)


def _mime(part: email.message.Message, offset: int) -> Part:
    payload = part.get_payload(decode=True)
    raw = payload if isinstance(payload, bytes) else b""
    said = part.get_content_type()
    packed = said in _PACKED
    if raw.startswith(GZIP) and not packed:
        raise Unreadable(f"a part of the type {said} is gzip: cloud-init unpacks only application/gzip and the like")
    text = (_unpacked(raw) if packed else raw).decode("utf-8", "replace")
    encoded = packed or str(part.get("Content-Transfer-Encoding", "")).lower() in ("base64", "quoted-printable")
    # cloud-init looks at the content where the type says nothing of its own.
    found = kind_of(text) if packed or said in _UNSAID else ""
    plain = packed or said in ("text/plain", "text/x-not-multipart")
    how = bool(part.get("Merge-Type") or part.get("X-Merge-Type"))
    return Part(found or ("" if plain else said), text, offset, encoded, part.get_filename() or "", how)


def _unpacked(raw: bytes) -> bytes:
    if not raw.startswith(GZIP):
        return raw
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as f:  # all of its members, as cloud-init does
            out = f.read(MOST + 1)
    except EOFError:
        raise Unreadable("its gzip content ends early") from None
    except (OSError, zlib.error) as e:
        raise Unreadable(f"its gzip content is damaged: {e}") from None
    if len(out) > MOST:
        raise Unreadable("its gzip content unpacks to more than 16 MiB")
    return out


def known(kind: str) -> bool:
    """Whether cloud-init has a handler for parts of this MIME type."""
    return kind in data.headers()["headers"].values() or kind.startswith((SCRIPT, "text/cloud-config-jsonp"))


def under_template(text: str) -> tuple[str, str]:
    """(type, text) of what a jinja template is for: its first line blank, the words of its expressions taken out."""
    first, _, rest = without_template(text).partition("\n")
    return kind_of(rest), " " * len(first) + "\n" + rest


def without_template(text: str) -> str:
    """A jinja template with its words taken out, each line and column where it was: `{{ }}` as a plain word."""
    out, at = [], 0
    while opened := _OPEN.search(text, at):
        end = text.find(_CLOSE[opened[0]], opened.end())
        if end < 0:
            break  # never closed: jinja refuses it on the machine
        whole = text[opened.start() : end + 2]
        out += [text[at : opened.start()], re.sub(r"[^\n]", HOLE if opened[0] == "{{" else " ", whole)]
        at = end + 2
    return "".join([*out, text[at:]])
