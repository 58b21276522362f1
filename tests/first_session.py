"""The pictures of a first session, from a real one: a terminal as SVG and the lab's report (`make pictures` runs it).

python -m tests.first_session FOLDER: boots examples/quickstart.yaml and tests examples/lab/web.yaml in a state root of its own.
"""

from __future__ import annotations

import html
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import terminal
from tests.conftest import EXAMPLES, ROOT
from tests.e2e.conftest import built, stock_recipe
from tests.page import browser

COLUMNS = 92
PROGRAM = Path(sys.executable).with_name("hikube-local")
COMMANDS = (
    "up examples/quickstart.yaml --no-differences",
    "get",
    "ssh demo@quickstart -- cloud-init status --long",
)
WIDTH, HEIGHT, MARGIN = 8.43, 19, 16  # of a character and around all, in pixels
COLOURS = {
    "default": "#d5d9e0",
    "bold": "#ffffff",
    "red": "#ff7b72",
    "green": "#7ee787",
    "brown": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#76e3ea",
    "black": "#8b949e",
}
Lines = list[list[tuple[str, str]]]


def svg(lines: Lines, title: str) -> str:
    """A terminal with these lines. Pictures are looked at by people who cannot see, too: its title says what it is."""
    width = COLUMNS * WIDTH + 2 * MARGIN
    height = len(lines) * HEIGHT + 2 * MARGIN
    rows = []
    for n, runs in enumerate(lines):
        spans = "".join(
            f'<tspan fill="{COLOURS.get(colour, COLOURS["default"])}">{html.escape(text)}</tspan>'
            for text, colour in runs
        )
        rows.append(f'<text x="{MARGIN}" y="{MARGIN + HEIGHT * n + 14}" xml:space="preserve">{spans}</text>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" role="img"',
            f'  viewBox="0 0 {width:.0f} {height}" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14">',
            f"<title>{html.escape(title)}</title>",
            f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#0d1117"/>',
            *rows,
            "</svg>",
            "",
        ]
    )


def session(environment: dict[str, str]) -> Lines:
    """What a person types and sees."""
    shown: Lines = []
    for command in COMMANDS:
        done = terminal.run([str(PROGRAM), *command.split()], environment, ROOT, COLUMNS, 60, timeout=900)
        assert done.code == 0, done.text
        # The tail of a long one: what is drawn over while it works is no part of the end.
        shown += [[("$ ", "green"), (f"hikube-local {command}", "bold")], *done.styled[-24:], []]
    return shown[:-1]


def report(folder: Path, environment: dict[str, str]) -> None:
    """The lab's report as a picture."""
    page = Path(environment["HIKUBE_LOCAL_HOME"]) / "report.html"
    words = ["test", EXAMPLES / "lab" / "web.yaml", "--checks", EXAMPLES / "lab" / "checks.yml", "--html", page]
    subprocess.run([PROGRAM, *words], env=environment, cwd=ROOT, check=False)
    with browser() as chromium:
        look = chromium.new_page(viewport={"width": 1000, "height": 700})
        look.goto(page.as_uri())
        look.screenshot(path=folder / "lab-report.png")


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HIKUBE_LOCAL_HOME": home}
        stock_recipe(Path(home), built("debian-12"))
        try:
            text = svg(session(environment), "A first session: a machine comes up, is listed, and is logged in to")
            (folder / "first-session.svg").write_text(text)
            report(folder, environment)
        finally:
            subprocess.run([PROGRAM, "purge", "-A", "--disks", "--yes"], env=environment, cwd=ROOT, check=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
