"""The promises of a backend (tests/promises.py) on real machines: the same suite, run inside the test's own host."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import Real
from tests.growth import patience

pytestmark = pytest.mark.e2e


@pytest.mark.full
def test_qemu_keeps_every_promise(real: Real):
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/e2e/inside_promises.py"]
    env = {**real.env, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*real.host.enter, "sh", "-c", f'cd {ROOT} && exec "$@"', "sh", *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=patience(900),
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout and "failed" not in done.stdout
