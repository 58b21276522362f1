"""Run by tests/e2e/test_serve.py inside its host: a browser that looks at a real machine through the page."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.page import Look, browser, looking

SHOTS = os.environ.get("HIKUBE_LOCAL_SCREENSHOTS", "")


def shot(look: Look, name: str) -> None:
    """A picture for the documentation (`make pictures`)."""
    if SHOTS:
        look.page.wait_for_timeout(400)
        look.page.screenshot(path=Path(SHOTS) / f"page-{name}.png")


def main(link: str) -> None:
    with browser() as chromium, looking(chromium, viewport={"width": 1100, "height": 700}) as look:
        look.open(link)
        look.shows("web", "Ready", "80")
        shot(look, "machines")
        print("list: yes")
        at(look, "")
        look.shows("Boot", "Done after", "Conditions", "firmware")
        look.until(lambda: look.page.locator(".stages li").count() >= 1, "the stages of its boot")
        shot(look, "machine")
        print("boot:", look.page.locator(".stages li").count())
        console(look)
        look.at("#/network")
        look.shows("These rules are in force", "TCP 80", "forward 127.77.", "oifname")
        shot(look, "network")
        print("network:", look.page.locator(".drawing path").count() > 3)
        snapshots(look)
        at(look, "/usage")
        look.shows("on average")
        print("usage:", look.page.locator("canvas").count())
        screen(look)
        look.clean()


def at(look: Look, tab: str) -> None:
    look.at(f"#/machines/default/web{tab}")
    look.heading("web")


def console(look: Look) -> None:
    begin = time.monotonic()
    at(look, "/console")
    look.until(lambda: "typed-42" in look.terminal(), "what the console said before")
    print(f"console before: {time.monotonic() - begin:.2f}")
    look.shows("Connected. Keys go to the guest")
    look.page.keyboard.type("\necho page-$((6*7))\n")
    look.until(lambda: "page-42" in look.terminal(), "what was typed")
    shot(look, "console")
    print("console: page-42")
    look.page.reload()
    look.until(lambda: "page-42" in look.terminal(), "what was there, after a reload")
    print("console after a reload: yes")


def screen(look: Look) -> None:
    begin = time.monotonic()
    at(look, "/screen")
    look.shows("Connected. Keys go to the guest once")
    print(f"screen connected: {time.monotonic() - begin:.2f}")
    code = """() => { const c = document.querySelector('.screen canvas'); if (!c || !c.width) return 0;
      const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let lit = 0;
      for (let i = 0; i < d.length; i += 4) if (d[i] + d[i + 1] + d[i + 2] > 120) lit++; return lit; }"""
    # What runs shows nothing there; firmware and boot loader do.
    look.page.get_by_label("Send keys").select_option("Escape")
    look.page.get_by_role("button", name="Restart").click()
    look.until(lambda: look.page.evaluate(code) > 50, "a picture that is not black")
    shot(look, "screen")
    print("screen: yes")


def snapshots(look: Look) -> None:
    at(look, "/snapshots")
    look.page.get_by_label("Name of the snapshot").fill("looked")
    look.page.get_by_role("button", name="Take a snapshot").click()
    look.shows("The snapshot was taken", "looked")
    row: Any = look.page.get_by_role("row").filter(has_text="looked")
    row.get_by_role("button", name="Restore").click()
    look.page.get_by_role("dialog").get_by_role("button", name="Restore").click()
    look.shows("web is back")
    row.get_by_role("button", name="Delete").click()
    look.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    look.until(lambda: row.count() == 0, "it is gone")
    print("snapshots: yes")


if __name__ == "__main__":
    main(sys.argv[1])
