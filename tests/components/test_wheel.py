"""The wheel works outside the checkout, without libvirt's binding and without a compiler."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests import wheel
from tests.conftest import PAIR
from tests.growth import patience


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[Path, Path]:
    work = tmp_path_factory.mktemp("wheel")
    return wheel.install(work, work / "site"), work / "site"


def run(site: Path, *words: object, home: Path) -> subprocess.CompletedProcess:
    # -S: not even the distribution's packages, where python3-libvirt would be.
    env = {
        "PYTHONPATH": str(site),
        "HIKUBE_LOCAL_HOME": str(home),
        "PATH": "/usr/bin:/bin:/usr/sbin",
        "LANG": "C.UTF-8",
    }
    argv = ["/usr/bin/python3", "-S", "-m", "hikube_local", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, env=env, cwd=home, timeout=patience(60))


def test_it_carries_every_data_file(installed):
    names = zipfile.ZipFile(installed[0]).namelist()
    for name in (
        "catalogue/instancetypes.yaml",
        "catalogue/profiles.yaml",
        "catalogue/images.yaml",
        "catalogue/de.po",
        "catalogue/fr.po",
        "catalogue/it.po",
        "_recipes/debian-12/recipe.yaml",
        "_recipes/debian-13/recipe.yaml",
        "images/fill.py",
        "backends/qemu/network/enter.py",
    ):
        assert f"hikube_local/{name}" in names
    assert not [n for n in names if n.startswith(("tests/", "hikube_local/tests"))]


def test_what_needs_no_libvirt_works_without(installed, tmp_path):
    site = installed[1]
    path = tmp_path / "m.yaml"
    path.write_text(PAIR)
    assert run(site, "validate", path, home=tmp_path).returncode == 0
    assert run(site, "render", path, "--to", tmp_path / "out", home=tmp_path).returncode == 0
    assert run(site, "up", path, "--backend", "simulator", home=tmp_path).returncode == 0
    assert run(site, "plan", path, "-n", "other", "-o", "json", home=tmp_path).returncode == 0
    assert "libvirt binding" in run(site, "doctor", home=tmp_path).stdout
    assert "debian-12" in run(site, "images", "build", "nonsense", home=tmp_path).stderr


def test_what_needs_libvirt_names_the_line_that_installs_it(installed, tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(PAIR)
    done = run(installed[1], "up", path, home=tmp_path)
    assert done.returncode == 1
    assert "python3-libvirt" in done.stderr and "its extra [libvirt]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not os.path.exists(tmp_path / "state" / "disks")
