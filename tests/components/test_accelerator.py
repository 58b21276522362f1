"""The guest that proves whether hardware virtualisation works: it runs under emulation, and nothing of it stays."""

from __future__ import annotations

import grp
import os
import stat
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from hikube_local import files
from hikube_local.host import accelerator, facts, qemu_ids
from hikube_local.paths import Layout


def test_the_trial_guest_ends_as_it_should_and_leaves_no_file(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[tuple[str, float | None, list[str]]] = []
    real = accelerator._trial

    def trial(accel: str, disk: int, limit: float) -> float | None:
        took = real(accel, disk, limit)
        seen.append((accel, took, [p.name for p in tmp_path.iterdir()]))  # a kill here would leave these
        return took

    monkeypatch.setattr(accelerator, "_trial", trial)
    accelerator.probe()
    assert seen[0][0] == "tcg" and seen[0][1] is not None
    assert all(left == [] for _, _, left in seen)
    tcg = [took for accel, took, _ in seen if accel == "tcg"]
    assert len(tcg) == 4 and max(tcg[2:]) > min(tcg[:2])  # the long loop takes longer than the short one


@pytest.fixture
def verdicts(tmp_path: Path, monkeypatch):
    """A layout, and the verdicts that trials come to, one after the other."""
    left: list[accelerator.Verdict] = []
    monkeypatch.setattr(accelerator, "probe", lambda: left.pop(0))
    accelerator._tried.cache_clear()
    yield Layout(tmp_path / "s", tmp_path / "c", tmp_path / "config", tmp_path / "r", False), left
    accelerator._tried.cache_clear()


NO = accelerator.Verdict(False, "the processor was held", 5.0, lasting=False)
YES = accelerator.Verdict(True, "it ran", 1.0)


def test_a_no_that_may_pass_is_tried_again_and_a_yes_is_kept(verdicts):
    layout, left = verdicts
    left += [NO, YES]
    accelerator.keep(layout)
    assert accelerator.kept(layout) == NO
    accelerator._tried.cache_clear()  # another command
    accelerator.keep(layout)
    assert accelerator.kept(layout) == YES
    accelerator._tried.cache_clear()
    accelerator.keep(layout)  # nothing left to be tried
    assert accelerator.verdict(layout) == YES


def test_a_verdict_of_an_earlier_version_is_tried_anew(verdicts):
    layout, left = verdicts
    old = {"key": {"boot": facts.boot_id(), "access": ""}, "verdict": {"kvm": False, "why": "slower", "slowness": 3.0}}
    layout.cache.mkdir()
    files.write_json(layout.cache / accelerator.FILE, old)
    left.append(YES)
    assert accelerator.kept(layout) is None and accelerator.verdict(layout) == YES


@pytest.fixture
def device(tmp_path: Path, monkeypatch):
    """A /dev/kvm of the test's, with a group and a mode."""

    def make(gid: int, mode: int, root: bool = True, groups: tuple[str, ...] = ()) -> str:
        path = tmp_path / "kvm"
        path.write_text("")
        about = os.stat(path)
        made = SimpleNamespace(st_mode=stat.S_IFCHR | mode, st_gid=gid, st_uid=0, st_dev=about.st_dev)
        real = os.stat
        monkeypatch.setattr(os, "stat", lambda p, *w, **k: made if p == str(path) else real(p, *w, **k))
        monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 4242)
        monkeypatch.setattr(os, "access", lambda p, how: root or mode & 0o006 == 0o006)
        return str(path)

    return make


def test_root_uses_the_group_that_the_device_has_whatever_its_name(device):
    path = device(2345, 0o660)
    assert qemu_ids.shared(path)[1] == 2345
    assert accelerator.access(path) == ""


def test_a_device_of_roots_own_group_is_no_group_of_qemus(device):
    path = device(0, 0o660)
    assert qemu_ids.shared(path)[1] != 0
    assert "cannot be opened by QEMU's user (mode 660, group 0)" in accelerator.access(path)
    assert "chgrp kvm" in accelerator.remedy(path)


def test_the_advice_is_right_where_it_is_given(device, monkeypatch):
    path = device(2345, 0o660, root=False)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name="odd", gr_mem=[]))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(facts, "container", lambda: "")
    assert accelerator.remedy(path).startswith("sudo usermod -aG odd $USER")
    monkeypatch.setenv("CI", "true")
    assert accelerator.remedy(path) == f"sudo chmod 0666 {path}"  # a job cannot log in again
    monkeypatch.setattr(facts, "container", lambda: "docker")
    assert accelerator.remedy(path) == "start the container with --group-add 2345"
    assert accelerator.remedy("/nowhere/kvm") == "start the container with --device /nowhere/kvm"
