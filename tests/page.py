"""A browser that looks at the page: Debian's Chromium, driven by Playwright, with what its policy forbade and what it said."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.growth import patience

CHROMIUM = shutil.which("chromium")
# Before anything of the page runs: what the policy forbids is noted.
_NOTED = "window.forbidden = []; addEventListener('securitypolicyviolation', e => forbidden.push(e.violatedDirective + ' ' + e.blockedURI));"
# What a browser says of requests that are to fail in these tests.
_EXPECTED = ("WebSocket", "Failed to load resource", "Failed when connecting")


class Look:
    """One page of one context."""

    def __init__(self, context: Any) -> None:
        self.context, self.page = context, context.new_page()
        self.said: list[str] = []
        self.page.on("pageerror", lambda e: self.said.append(f"error: {e}"))
        self.page.on("console", self._console)

    def _console(self, message: Any) -> None:
        if message.type == "error" and not message.text.startswith(_EXPECTED):
            self.said.append(message.text)

    def open(self, link: str) -> Look:
        self.page.goto(link)
        return self

    def at(self, path: str) -> None:
        """Another view."""
        self.page.evaluate("path => { location.hash = path }", path)

    def text(self) -> str:
        return str(self.page.inner_text("body"))

    def terminal(self) -> str:
        """What the console's terminal holds, with what it scrolled away."""
        code = """() => { const t = document.querySelector('.tty')?.terminal; if (!t) return '';
          const b = t.buffer.active; let out = '';
          for (let i = 0; i < b.length; i++) out += b.getLine(i).translateToString(true) + '\\n'; return out; }"""
        return str(self.page.evaluate(code))

    def until(self, holds: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + patience(20)
        while not holds():
            assert time.monotonic() < deadline, f"{what}: {self.text()[:800]}"
            self.page.wait_for_timeout(50)

    def shows(self, *words: str) -> None:
        self.until(lambda: all(w in self.text() for w in words), f"shows {words}")

    def heading(self, words: str) -> None:
        self.until(lambda: words in (self.page.text_content("h1") or ""), f"the heading {words}")

    def clean(self) -> None:
        """Nothing was forbidden, nothing failed."""
        for page in self.context.pages:
            assert page.evaluate("window.forbidden") == []
        assert self.said == []


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Chromium, or the test is skipped with the reason."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (make test-packages)")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (make test-packages)")
    # Its wrapper is a shell script of Debian's; as root it has no sandbox of its own.
    words = ["--no-sandbox"] if os.geteuid() == 0 else []
    # A program that drives a browser has a loop of its own, which pytest's must not see afterwards.
    # Its crash reporter keeps a file in the user's own configuration, whatever the profile's folder is.
    with tempfile.TemporaryDirectory() as own, api.sync_playwright() as play:
        environment = {**os.environ, "XDG_CONFIG_HOME": own, "CHROME_CONFIG_HOME": own}
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=[*words, "--disable-gpu"], env=environment)
        try:
            yield chromium
        finally:
            chromium.close()


@contextlib.contextmanager
def looking(chromium: Any, **options: Any) -> Iterator[Look]:
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **options})
    context.add_init_script(_NOTED)
    try:
        yield Look(context)
    finally:
        context.close()
