"""Hostile YAML: each in a process of its own, with limits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PAIR, ROOT
from tests.growth import patience, unit

resource = pytest.importorskip("resource", reason="limits are Unix' own")
HEAD = "apiVersion: apps.cozystack.io/v1alpha1\nkind: VMDisk\nmetadata: {name: a}\nspec:\n"
BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))

# name: (bytes, the code expected, or None when it is valid)
CASES: dict[str, tuple[bytes, str | None]] = {
    "alias bomb": (BOMB.encode(), "HK10"),
    "100,000 open brackets": (b"[" * 100_000, "HK106"),
    "1,000 open brackets": (b"[" * 1000, "HK106"),
    "1,500 levels of blocks": ("".join(" " * i + "a:\n" for i in range(1500)).encode(), "HK106"),
    "duplicate key": ((HEAD + "  storage: 1Gi\n  storage: 2Gi\n").encode(), "HK104"),
    "alias inside itself": (b"a: &a [*a]\n", "HK105"),
    "merge": ((HEAD + "  <<: {storage: 1Gi}\n").encode(), None),
    "python tag": (b"a: !!python/object/apply:os.system ['id']\n", "HK108"),
    "own tag": (b"a: !foo b\n", "HK108"),
    "binary": (b"a: !!binary aGk=\n", "HK108"),
    "timestamp tag": (b"a: !!timestamp 2001-01-01\n", "HK108"),
    "no as a name": (b"apiVersion: apps.cozystack.io/v1alpha1\nkind: VMDisk\nmetadata: {name: no}\n", "HK320"),
    "ports in base 60": ((HEAD + "  storage: 22:22\n").encode(), "HK308"),
    "not a number": ((HEAD + "  storage: .nan\n").encode(), "HK308"),
    "5,000 digits": ((HEAD + f"  storage: {'9' * 5000}\n").encode(), "HK308"),
    "NUL": (b"a: b\0c\n", "HK110"),
    "escaped NUL": (b'a: "b\\0c"\n', "HK110"),
    "byte order mark": (b"\xef\xbb\xbf" + (HEAD + "  storage: 1Gi\n").encode(), None),
    "UTF-16": (b"\xff\xfe\x00\xd8", "HK103"),
    "Latin-1": ("a: caf\xe9\n".encode("latin-1"), "HK103"),
    "CRLF": ((HEAD + "  storage: 1Gi\n").replace("\n", "\r\n").encode(), None),
    "tab as indentation": (b"a:\n\tb: c\n", "HK102"),
    "lone surrogate": (b'a: "\\ud800"\n', "HK1"),
    "YAML 1.1 directive": (b"%YAML 1.1\n---\n" + (HEAD + "  storage: 1Gi\n").encode(), None),
    "document end": ((HEAD + "  storage: 1Gi\n...\n").encode(), None),
    "complex key": (b"? [a, b]\n: c\n", "HK109"),
    "null key": (b"? ~\n: c\n", "HK109"),
    "unterminated quote over 100,000 lines": (b'a: "' + b"x\n" * 100_000, "HK102"),
    "20,000 documents": (b"---\na: 1\n" * 20_000, "HK"),
    "100,000 keys": (b"".join(b"k%d: 1\n" % i for i in range(100_000)), "HK206"),
    "a string of 15 MB": (b"a: " + b"x" * 15_000_000, "HK107"),
    "17 MB": (b"#" * 17_000_000, "HK107"),
    "4,000,000 items": (b"- a\n" * 4_000_000, "HK107"),
    "bidi in a kind": ("apiVersion: apps.cozystack.io/v1alpha1\nkind: VM\u202eDisk\n".encode(), "HK202"),
    "an ELF file": (Path(sys.executable).resolve().read_bytes()[:100_000], "HK1"),
    "empty": (b"", "HK112"),
    "a scalar": (b"hello", "HK201"),
    "good": (PAIR.encode(), None),
}


def _limits() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))


@pytest.mark.parametrize("name", CASES)
def test_hostile_yaml_gets_a_message_with_its_place(name, tmp_path):
    raw, code = CASES[name]
    path = tmp_path / "m.yaml"
    path.write_bytes(raw)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "hikube_local", "validate", "-o", "json", str(path)],
        capture_output=True,
        timeout=patience(30),
        preexec_fn=_limits,
        cwd=ROOT,
        env={"HIKUBE_LOCAL_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "OPENBLAS_NUM_THREADS": "1"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 40 * unit(), "too much processor time for this machine"
    assert done.returncode in (0, 2), done.stderr.decode()[-500:]
    findings = [f for f in json.loads(done.stdout) if f["severity"] == "error"]
    if code is None:
        assert findings == []
        assert done.returncode == 0
    else:
        assert findings, done.stdout
        assert findings[0]["code"].startswith(code), findings[0]
        assert findings[0]["file"] == str(path) or findings[0]["code"] == "HK112"
