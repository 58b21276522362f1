"""One HTTP request for an image: redirects followed by hand, schemes and targets checked, failures told apart."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from hikube_local.errors import HikubeError
from hikube_local.text import mask_url, sanitize
from hikube_local.urls import is_inner

CONNECT_TIMEOUT = 10
STALL_TIMEOUT = 30  # seconds without a byte
REDIRECTS = 10
LONGEST_WAIT = 60  # seconds that a Retry-After may ask for


class Unreachable(HikubeError):
    """The server could not be reached at all (as opposed to: it said no)."""


class Again(Exception):
    """Worth another try: what happened, and the seconds that the server asked for, if it did."""

    def __init__(self, error: HikubeError, wait: float | None = None) -> None:
        super().__init__(error.what)
        self.error, self.wait = error, wait


@contextlib.contextmanager
def get(url: str, headers: dict[str, str], known: bool = False) -> Iterator[Any]:
    """The streamed answer (200, 206, 304 or 416) to a GET. `known`: a digest will be compared, so http may follow https."""
    import requests

    with requests.Session() as session, _words(url):
        session.headers.update({"Accept-Encoding": "identity", "User-Agent": "hikube-local"})
        here = url
        for _ in range(REDIRECTS + 1):
            answer = session.get(
                here, headers=headers, stream=True, allow_redirects=False, timeout=(CONNECT_TIMEOUT, STALL_TIMEOUT)
            )
            if answer.is_redirect:
                answer.close()
                try:
                    there = urljoin(here, answer.headers["Location"])
                    urlsplit(there).port  # noqa: B018 (it raises what a malformed one is)
                except ValueError as e:
                    raise HikubeError("HK701", f"{mask_url(here)} redirects to a bad URL", why=str(e)[:100]) from None
                _follow(here, there, known)
                here = there
                continue
            with answer:
                _status(here, answer)
                yield answer
            return
        raise HikubeError("HK701", f"{mask_url(url)} was redirected more than {REDIRECTS} times")


def _follow(here: str, there: str, known: bool) -> None:
    """Never to another scheme than http(s), never from TLS to none unless a digest is known, never inwards from outside."""
    a, b = urlsplit(here), urlsplit(there)
    shown = f"{mask_url(here)} redirects to {mask_url(sanitize(there))[:200]}"
    if b.scheme not in ("http", "https"):
        raise HikubeError("HK701", f"{shown}: only http and https are followed")
    if a.scheme == "https" and b.scheme == "http" and not known:
        raise HikubeError("HK701", f"{shown}: from https to http", fix="give a checksum, or use that URL directly")
    if not is_inner(a.hostname) and is_inner(b.hostname):
        raise HikubeError("HK701", f"{shown}: an address inside this network", fix="use that URL directly")


def _status(url: str, answer: Any) -> None:
    code = answer.status_code
    if code in (200, 206, 304, 416):
        return
    error = HikubeError(
        "HK701",
        f"{mask_url(url)} answered {code} {sanitize(answer.reason or '')[:60]}",
        fix="open the URL in a browser; correct source.http.url",
    )
    if code == 429 or 500 <= code < 600:
        raise Again(error, _retry_after(answer.headers.get("Retry-After", "")))
    raise error


def _retry_after(text: str) -> float | None:
    """Seconds, from a number or a date; None when it says nothing that can be used."""
    from email.utils import parsedate_to_datetime

    try:
        wait = float(text) if text.strip().isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, IndexError):
        return None
    return min(max(wait, 0.0), LONGEST_WAIT)


@contextlib.contextmanager
def _words(url: str) -> Iterator[None]:
    """requests' exceptions as ours."""
    import requests
    from urllib3.exceptions import HTTPError

    shown = mask_url(url)
    try:
        yield
    except requests.exceptions.SSLError as e:
        fix = "set REQUESTS_CA_BUNDLE to trust your own CA; TLS is always verified"
        raise HikubeError("HK701", f"{shown}: TLS failed", why=_reason(e), fix=fix) from None
    except (requests.exceptions.ConnectionError, requests.exceptions.ConnectTimeout) as e:
        fix = "look at the network and the proxy settings, then run it again"
        raise Again(Unreachable("HK701", f"{shown} could not be reached", why=_reason(e), fix=fix)) from None
    except requests.exceptions.Timeout:
        error = HikubeError("HK701", f"{shown}: no data for {STALL_TIMEOUT} s", fix="run it again: it resumes")
        raise Again(error) from None
    except requests.exceptions.RequestException as e:
        raise HikubeError("HK701", f"{shown} could not be fetched", why=_reason(e)) from None
    except (HTTPError, ConnectionError, TimeoutError) as e:
        fix = "run it again: the download resumes"
        raise Again(HikubeError("HK701", f"the download of {shown} was interrupted", why=_reason(e), fix=fix)) from None
    except ValueError as e:  # requests looks at a Location even where it does not follow
        raise HikubeError("HK701", f"{shown} redirects to a bad URL", why=_reason(e)) from None


def _reason(error: BaseException) -> str:
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    return mask_url(sanitize(getattr(cause, "strerror", None) or str(cause)))[:200]
