#!/usr/bin/env python3
"""What is handed out: an sdist and a wheel that come out equal from two builds, an SBOM, and the digests of all; into dist/.

Run by `make release` with the interpreter of the checkout's environment. The time in the archives is that of the last commit
(SOURCE_DATE_EPOCH, reproducible-builds.org).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"


def committed(source: Path) -> str:
    """What is committed, unpacked; the time of the commit, in Unix seconds."""
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
    when = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True)
    return when.stdout.strip()


def built(work: Path) -> dict[str, Path]:
    """An sdist and a wheel of what is committed, by their names."""
    source, out = work / "source", work / "out"
    env = {**os.environ, "SOURCE_DATE_EPOCH": committed(source)}
    words = [sys.executable, "-m", "hatchling", "build", "-d", out]
    subprocess.run(words, cwd=source, env=env, check=True, stdout=sys.stderr)
    return {p.name: p for p in sorted(out.iterdir())}


def sbom(name: str, version: str) -> dict:
    """CycloneDX 1.6: what an installation brings, as the lock has it, and what the page carries."""
    rows = re.findall(r"^([a-z0-9][\w.-]*)==(\S+)", (ROOT / ".ci" / "requirements.txt").read_text(), re.M)
    parts = [{"type": "library", "name": n, "version": v, "purl": f"pkg:pypi/{n}@{v}"} for n, v in rows]
    lock = json.loads((ROOT / "hikube_local" / "page" / "static" / "vendor" / "lock.json").read_text())
    for row in lock["packages"]:
        purl = f"pkg:npm/{row['name'].replace('@', '%40')}@{row['version']}"
        part = {"type": "library", "name": row["name"], "version": row["version"], "purl": purl}
        parts.append({**part, "licenses": [{"license": {"name": row["licence"]}}]})
    own = {"type": "application", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own},
        "components": parts,
    }


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        first, second = built(Path(folder) / "1"), built(Path(folder) / "2")
        differ = [n for n in first if first[n].read_bytes() != second[n].read_bytes()]
        if differ or first.keys() != second.keys():
            print(f"two builds differ: {', '.join(differ) or 'in their names'}", file=sys.stderr)
            return 1
        DIST.mkdir(exist_ok=True)
        for kind in ("*.whl", "*.tar.gz", "*.cdx.json", "SHA256SUMS"):  # of an earlier run; Debian packages stay
            for old in DIST.glob(kind):
                old.unlink()
        for name, path in first.items():
            shutil.copy(path, DIST / name)
    wheel = next(p.name for p in DIST.glob("*.whl"))
    version = wheel.split("-")[1]
    (DIST / f"hikube-local-{version}.cdx.json").write_text(json.dumps(sbom("hikube-local", version), indent=2) + "\n")
    files = sorted(p for p in DIST.iterdir())
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in files]
    (DIST / "SHA256SUMS").write_text("".join(lines))
    print("".join(lines), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
