"""Foreign text made safe, and figures as people read them."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from datetime import UTC, datetime

# Terminal strings (OSC, DCS, SOS, PM, APC) up to their end or 4 KiB, then CSI, then two-byte escapes; compiled when met.
_ESCAPES = (
    "(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\\\|\x9c|$)?"
    "|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"
    "|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TURNS = "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns text around
_BIDI = re.compile(f"[{_TURNS}]")
# What a terminal acts on behind ASCII's own controls, which JSON escapes by itself.
UNSAFE = f"[\x7f-\x9f{_TURNS}]"


def sanitize(text: str | bytes) -> str:
    """Text from a guest or a server without anything a terminal would act on; only newline and tab stay."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = text.replace("\r\n", "\n")
    if "\x1b" in text or any("\x80" <= c <= "\x9f" for c in text):
        text = re.sub(_ESCAPES, "", text)
    text = text.replace("\r", "\n")
    return _no_command(_BIDI.sub("\N{REPLACEMENT CHARACTER}", _CONTROLS.sub("", text)))


def one_line(text: str) -> str:
    """Foreign text as part of a line of ours: a line break in it begins nobody's line, and nothing is a command to CI."""
    return " ".join(part.strip() for part in sanitize(text).replace("\t", " ").split("\n") if part.strip())


def columns(text: str) -> int:
    """The columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) or c == "\u200b" else 1
        for c in text
    )


def clip(text: str, width: int) -> str:
    """The text in at most `width` columns, with … where something is left out."""
    if columns(text) <= width:
        return text
    out, used = [], 0
    for c in text:
        if (used := used + columns(c)) > width - 1:
            break
        out.append(c)
    return "".join(out) + ("…" if width > 0 else "")


class Cleaner:
    """`sanitize` for text that comes in blocks: a sequence or a character cut at a block's end waits for its rest."""

    # A CSI, a terminal string or a short escape that still lacks its end.
    _OPEN = "\x1b(?:\\[[0-?]*[ -/]*|[\\]PX^_][^\x07\x1b]{0,4096}|[ -/]*)"

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, block: bytes) -> str:
        """What can be shown of everything so far that was not yet shown."""
        text = self._rest + self._decoder.decode(block)
        at = len(text)
        last = text.rfind("\x1b")
        if last >= 0 and re.fullmatch(self._OPEN, text[last:]):
            at = last
        elif text.endswith("\r"):
            at -= 1
        if in_actions():
            at = min(at, text.rfind("\n") + 1)  # whether a line is a command is seen at its start
        self._rest = text[at:]
        return sanitize(text[:at])

    def end(self) -> str:
        """What was still waited for: nothing more comes."""
        rest, self._rest = self._rest + self._decoder.decode(b"", True), ""
        return sanitize(rest)


def size(count: int) -> str:
    """Bytes as Kubernetes writes them when they fit (30Gi), else with one decimal."""
    for unit, factor in (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if count >= factor:
            return f"{count // factor}{unit}" if count % factor == 0 else f"{count / factor:.1f}{unit}"
    return str(count)


def age(seconds: float) -> str:
    """A duration as kubectl's AGE column has it: 45s, 3m12s, 5h, 2d."""
    s = max(0, int(seconds))
    if s < 120:
        return f"{s}s"
    if s < 600:
        return f"{s // 60}m{s % 60}s" if s % 60 else f"{s // 60}m"
    if s < 3 * 3600:
        return f"{s // 60}m"
    if s < 48 * 3600:
        return f"{s // 3600}h"
    return f"{s // 86400}d"


def duration(text: str) -> float:
    """Seconds of a Go duration (5m, 1m30s, 90s, 250ms) or a plain number of seconds; ValueError otherwise."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(a + b for a, b in parts) != text:
        raise ValueError(f"{text!r} is not a duration: write 90s, 5m or 1m30s")
    return sum(float(n) * units[u] for n, u in parts)


def timestamp(seconds: float) -> str:
    """A Unix time as Kubernetes writes it (UTC, whole seconds)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> float:
    """The Unix time of such a timestamp."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


# Names of query parameters that may carry one, those of S3, Google and Azure among them.
_SECRET = (
    r"(?i)([?&#;](?:[a-z0-9_.-]*(?:token|sig|secret|passw|key|cred|auth|session)[a-z0-9_.-]*"
    r"|pass|pwd|policy|code|x-amz-[a-z-]+|x-goog-[a-z-]+)=)[^&\s]+"
)


def mask_url(url: str) -> str:
    """A URL without the password or token that may stand before its host or in its query."""
    url = re.sub(r"//[^/?#\s]*@", "//***@", url)
    return re.sub(_SECRET, r"\1***", url)


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that `word` was most likely meant to be, or None."""
    import difflib

    found = difflib.get_close_matches(word.lower(), {k.lower(): k for k in known}, n=1, cutoff=0.6)
    return {k.lower(): k for k in known}[found[0]] if found else None


def in_actions() -> bool:
    """Whether this is a job of GitHub Actions, which reads what is printed for commands."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def _no_command(text: str) -> str:
    """In GitHub Actions `##[…]` is a command wherever it stands in a line, `::…` at a line's start: what a guest says
    shall be none."""
    if ("##[" in text or "::" in text) and in_actions():
        return re.sub(_COMMAND, "\\1\u200b::", text.replace("##[", "##\u200b["))
    return text


_COMMAND = r"(?m)^([^\S\n]*)::"


def workflow_command(level: str, file: str, line: int, message: str) -> str:
    """A finding as GitHub Actions shows it beside its line (its docs: "Workflow commands"); level error, warning, notice."""

    def escaped(text: str, more: str = "") -> str:
        return "".join(f"%{ord(c):02X}" if c in "%\r\n" + more else c for c in sanitize(text))

    return f"::{level} file={escaped(file, ':,')},line={line}::{escaped(message)}"
