"""What stands in examples/ to be copied: it is read, and every command and option in it is known."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from hikube_local.cli.main import cli
from hikube_local.lab import checklist
from tests.conftest import EXAMPLES, ROOT


def commands(value: object) -> list[list[str]]:
    """The words behind `hikube-local` in every text of a CI's file."""
    if isinstance(value, dict):
        return [c for v in value.values() for c in commands(v)]
    if isinstance(value, list):
        return [c for v in value for c in commands(v)]
    lines = str(value).splitlines()
    return [shlex.split(m[1]) for line in lines if (m := re.search(r"/hikube-local (\w.*)", line))]


@pytest.mark.parametrize("path", sorted((EXAMPLES / "ci").iterdir()), ids=lambda p: p.name)
def test_ci_knows_the_commands(path: Path):
    found = commands(yaml.safe_load(path.read_text()))
    assert [words[0] for words in found] == ["cloudinit", "test"]
    for words in found:
        command: click.Command = cli
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words.pop(0)) or pytest.fail(f"{path}: {words}")
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        assert {w for w in words if w.startswith("--")} <= known
    assert "/dev/kvm" in path.read_text() and "images" in path.read_text()


def test_the_timer_knows_its_command():
    unit = (EXAMPLES / "snapshots" / "hikube-snapshot@.service").read_text()
    assert re.search(r"^ExecStart=\S+/hikube-local snapshot create %i --keep 7$", unit, re.M)


def test_the_labs_checks_are_checks():
    found, wrong = checklist.parse((EXAMPLES / "lab" / "checks.yml").read_text(), "checks.yml")
    assert not wrong and len(found) == 6 and found[-1].after_reboot
    (disk, machine) = yaml.safe_load_all((EXAMPLES / "lab" / "web.yaml").read_text())
    found, wrong = checklist.parse(machine["metadata"]["annotations"][checklist.ANNOTATION], "web.yaml")
    assert found and not wrong
    assert disk["kind"] == "VMDisk"


def test_the_image_for_ci_has_what_the_makefile_installs():
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    wanted = re.search(r"(?m)^PACKAGES := (.*)$", text)[1].split()
    assert set(wanted) <= set((ROOT / ".ci" / "Dockerfile").read_text().split())
