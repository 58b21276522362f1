"""What is handed out, and the steps of the GitHub action, as far as they need no guest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.growth import patience

ACTION = ROOT / ".ci" / "action.sh"


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory) -> Path:
    """dist/ of a clone of what is committed."""
    clone = tmp_path_factory.mktemp("release") / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    done = subprocess.run(
        [sys.executable, clone / ".ci" / "release.py"], capture_output=True, text=True, timeout=patience(200)
    )
    assert done.returncode == 0, done.stderr
    return clone / "dist"


def test_two_builds_are_equal_and_all_of_it_has_digests(handed_out: Path):
    names = {p.name for p in handed_out.iterdir()}
    assert len(names) == 4 and {n.rpartition(".")[2] for n in names} == {"whl", "gz", "json", "SHA256SUMS"}
    for line in (handed_out / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((handed_out / name).read_bytes()).hexdigest() == digest


def test_the_wheel_says_what_it_is(handed_out: Path):
    (path,) = handed_out.glob("*.whl")
    wheel = zipfile.ZipFile(path)
    names = wheel.namelist()
    meta = wheel.read(next(n for n in names if n.endswith("/METADATA"))).decode()
    for words in ("Name: hikube-local", "Requires-Python: >=3.11", "Typing :: Typed", "Provides-Extra: serve"):
        assert words in meta
    for name in ("py.typed", "page/static/index.html", "page/static/vendor/NOTICE.txt", "_docs/hikube.schema.json"):
        assert f"hikube_local/{name}" in names
    (source,) = handed_out.glob("*.tar.gz")
    with tarfile.open(source) as tar:
        inside = {n.partition("/")[2] for n in tar.getnames()}
    assert {"LICENSE", "README.md", "Makefile", "pyproject.toml", "tests/conftest.py", "docs/page.md"} <= inside


def test_the_sbom_names_what_is_installed_and_what_the_page_carries(handed_out: Path):
    (path,) = handed_out.glob("*.json")
    found = {c["purl"] for c in json.loads(path.read_text())["components"]}
    assert any(p.startswith("pkg:pypi/pydantic-core@") for p in found)
    assert any(p.startswith("pkg:npm/%40novnc/novnc@") for p in found)


def test_the_action_hands_nothing_of_a_user_to_a_shell():
    """Inputs come as environment variables; no step's script holds one."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    for step in action["runs"]["steps"]:
        assert "inputs." not in step.get("run", ""), step["name"]
    assert {"manifests", "checks", "images", "timeout", "version"} == set(action["inputs"])


def _step(name: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    base = {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": str(folder), "HIKUBE_LOCAL_HOME": str(folder / "home")}
    base |= {"HIKUBE_VENV": str(Path(sys.executable).parent.parent), "RUNNER_TEMP": str(folder), "LANG": "C.UTF-8"}
    base |= {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_ACTIONS": "true"}
    return subprocess.run(
        [ACTION, name], capture_output=True, text=True, env={**base, **env}, cwd=folder, timeout=patience(100)
    )


def test_the_actions_test_step_judges_annotates_and_keeps_the_report(tmp_path: Path):
    (tmp_path / "m.yaml").write_text(
        "apiVersion: apps.cozystack.io/v1alpha1\nkind: VMInstance\nmetadata: {name: web}\nspec: {typo: 1}\n"
    )
    done = _step("test", tmp_path, HIKUBE_MANIFESTS="m.yaml", HIKUBE_TIMEOUT="1m")
    assert done.returncode == 2 and "::error file=m.yaml,line=4" in done.stdout + done.stderr, done
    assert (tmp_path / "output").read_text() == f"report={tmp_path}/hikube-local-report\n"
    hostile = _step("test", tmp_path, HIKUBE_MANIFESTS="m.yaml; touch hacked $(touch hacked) `touch hacked`")
    assert hostile.returncode != 0 and not (tmp_path / "hacked").exists()
    assert _step("nonsense", tmp_path).returncode == 2


def test_the_actions_kvm_step_says_what_there_is(tmp_path: Path):
    if os.path.exists("/dev/kvm") and not os.access("/dev/kvm", os.W_OK):
        pytest.skip("it would change this host's rules")
    done = _step("kvm", tmp_path)
    assert done.returncode == 0 and "/dev/kvm" in done.stdout


def test_the_gitlab_component_has_the_actions_inputs_and_steps(tmp_path: Path):
    """What a user gives comes as variables; the lines of its script are fixed, and a shell reads each."""
    spec, jobs = yaml.safe_load_all((ROOT / ".ci" / "gitlab.yml").read_text())
    inputs, action = spec["spec"]["inputs"], yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
    assert set(action) - {"version"} <= set(inputs) and {"repository", "ref"} <= set(inputs)
    (job,) = jobs.values()
    used = re.findall(r"\$\[\[ inputs\.(\w+) \]\]", str([job["variables"], job["stage"], job["image"]]))
    assert set(used) == set(inputs)
    script = [*job["before_script"], *job["script"]]
    assert "$[[" not in str(script) and "install" in script[-2] and "test" in script[-1]
    for line in script:
        assert subprocess.run(["bash", "-n", "-c", line], capture_output=True).returncode == 0, line
    asked = set(re.findall(r"HIKUBE_\w+", ACTION.read_text()))
    assert asked <= set(job["variables"]) and job["artifacts"]["when"] == "always"
