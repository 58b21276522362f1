"""The example of three machines, booted for real: web reaches db and app by name during its cloud-init."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import EXAMPLES
from tests.e2e.conftest import Host, Real, stock_recipe

pytestmark = [pytest.mark.e2e, pytest.mark.full]


def test_web_reaches_the_others_by_name_in_the_way_that_works_on_hikube(host: Host, debian: Path, tmp_path: Path):
    program = Real(tmp_path / "home", host)
    stock_recipe(program.home, debian)
    try:
        result = program("up", EXAMPLES / "three-tier.yaml", "--timeout", "25m", timeout=1800)
        assert result.code == 0, result.err
        page = host.http(program.access(80, "web"), 20) or ""
        assert "42 rows" in page and "the app" in page
        for name in ("app", "db"):
            assert program.status(name)["access"] == []
        told = program("describe", "vm/db").out
        assert "vm-instance-db.default.svc.cozy.local" in told
    finally:
        program.close()
