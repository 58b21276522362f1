#!/usr/bin/env python3
"""The documentation as one site, in build/site: what is in docs/, and the pages at the top of the checkout. `make docs` runs it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
TOP = ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = (
    ("Start", ("index", "getting-started", "getting-started.fr", "installation", "configuration")),
    ("Manifests", ("manifests", "differences", "codes")),
    (
        "Use",
        (
            "commands",
            "network",
            "images",
            "snapshots",
            "lab",
            "ci",
            "kubernetes",
            "page",
            "containers",
            "json",
            "performance",
        ),
    ),
    ("Help", ("troubleshooting", "troubleshooting.fr", "security")),
    ("How it works", ("ARCHITECTURE", "CONTRIBUTING", "SECURITY", "CHANGELOG")),
)
CONFIG = """
site_name: hikube-local
site_description: Hikube's virtual machine manifests, realised on your own machine
docs_dir: source
site_dir: site
use_directory_urls: false
theme:
  name: material
  font: false
  features: [navigation.sections, navigation.top, content.code.copy, search.suggest]
  palette:
    - {media: "(prefers-color-scheme: light)", scheme: default, primary: indigo}
    - {media: "(prefers-color-scheme: dark)", scheme: slate, primary: indigo}
markdown_extensions: [tables, toc, sane_lists]
validation: {nav: {omitted_files: warn}, links: {not_found: warn, anchors: warn, absolute_links: warn, unrecognized_links: warn}}
"""


def main() -> int:
    source = BUILD / "source"
    shutil.rmtree(BUILD, ignore_errors=True)
    source.mkdir(parents=True)
    for path in (ROOT / "docs").iterdir():
        if path.suffix in (".md", ".json", ".sh"):
            shutil.copy(path, source / path.name)
    for folder in ("pictures", "trials", "schemas"):
        if (ROOT / "docs" / folder).is_dir():
            shutil.copytree(ROOT / "docs" / folder, source / folder)
    for name in TOP:
        (source / name).write_text(_moved((ROOT / name).read_text()))
    (source / "index.md").write_text(_moved((ROOT / "README.md").read_text()))
    for path in source.glob("*.md"):
        path.write_text(path.read_text().replace("](../README.md", "](index.md").replace("](../", "]("))
    nav = [{title: [f"{name}.md" for name in names]} for title, names in PAGES]
    (BUILD / "mkdocs.yml").write_text(CONFIG + "nav: " + json.dumps(nav) + "\n")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", BUILD / "mkdocs.yml"]
    done = subprocess.run(words, cwd=BUILD)
    if done.returncode == 0:
        print(f"{BUILD / 'site' / 'index.html'} written")
    return done.returncode


def _moved(text: str) -> str:
    """A page of the top, beside those of docs/."""
    return re.sub(r"\]\(docs/", "](", text)


if __name__ == "__main__":
    sys.exit(main())
