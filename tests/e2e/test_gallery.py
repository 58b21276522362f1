"""A dozen user-data in a real guest, from one warm state: what `test` reads of each in cloud-init's own log."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import EXAMPLES, ROOT
from tests.e2e.conftest import DEBIAN, Host, Real, stock_recipe
from tests.growth import patience

pytestmark = [pytest.mark.e2e, pytest.mark.full]

MANIFEST = DEBIAN + "    ssh_genkeytypes: [ed25519]\n"


def of_page(name: str) -> str:
    documents = yaml.safe_load_all((EXAMPLES / "hikube-docs" / name).read_text())
    return next(d["spec"]["cloudInit"] for d in documents if d and d["kind"] == "VMInstance")


PRODUCTION, FRAGMENT = of_page("06-production.yaml"), of_page("12-fragment-cloud-init.yaml")
# name: (user-data, {words of a problem that is found: its line, 0 where none can be known}); nothing at all for the good one.
GALLERY: dict[str, tuple[str, dict[str, int]]] = {
    "good": (
        "#cloud-config\nwrite_files:\n  - {path: /srv/good, content: hello}\nruncmd:\n  - set -e\n  - grep hello /srv/good\n",
        {},
    ),
    "a command that is not there": (
        "#cloud-config\nruncmd:\n  - echo one\n  - nosuchcommand --x\n  - echo two\n",
        {"runcmd: nosuchcommand: not found": 4},
    ),
    "a colon in a command": (
        "#cloud-config\nruncmd:\n  - echo: hi\n",
        {"Failed to shellify": 0, "runcmd: its module runcmd failed": 2},
    ),
    "text for a list": (
        "#cloud-config\nruncmd: echo hi\n",
        {"Failed to shellify": 0, "runcmd: its module runcmd failed": 2},
    ),
    "an unknown key": ("#cloud-config\npackage: [vim]\n", {"package: no module of cloud-init knows this key": 2}),
    "no YAML": (
        "#cloud-config\nusers:\n  - name: a\n bad: [\n",
        {"Failed loading yaml blob": 0, "read no configuration from this user-data": 1},
    ),
    "no header": ("hostname: my-vm\n", {"Unhandled non-multipart": 0}),
    "a file without a path": ("#cloud-config\nwrite_files:\n  - content: x\n", {"Invalid cloud-config": 0}),
    "an owner that is not there": (
        "#cloud-config\nwrite_files:\n  - {path: /srv/o, content: x, owner: 'app:app'}\n",
        {"Unknown user or group": 0, "write_files: its module write_files failed": 2},
    ),
    "bootcmd that fails": (
        "#cloud-config\nbootcmd:\n  - 'false'\n",
        {"Failed to run bootcmd": 0, "bootcmd: its module bootcmd failed": 2},
    ),
    # Without a network: what it lacks is told apart from what is wrong with it, which is nothing but its order of things.
    "Hikube's example of production": (PRODUCTION, {"the network: ": 0, "packages: its module": 7}),
    "Hikube's example of cloud-init": (FRAGMENT, {"the network: ": 0, "packages: its module": 8}),
    # cloud-init warns of it, and nothing is lost: it asks for nothing.
    "the header alone, as on Hikube's pages": ("#cloud-config\n", {"empty cloud config": 0}),
    "a password, as on Hikube's pages": (
        "#cloud-config\npassword: changeme\nchpasswd: {expire: false}\nssh_pwauth: true\n",
        {},
    ),
    "the image's own user, as on Hikube's pages": (
        "#cloud-config\nusers:\n  - name: debian\n    sudo: ALL=(ALL) NOPASSWD:ALL\n    shell: /bin/bash\n",
        {},
    ),
    "a script that fails": ("#!/bin/sh\necho working\nexit 3\n", {"Failed to run module scripts-user": 0}),
    "a last command that fails": (
        "#cloud-config\nruncmd:\n  - echo one\n  - 'exit 7'\n",
        {"Failed to run module scripts-user": 0},
    ),
}


@pytest.fixture(scope="module")
def seen(host: Host, debian: Path, tmp_path_factory) -> dict[str, list[dict]]:
    program = Real(tmp_path_factory.mktemp("gallery") / "home", host)
    stock_recipe(program.home, debian)
    try:
        done = subprocess.run(
            [*host.enter, sys.executable, "-m", "tests.guests.gallery", program.file("m.yaml", MANIFEST)],
            input=json.dumps({name: text for name, (text, _) in GALLERY.items()}),
            env=program.env | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=patience(3600),
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)
    finally:
        program.close()


@pytest.mark.parametrize("name", GALLERY)
def test_what_the_guest_made_of_it(seen, name: str):
    wanted = GALLERY[name][1]
    found = {p["message"]: p for p in seen[name]}
    for words, line in wanted.items():
        near = [p for message, p in found.items() if words in message]
        assert near, (words, found)
        assert line in {p["line"] for p in near}, near
    if not wanted:
        assert not found
