"""The guest that proves whether hardware virtualisation works: it runs under emulation, and nothing of it stays."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hikube_local.host import accelerator


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
