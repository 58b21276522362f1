"""Digests that an image should have: written by the user, by the catalogue, or by the vendor beside the image."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote, urlsplit, urlunsplit

from hikube_local.errors import HikubeError
from hikube_local.images import http
from hikube_local.records import dataclass

LENGTHS = {"sha256": 64, "sha512": 128}
MOST = 1 << 20  # bytes of a checksum file
# `DIGEST  NAME`, `DIGEST *NAME` (coreutils) and `SHA256 (NAME) = DIGEST` (BSD).
_COREUTILS = re.compile(r"^([0-9a-fA-F]{64}|[0-9a-fA-F]{128})\s+[ *]?(\S.*?)\s*$")
_BSD = re.compile(r"^(SHA256|SHA512)\s*\((.+)\)\s*=\s*([0-9a-fA-F]+)\s*$")
_ALONE = re.compile(r"^\s*([0-9a-fA-F]{64}|[0-9a-fA-F]{128})\s*$")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A digest, and who says so."""

    algorithm: str
    digest: str
    origin: str


def mismatch(what: str, wanted: Wanted, have: str) -> HikubeError:
    """HK704 about `what`, with both digests."""
    return HikubeError(
        "HK704",
        f"{what} does not have the expected digest",
        why=f"expected {wanted.algorithm}:{wanted.digest} ({wanted.origin}), got {wanted.algorithm}:{have}",
        fix="nothing was stored: check whether the image was replaced, then correct the checksum",
    )


def parse(text: str, origin: str) -> Wanted:
    """`sha256:…` or `sha512:…` (or a bare digest, by its length); HK319 otherwise."""
    algorithm, colon, digest = text.strip().lower().rpartition(":")
    if not colon:
        algorithm = next((a for a, n in LENGTHS.items() if n == len(digest)), "")
    if LENGTHS.get(algorithm) != len(digest) or not re.fullmatch("[0-9a-f]+", digest):
        raise HikubeError("HK319", f"{text[:40]!r} is not a checksum ({origin})", fix="write sha256:… or sha512:…")
    return Wanted(algorithm, digest, origin)


def find(text: str, name: str) -> tuple[str, str] | None:
    """(algorithm, digest) of `name` in a checksum file; two different ones for it are none."""
    found = set()
    for line in text.splitlines():
        if m := _BSD.match(line):
            algorithm, who, digest = m[1].lower(), m[2], m[3].lower()
        elif m := _COREUTILS.match(line):
            digest, who = m[1].lower(), m[2]
            algorithm = next(a for a, n in LENGTHS.items() if n == len(digest))
        else:
            continue
        if who.removeprefix("./") == name and len(digest) == LENGTHS[algorithm]:
            found.add((algorithm, digest))
    by = {a: d for a, d in sorted(found)}
    return max(by.items()) if by and len(by) == len(found) else None


def vendors(url: str, say: Callable[..., None]) -> Wanted | None:
    """What a checksum file beside the image says about it; None where there is none. `say` is told what was found."""
    parts = urlsplit(url)
    folder, _, raw = parts.path.rpartition("/")
    name = unquote(raw)
    if not name:
        return None
    beside = [f"{raw}.sha256", f"{raw}.sha512", "SHA256SUMS", "SHA512SUMS", "CHECKSUM", f"{raw}.CHECKSUM"]
    for candidate in beside:
        try:
            text = _small(urlunsplit((parts.scheme, parts.netloc, f"{folder}/{candidate}", "", "")))
        except http.Again as e:
            if isinstance(e.error, http.Unreachable):
                return None  # nor are the others; the image itself will tell
            say(f"{e.error.what}: the vendor's checksum cannot be checked now", True)
            continue
        if text is None:
            continue
        found = find(text, name)
        if found is None and candidate.startswith(raw) and (m := _ALONE.match(text)):
            found = next((a, m[1].lower()) for a, n in LENGTHS.items() if n == len(m[1]))
        if found:
            origin = f"the vendor's {unquote(candidate)}"
            say(f"verified with {origin}")
            return Wanted(*found, origin)
    return None


def _small(url: str) -> str | None:
    """A short text behind a URL; None where the server says that there is none, http.Again where it is in trouble."""
    try:
        with http.get(url, {}) as answer:
            if answer.status_code != 200:
                return None
            raw = answer.raw.read(MOST + 1, decode_content=False)
    except HikubeError:
        return None
    text = raw.decode("utf-8", "replace")
    return None if len(raw) > MOST or text.lstrip("\ufeff \t\r\n").startswith("<") else text
