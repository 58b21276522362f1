"""A short run of `make fuzz` and of `make chaos`; and that each of them finds what is planted."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import chaos, fuzz
from tests.conftest import ROOT


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)


def test_mutated_input_finds_nothing() -> None:
    done = _run("tests.fuzz", "--seed", "7", "--count", "40")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{40 * len(fuzz.TARGETS)} inputs, 0 findings" in done.stdout


def _sometimes(raw: bytes, folder: Path) -> None:
    if b"::error::" in raw:
        raise KeyError("planted")


def _stuck(raw: bytes, folder: Path) -> None:
    if b"::error::" in raw:
        time.sleep(3600)


@pytest.mark.parametrize("planted, said", [(_sometimes, "KeyError"), (_stuck, "TooLong")])
def test_a_planted_fault_is_found_kept_and_read_again(planted, said, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(fuzz, "KEPT", tmp_path / "kept")
    monkeypatch.setitem(fuzz.TARGETS, "text", planted)
    monkeypatch.setattr(fuzz, "PATIENCE", 0)
    monkeypatch.setattr(fuzz, "LEAST", 0.2)
    assert fuzz.main(["--target", "text", "--seed", "1", "--count", "60"]) == 1
    assert said in capsys.readouterr().out
    kept = list((tmp_path / "kept").glob("text-*"))
    assert kept and all(b"::error::" in p.read_bytes() for p in kept)
    assert fuzz.main(["--target", "text", "--seed", "1", "--count", "1"]) == 1
    assert kept[0].name in capsys.readouterr().out


def test_what_was_found_once_stays_mended(tmp_path) -> None:
    for name in fuzz.TARGETS:
        for path in fuzz.kept(name):
            assert fuzz.tried(name, path.read_bytes(), tmp_path, 60) == "", path


def test_a_round_of_chaos_holds() -> None:
    done = _run("tests.chaos", "--seed", "3", "--rounds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rounds" in done.stdout and " 0 broken" in done.stdout


def test_chaos_sees_a_disk_that_went_and_a_file_that_was_left(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(chaos, "NAMES", ("web",))
    done = chaos.Round(1, tmp_path / "a")
    files = done.home / "files"
    files.mkdir(parents=True)
    (files / "web.yaml").write_text(chaos.manifest("web", 5, "[22]"))
    done.put.add("ghost-sys")
    with pytest.raises(chaos.Broken, match=r"disks are gone .*ghost-sys"):
        chaos.holds(done)
    done.put.clear()
    left = done.home / "state" / "somewhere" / ".partial-1"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("")
    with pytest.raises(chaos.Broken, match="left over"):
        chaos.holds(done)
