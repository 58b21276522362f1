"""The documentation that is written from the program stays equal to it, and every verb, code and field has its page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hikube_local.codes import CODES
from tests import pages
from tests.conftest import ROOT

DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", pages.PAGES)
def test_the_page_is_what_the_program_says(name: str):
    """A program of its own writes it, as in `make`: click keeps a command's --help as the first context in a process had it."""
    written = subprocess.run([sys.executable, "-m", "tests.pages", name], cwd=ROOT, capture_output=True, text=True)
    assert written.returncode == 0, written.stderr
    assert (DOCS / f"{name}.md").read_text() == written.stdout, f"python -m tests.pages {name} > docs/{name}.md"


def test_every_difference_has_its_row():
    """A code of a difference without a row would be a difference that no page tells."""
    text = (DOCS / "differences.md").read_text()
    assert [c for c in CODES if c.startswith("HK5") and f"[{c}]" not in text] == []


def test_every_verb_has_its_words():
    """A sentence, an option table with a sentence each, and a man page that man can read without a complaint."""
    written = pages.man_pages()
    for _, verb, made in pages.commands():
        assert verb.help.endswith("."), verb.name
        assert f"hikube-local-{verb.name}.1" in written
        for full, one in pages.below(verb.name, made):
            for words, about in pages.options(one):
                assert len(about) > 3, (full, words)


def test_man_reads_the_pages(tmp_path: Path):
    groff = subprocess.run(["sh", "-c", "command -v groff"], capture_output=True)
    if groff.returncode:
        pytest.skip("groff is not installed")
    for name, page in pages.man_pages().items():
        path = tmp_path / name
        path.write_text(page)
        done = subprocess.run(["groff", "-Kutf8", "-man", "-Tutf8", "-ww", "-z", path], capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == "", (name, done.stderr[:500])


def test_every_annotation_is_told():
    used = set()
    for path in (ROOT / "hikube_local").rglob("*.py"):
        used |= set(re.findall(r'^\w[\w, ]*= "(hikube\.local/\w+)"', path.read_text(), re.M))
    assert used and used == set(pages.annotations())


def test_links_between_pages_lead_somewhere():
    """Each link of a page to a file of the checkout, and to a heading of one."""
    wrong = []
    for page in [*DOCS.glob("*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in target or target.startswith("mailto:"):
                continue
            path, _, heading = target.partition("#")
            there = (page.parent / path) if path else page
            if not there.exists():
                wrong.append(f"{page.name}: {target}")
            elif heading and there.suffix == ".md":
                heads = {
                    re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-")
                    for h in re.findall(r"^#+ (.*)", there.read_text(), re.M)
                }
                if heading not in heads:
                    wrong.append(f"{page.name}: {target}")
    assert wrong == []


def test_every_code_has_its_entry():
    text = (DOCS / "codes.md").read_text()
    assert [c for c in CODES if f"### {c}: " not in text] == []


@pytest.mark.parametrize("name", sorted(p.name.removesuffix(".fr.md") for p in DOCS.glob("*.fr.md")))
def test_a_page_in_french_says_what_the_english_one_says(name: str):
    """As many sections, the same commands in the same order, the same codes and options: a change here is one there."""

    def told(path: Path) -> dict[str, list[str]]:
        text = path.read_text()
        lines = text.splitlines()
        blocks = [line.partition(" # ")[0].strip() for line in lines if line.startswith("    ")]
        inline = " ".join(text.split())
        return {
            "sections": [str(line.count("#")) for line in lines if re.match(r"#+ ", line)],
            "commands": blocks,
            "codes": re.findall(r"HK\d{3}", text),
            "words": sorted(set(re.findall(r"`([^`]+)`", inline)) - {"explain"}),
        }

    english, french = told(DOCS / f"{name}.md"), told(DOCS / f"{name}.fr.md")
    for what in ("sections", "commands", "codes"):
        assert french[what] == english[what], what
    assert set(english["words"]) <= set(french["words"]), set(english["words"]) - set(french["words"])
