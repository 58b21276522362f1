"""`make test-host`: the cases on the nested host, a verdict each. `--short`: those that `make test-all` runs."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from hikube_local.events import ignore
from hikube_local.images import build
from hikube_local.images.cache import Cache
from tests.conftest import ROOT
from tests.e2e.conftest import KEPT
from tests.guests import tiny
from tests.nested.cases import CASES
from tests.nested.host import Nested


def _payload(folder: Path) -> None:
    """What the host finds at /payload: a bundle of the checkout's last commit, and the guests' images."""
    subprocess.run(["git", "-C", ROOT, "bundle", "create", "-q", folder / "checkout.bundle", "HEAD"], check=True)
    cache = Cache(KEPT / "images", 0o711)
    entry = build.build(cache, "debian-12", ignore)
    debian = cache.path(entry.digest)
    guest = tiny.make(debian, KEPT / "test-guests")
    shutil.copy(debian, folder / "debian-12.qcow2")
    shutil.copy(guest, folder / "tiny.qcow2")
    # What the tests there would build, where they keep it: that host has no mirror.
    noted = next(p for p in (KEPT / "images" / "index").glob("*.json") if entry.key in p.read_text())
    for path in (debian, guest, noted):
        kept = folder / "kept" / path.relative_to(KEPT)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, kept)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nested", description=__doc__)
    parser.add_argument("--short", action="store_true")
    parser.add_argument(
        "--only", default="", help="cases whose names contain one of these words (a,b), and those that they need"
    )
    parser.add_argument("--artefacts", type=Path, default=ROOT / "test-host")
    words = parser.parse_args()
    # Ended from outside it leaves nothing either: `finally` is for exceptions alone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [
        c
        for c in CASES
        if (not words.short or c.short)
        and (not words.only or c.needed or any(w in c.name for w in words.only.split(",") if w))
    ]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        _payload(Path(folder))
        host = Nested(Path(folder), words.artefacts)
    failed = passed = 0
    try:
        begin = time.monotonic()
        host.boot()
        print(f"booted        {time.monotonic() - begin:4.0f} s", flush=True)
        for case in chosen:
            begin = time.monotonic()
            try:
                said = case.run(host) or ""
                mark, passed = "passed", passed + 1
            except Exception as e:
                said, mark = str(e).strip()[-3000:] or traceback.format_exc(), "FAILED"
                failed += 1
            print(f"{mark}  {time.monotonic() - begin:4.0f} s  {case.name}{': ' + said if said else ''}", flush=True)
            if failed and case.needed:
                break
    finally:
        host.close()
    print(f"{passed} of {len(chosen)} cases passed" + (f"; see {words.artefacts}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
