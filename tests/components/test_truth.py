"""`cloudinit check` beside cloud-init's own code: what it refuses is an error here, and what it takes is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from hikube_local.source.finding import Severity
from hikube_local.userdata import accounts, tree, whole
from hikube_local.userdata.check import check
from tests.conftest import ROOT
from tests.pure.test_cases import CLASSES, CORPUS
from tests.pure.test_userdata import GALLERY

# Unpacked by `make test` from Debian's package; never installed.
PACKAGE = ROOT / ".venv" / "cloud-init" / "usr" / "lib" / "python3" / "dist-packages"
# What cloud-init does not read itself, and what is an error for another reason than that it would refuse it.
OTHER = ("HK314", "HK327", "HK341", "HK342", "HK358")


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> dict[str, tuple[bytes, dict]]:
    """{name: (user-data, what cloud-init's own readers say of it)} of the gallery, the classes and the corpus."""
    if not PACKAGE.is_dir():
        pytest.skip("Debian's package of cloud-init is not at hand (make test-packages brings it)")
    folder = tmp_path_factory.mktemp("truth")
    raws = {f"gallery {n}": text.encode() for n, (text, _) in GALLERY.items()}
    raws |= {n: text.encode() for n, (text, _) in CLASSES.items()}
    raws |= {p.name: p.read_bytes() for part in ("good", "told") for p in (CORPUS / part).iterdir()}
    paths = {}
    for at, (name, raw) in enumerate(raws.items()):
        paths[str(folder / f"f{at:04}")] = name
        (folder / f"f{at:04}").write_bytes(raw)
    argv = [sys.executable, ROOT / "tests" / "cloudinit_truth.py", *paths]
    done = subprocess.run(
        argv, env={**os.environ, "PYTHONPATH": str(PACKAGE)}, capture_output=True, text=True, timeout=600
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(raws), done.stderr[-2000:]
    return {paths[r["file"]]: (raws[paths[r["file"]]], r) for r in rows}


def _errors(raw: bytes) -> list:
    return [n for n in check(raw) if n.severity is Severity.ERROR and n.code not in OTHER]


def _template(raw: bytes) -> bool:
    """What a template comes to depends on the machine."""
    return b"jinja" in raw[:200].lower()


def test_what_cloud_init_refuses_is_told(truth):
    silent = {
        name: row["refused"]
        for name, (raw, row) in truth.items()
        if row["refused"] and not _template(raw) and all(n.severity is Severity.DIFFERENCE for n in check(raw))
    }
    assert not silent


def test_what_cloud_init_takes_is_no_error(truth):
    false = {
        n: [(e.code, e.line, e.message) for e in _errors(raw)] for n, (raw, row) in truth.items() if not row["refused"]
    }
    wrong = {n: found for n, found in false.items() if found}
    assert set(wrong) <= KNOWN_SILENT, wrong


# cloud-init says nothing and does nothing of it: no refusal to be seen, and an error here. Or a branch that it does not take.
KNOWN_SILENT = {"gallery MIME without its version", "gallery MIME with another boundary", "gallery a template"}


def test_parts_come_to_the_same_configuration(truth):
    """The keys and the users of what all parts come to together."""
    for name, (raw, row) in truth.items():
        if row["refused"] or name in KNOWN_SILENT or _template(raw) or raw.startswith(b"\x1f\x8b"):
            continue
        root = whole.merged(raw.decode("utf-8", "replace"))
        ours = sorted(root.value) if root is not None else []
        theirs = [k for k in row["keys"] if k not in ("merge_how", "merge_type")]
        assert [k for k in ours if k not in ("merge_how", "merge_type")] == theirs, name
        if root is not None and root.get("users") is not None and row.get("users"):
            rest = tree.data(root)
            named = {
                u["name"]
                for u in accounts.listed(rest["users"])
                if isinstance(u, dict) and isinstance(u.get("name"), str)
            }
            named |= {u for u in accounts.listed(rest["users"]) if isinstance(u, str)} - {"default"}
            assert named - set(row["users"]) <= {"default"}, name


def test_a_script_of_commands_is_made_where_no_error_is_told(truth):
    for name, (raw, row) in truth.items():
        failed = any(why.startswith(("runcmd", "bootcmd")) for why in row["refused"])
        found = [n for n in check(raw) if n.severity is Severity.ERROR and n.path.startswith(("runcmd", "bootcmd"))]
        bad = [n for n in found if n.code in ("HK345", "HK342")]
        if not _template(raw):
            assert bool(bad) == failed, (name, row["refused"], bad)
