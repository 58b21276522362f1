#!/usr/bin/env python3
"""The page's three libraries out of the npm registry, checked against the lock file and made ready to be served.

`.ci/vendor.py` writes hikube_local/page/static/vendor anew; `--check` compares instead, byte by byte. Only who changes a
version runs it, with npm at hand: what it makes is committed, so nobody else needs node.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "hikube_local" / "page" / "static" / "vendor"
LOCK = TARGET / "lock.json"


def fetched(package: dict, folder: Path) -> Path:
    """The unpacked package; its sha512 is the lock's."""
    spec = f"{package['name']}@{package['version']}"
    name = subprocess.run(["npm", "pack", "--silent", spec], cwd=folder, check=True, capture_output=True, text=True)
    archive = folder / name.stdout.strip().splitlines()[-1]
    digest = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != package["integrity"]:
        raise SystemExit(f"{spec}: its digest is {digest}, the lock says {package['integrity']}")
    place = folder / package["name"].replace("/", "-").lstrip("@")
    with tarfile.open(archive) as tar:
        # Python 3.11.2 of Debian 12 has no filter="data": plain files below the folder, nothing else.
        tar.extractall(place, [m for m in tar if m.isfile() and m.name.startswith("package/") and ".." not in m.name])
    return place / "package"


def minified(tool: str, entry: Path, folder: Path) -> bytes:
    """One module with all that it imports."""
    out = folder / "joined.js"
    words = ["npx", "--yes", tool, str(entry), "--bundle", "--minify", "--format=esm", "--target=es2022"]
    subprocess.run([*words, "--legal-comments=none", f"--outfile={out}"], cwd=folder, check=True, capture_output=True)
    return out.read_bytes()


def made(lock: dict, folder: Path) -> dict[str, bytes]:
    """Every file of the target by its name."""
    files, notices = {}, [lock["notice"]]
    for package in lock["packages"]:
        source = fetched(package, folder)
        for target, path in package["files"].items():
            files[target] = _plain((source / path).read_bytes())
        for target, path in package.get("joined", {}).items():
            files[target] = minified(lock["esbuild"], source / path, folder)
        for path in package["licences"]:
            files[_licence(package["name"], path)] = (source / path).read_bytes()
        how = "joined and minified by esbuild" if "joined" in package else "as published"
        notices.append(
            f"{', '.join([*package['files'], *package.get('joined', {})])}: {package['name']} {package['version']}, "
            f"{package['licence']}, {how}. Source: npm package {package['name']}@{package['version']} ({package['integrity']})"
        )
    files["NOTICE.txt"] = ("\n\n".join(notices) + "\n").encode()
    return files


def _licence(package: str, path: str) -> str:
    return f"licences/{package.rpartition('/')[2]}-{path.replace('/', '-').removesuffix('.txt')}.txt"


def _plain(content: bytes) -> bytes:
    """Without the line that points at a source map that is not there."""
    lines = content.split(b"\n")
    return b"\n".join(line for line in lines if not line.startswith(b"//# sourceMappingURL="))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    lock = json.loads(LOCK.read_text())
    with tempfile.TemporaryDirectory() as folder:
        files = made(lock, Path(folder))
    there = {str(p.relative_to(TARGET)): p for p in TARGET.rglob("*") if p.is_file() and p != LOCK}
    if check:
        wrong = [n for n in {*files, *there} if n not in there or there[n].read_bytes() != files.get(n)]
        print(
            "\n".join(f"differs: {n}" for n in sorted(wrong)) or "the committed files are those of the lock",
            file=sys.stderr,
        )
        return 1 if wrong else 0
    for name in there.keys() - files.keys():
        there[name].unlink()
    for name, content in files.items():
        (TARGET / name).parent.mkdir(parents=True, exist_ok=True)
        (TARGET / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
