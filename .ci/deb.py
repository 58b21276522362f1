#!/usr/bin/env python3
"""A Debian package for this release of Debian and this architecture, into dist/. Run by `make deb`.

Needs debhelper. The wheel is built from what is committed; the Python packages are those of the lock, without the tests' own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from email.utils import formatdate
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def requirements() -> str:
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
            ROOT / ".ci" / "requirements.txt",
            ROOT / "pyproject.toml",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return re.sub(r"^ +#.*\n", "", names.stdout, flags=re.M)


def main() -> int:
    from hikube_local import __version__
    from hikube_local.cli.settings import PLACES, script
    from hikube_local.host.autostart import serving
    from hikube_local.paths import layout
    from tests.pages import man_pages

    dist = ROOT / "dist"
    dist.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / f"hikube-local-{__version__}"
        debian = tree / "debian"
        shutil.copytree(ROOT / ".ci" / "debian", debian)
        subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", debian], cwd=ROOT, check=True)
        (debian / "requirements.txt").write_text(requirements())
        when = subprocess.run(
            ["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        entry = f"hikube-local ({__version__}) unstable; urgency=medium\n\n  * New version; see CHANGELOG.md of the project.\n\n"
        (debian / "changelog").write_text(
            f"{entry} -- hikube-local developers <hikube-local@hikube.cloud>  {formatdate(int(when.stdout))}\n"
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
        unit = re.sub(r"ExecStart=.*", "ExecStart=/usr/bin/hikube-local serve", serving(layout(), None, [])).replace(
            "multi-user.target", "default.target"
        )
        (debian / "serve.service").write_text(unit)
        (debian / "hikube-local.docs").write_text("README.md\n")
        shutil.copy(ROOT / "README.md", tree / "README.md")
        os.chmod(debian / "rules", 0o755)
        env = {**os.environ, "SOURCE_DATE_EPOCH": when.stdout.strip(), "DEB_BUILD_OPTIONS": "nocheck"}
        subprocess.run(
            ["dpkg-buildpackage", "-b", "-us", "-uc", "-d"], cwd=tree, env=env, check=True, stdout=sys.stderr
        )
        for made in Path(name).glob("*.deb"):
            if "dbgsym" not in made.name:
                shutil.copy(made, dist / made.name)
                print(dist / made.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
