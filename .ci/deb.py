#!/usr/bin/env python3
"""A Debian package for this release of Debian and this architecture, into dist/. Run by `make deb`.

Needs debhelper. The wheel is built from what is committed; the Python packages are those of the lock, without the tests' own.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from email.utils import formatdate
from pathlib import Path

from release import committed

ROOT = Path(__file__).resolve().parent.parent


def requirements(source: Path) -> str:
    """The lock's part that an installation with `serve` needs, with its hashes."""
    names = subprocess.run(
        [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "compile",
            "--quiet",
            "--no-header",
            "--generate-hashes",
            "--universal",
            "--python-version",
            "3.11",
            "--extra",
            "serve",
            "-c",
            source / ".ci" / "requirements.txt",
            source / "pyproject.toml",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return re.sub(r"^ +#.*\n", "", names.stdout, flags=re.M)


def versioned(version: str, when: str) -> str:
    """The version with the release of Debian that it is for; of what has no tag, with its commit."""
    words = ["git", "describe", "--tags", "--exact-match", "HEAD"]
    tagged = subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.strip() == f"v{version}"
    short = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    stamp = time.strftime("%Y%m%d%H%M", time.gmtime(int(when)))
    release = platform.freedesktop_os_release()
    return version + ("" if tagged else f"~git{stamp}.{short}") + f"+{release['ID'][:3]}{release.get('VERSION_ID', '')}"


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        when = committed(Path(name) / "source")
        sys.path.insert(0, str(Path(name) / "source"))
        return packaged(Path(name), Path(name) / "source", when)


def packaged(work: Path, source: Path, when: str) -> int:
    from hikube_local import __version__
    from hikube_local.cli.settings import PLACES, script
    from hikube_local.host.autostart import serving
    from hikube_local.paths import layout
    from tests.pages import man_pages

    dist = ROOT / "dist"
    dist.mkdir(exist_ok=True)
    tree = work / f"hikube-local-{__version__}"
    debian = tree / "debian"
    shutil.copytree(source / ".ci" / "debian", debian)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", debian], cwd=source, check=True)
    (debian / "requirements.txt").write_text(requirements(source))
    entry = f"hikube-local ({versioned(__version__, when)}) unstable; urgency=medium\n\n  * New version; see CHANGELOG.md of the project.\n\n"
    (debian / "changelog").write_text(
        f"{entry} -- hikube-local developers <hikube-local@hikube.cloud>  {formatdate(int(when))}\n"
    )
    minor = sys.version_info[1]
    control = (debian / "control").read_text()
    (debian / "control").write_text(
        control.replace("@PYTHON@", f"python3 (>= 3.{minor}~), python3 (<< 3.{minor + 1}~)")
    )
    (debian / "man").mkdir()
    for page, text in man_pages().items():
        (debian / "man" / page).write_text(text)
    for shell in PLACES:
        (debian / shell).write_text(script(shell) + "\n")
    for place in [n for n in os.environ if n.startswith(("XDG_", "HIKUBE_LOCAL"))]:
        del os.environ[place]  # the packager's own are nobody else's
    unit = re.sub(r"ExecStart=.*", "ExecStart=/usr/bin/hikube-local serve", serving(layout(), None, [])).replace(
        "multi-user.target", "default.target"
    )
    (debian / "serve.service").write_text(unit)
    for part in ("README.md", "docs", "examples"):
        (shutil.copytree if (source / part).is_dir() else shutil.copy)(source / part, tree / part)
    (debian / "hikube-local.docs").write_text("README.md\ndocs\n")
    (debian / "hikube-local.examples").write_text("examples/*\n")
    os.chmod(debian / "rules", 0o755)
    env = {**os.environ, "SOURCE_DATE_EPOCH": when, "DEB_BUILD_OPTIONS": "nocheck"}
    subprocess.run(["dpkg-buildpackage", "-b", "-us", "-uc", "-d"], cwd=tree, env=env, check=True, stdout=sys.stderr)
    for made in work.glob("*.deb"):
        if "dbgsym" not in made.name:
            shutil.copy(made, dist / made.name)
            print(dist / made.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
