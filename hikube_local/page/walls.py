"""What a request must be before anybody asks who sent it, and what each answer says to a browser; pure.

The same for the page and for the API: a name that was bent to us, a foreign page and a frame get nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

NAMES = ("127.0.0.1", "localhost", "::1")
# Kubernetes' way for browsers, which cannot give headers to a websocket (kubernetes PR 47740).
BEARER = "base64url.bearer.authorization.k8s.io."
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
    "manifest-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def refused(scheme: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
    """(HTTP code, why) of a request that gets nothing, whoever sent it. `scheme`: http or https, of the connection.

    Host: any port, so that `ssh -L` works. Origin: this very server's, as text. Sec-Fetch-Site: no other site's.
    """
    host = headers.get("Host", "")
    if name(host) not in NAMES:
        return 421, f"this endpoint is not {host[:80]}: use the address that serve printed"
    origin = headers.get("Origin")
    if origin is not None and origin != f"{scheme}://{host}":
        return 403, "requests from web pages are not accepted"
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return 403, "requests from other sites are not accepted"
    return None


def name(host: str) -> str:
    """The name in a Host header: without its port, without the brackets of an IPv6 address."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([\w.-]+))(?::\d{1,5})?", host)
    return (found[1] or found[2]) if found else ""


def port(host: str, scheme: str) -> int:
    """The port in a Host header, as the client sees it."""
    text = host.rpartition("]")[2].rpartition(":")[2]
    return int(text) if text.isascii() and text.isdigit() else 443 if scheme == "https" else 80


def bearer(headers: Mapping[str, str]) -> str:
    """The token of a request, from its Authorization or, of a websocket, from its subprotocols; empty where there is none."""
    scheme, _, given = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    for word in headers.get("Sec-WebSocket-Protocol", "").split(","):
        if (word := word.strip()).startswith(BEARER):
            text = word.removeprefix(BEARER)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            except (binascii.Error, ValueError):
                return ""
    return ""


def protocols(headers: Mapping[str, str]) -> list[str]:
    """The subprotocols that a websocket offers, without the one that is a token."""
    words = [w.strip() for w in headers.get("Sec-WebSocket-Protocol", "").split(",")]
    return [w for w in words if w and not w.startswith(BEARER)]
