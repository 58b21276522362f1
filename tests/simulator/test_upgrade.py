"""State roots of what has landed go on working. The archives in `roots` were made by the commit that names them:
`up examples/quickstart.yaml --backend simulator`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import EXAMPLES, Program

ROOTS = sorted((Path(__file__).parent / "roots").glob("*.tar.gz"))


@pytest.mark.parametrize("archive", ROOTS, ids=lambda p: p.name.split(".")[0])
def test_a_state_root_of_an_earlier_version_goes_on(hikube: Program, archive: Path):
    subprocess.run(["tar", "-xzf", archive, "-C", hikube.home], check=True)
    rows = {i["metadata"]["name"]: i for i in hikube("get", "-A", "-o", "json").json["items"]}
    assert set(rows) == {"quickstart", "quickstart-system", "quickstart-data"}
    ready = {c["type"]: c["status"] for c in rows["quickstart"]["status"]["conditions"]}
    assert ready["Ready"] == "True" and "Running" in hikube("get", "vm").out
    assert "quickstart" in hikube("describe", "vm", "quickstart").out
    assert hikube("events").code == 0
    again = hikube("up", EXAMPLES / "quickstart.yaml")
    assert again.code == 0 and "nothing changed" in again.err
    assert hikube("restart", "quickstart").code == 0
    assert hikube("down", "-A", "--disks", "--yes").code == 0
    assert hikube("get", "-A", "-o", "json").json["items"] == []
