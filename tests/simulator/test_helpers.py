"""`init`, `report`, `system`, `completion --install`: what helps around machines."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import yaml

from hikube_local.catalogue import data
from hikube_local.engine.support import mask_secrets
from hikube_local.manifests.load import Fetched
from hikube_local.manifests.template import Wanted, manifest
from hikube_local.manifests.validate import Known, validate
from hikube_local.source.finding import Severity
from tests.conftest import PAIR, Program
from tests.growth import patience


def test_init_prints_a_manifest_that_validates(hikube: Program):
    done = hikube("init", "--image", "ubuntu-2404", "--port", "80", "--port", "22", "--package", "nginx", "--yes")
    assert done.code == 0, done.err
    disk, machine = yaml.safe_load_all(done.out)
    assert machine["spec"]["externalPorts"] == [80, 22] and machine["spec"]["instanceType"] == "s1.small"
    assert disk["spec"]["source"]["image"]["name"] == "ubuntu-2404" and "nginx" in machine["spec"]["cloudInit"]
    assert "# SSH" in done.out and done.out.startswith("# yaml-language-server: $schema=")
    assert Path(done.out.splitlines()[0].partition("=")[2]).is_file(), "the schema is there"
    assert hikube("validate", "-", input=done.out).code == 0
    up = hikube("up", "-", "--backend", "simulator", input=done.out)
    assert up.code == 0, up.err


def test_init_for_each_image_and_type():
    for name, image in data.images().items():
        wanted = Wanted(
            "web",
            name,
            "u1.medium",
            "",
            "ubuntu",
            "64Gi",
            image.user,
            (22,),
            ('ssh-ed25519 AAAA it\'s "me"',),
            ("a b",),
        )
        found = validate(
            [Fetched.of("x", manifest(wanted).encode())], None, "default", Known({}, frozenset()), for_plan=True
        )
        wrong = [f.message for f in found.findings.of(Severity.ERROR)]
        # An image without a public download is refused for that alone.
        assert all(image.reason and "image" in w for w in wrong) or all("key" in w.lower() for w in wrong), (
            name,
            wrong,
        )


def test_init_writes_a_file_once_and_says_what_is_wrong(hikube: Program):
    target = hikube.folder / "api.yaml"
    done = hikube("init", target, "--yes")
    assert done.code == 0 and f"hikube-local up {target}" in done.err
    assert [d["metadata"]["name"] for d in yaml.safe_load_all(target.read_text())] == ["api-system", "api"]
    before = target.read_text()
    again = hikube("init", target, "--yes")
    assert again.code == 2 and "exists" in again.err and target.read_text() == before
    for words, told in (
        (("--image", "debain-12"), "did you mean debian-12?"),
        (("--type", "s1.smal"), "did you mean s1.small?"),
        (("--name", "Web_1"), "not a valid name"),
        (("--ssh-key", "nonsense"), "nonsense"),
    ):
        wrong = hikube("init", "--yes", *words)
        assert wrong.code == 2 and told in wrong.err and wrong.out == "", (words, wrong.err)
    secret = hikube.file("id", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n")
    assert "is a private key" in hikube("init", "--yes", "--ssh-key", secret).err


def test_init_asks_on_a_terminal(hikube: Program):
    """What is not given is asked for, with a default; Enter takes it."""
    main, side = pty.openpty()
    words = [sys.executable, "-m", "hikube_local", "init", "asked.yaml", "--type", "s1.small"]
    process = subprocess.Popen(words, env=hikube.env, cwd=hikube.folder, stdin=side, stdout=side, stderr=side)
    os.close(side)
    seen = b""
    deadline = time.monotonic() + patience(30)
    for question, answer in (
        (b"Name of the machine [asked]", b"shop\n"),
        (b"Image", b"\n"),
        (b"Open TCP ports", b"443, 22\n"),
    ):
        while question not in seen:
            assert time.monotonic() < deadline, seen
            seen += os.read(main, 4096)
        os.write(main, answer)
    assert process.wait(patience(30)) == 0
    os.close(main)
    machine = list(yaml.safe_load_all((hikube.folder / "asked.yaml").read_text()))[1]
    assert machine["metadata"]["name"] == "shop" and machine["spec"]["externalPorts"] == [443, 22]


SECRETS = """
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata: {name: sys}
spec: {storage: 1Gi, storageClass: local, source: {http: {url: "https://me:hunter2@example.com/a.img?token=hunter3"}}}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {name: web}
spec:
  instanceType: u1.nano
  instanceProfile: alpine
  disks: [sys]
  cloudInit: |
    #cloud-config
    password: hunter4
"""


def test_report_lists_asks_and_holds_no_secret(hikube: Program):
    assert hikube("up", hikube.file("m.yaml", SECRETS), "--backend", "simulator").code == 0
    target = hikube.folder / "r.tar.gz"
    asked = hikube("report", "--to", target)
    assert asked.code == 2 and "versions.txt" in asked.out and not target.exists(), "listed, and then asked"
    done = hikube("report", "--to", target, "--yes")
    assert done.code == 0 and str(target) in done.err and target.stat().st_mode & 0o777 == 0o600
    with tarfile.open(target) as tar:
        files = {m.name.partition("/")[2]: tar.extractfile(m).read().decode() for m in tar.getmembers()}  # type: ignore[union-attr]
    assert {"versions.txt", "doctor.json", "objects.json", "events.txt", "config.json"} <= set(files)
    assert "QEMU" in files["versions.txt"] and json.loads(files["doctor.json"])
    everything = "\n".join(files.values())
    assert "hunter" not in everything and "left out" in files["objects.json"] and "example.com" in everything
    assert hikube("report", "--to", target, "--yes").code == 2, "nothing is overwritten"
    assert hikube("report", "none", "--yes").code != 0


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("DB_PASSWORD=hunter2 x", "hunter2"),
        ("password: hunter2", "hunter2"),
        ('{"password": "hunter2"}', "hunter2"),
        ("api-token: hunter2", "hunter2"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----", "hunter2"),
        ("-----BEGIN RSA PRIVATE KEY-----\nhunter2", "hunter2"),
        ("GET https://me:hunter2@h/", "hunter2"),
    ],
)
def test_secrets_are_masked(text: str, hidden: str):
    assert hidden not in mask_secrets(text)


def test_system_df_and_prune(hikube: Program):
    """What is left of tests and downloads goes; disks, and images that disks stand on, stay."""
    assert hikube("up", hikube.file("m.yaml", PAIR), "--backend", "simulator").code == 0
    state, cache = hikube.home / "state", hikube.home / "cache"
    for path in (state / "warm" / "abc123", state / "lab" / "t0", cache / "images" / "partial" / "x"):
        path.mkdir(parents=True)
        (path / "f").write_bytes(bytes(200_000))
    kept = state / "lab" / "t1"
    kept.mkdir()
    (kept / "kept").write_text("")
    rows = {r["kind"]: r for r in json.loads(hikube("system", "df", "-o", "json").out)}
    assert rows["Warm states"]["reclaimable"] >= 200_000 and rows["Test roots"]["total"] == 2
    assert rows["Images"]["reclaimable"] >= 200_000 and rows["Disks"]["reclaimable"] == 0
    assert "RECLAIMABLE" in hikube("system", "df").out
    dry = hikube("system", "prune", "--dry-run")
    assert "would be freed" in dry.out and (state / "warm" / "abc123").exists()
    assert hikube("system", "prune").code == 2, "it asks"
    done = hikube("system", "prune", "--yes")
    assert done.code == 0 and "freed" in done.out, done.err
    assert not any(
        p.exists() for p in (state / "warm" / "abc123", state / "lab" / "t0", cache / "images" / "partial" / "x")
    )
    assert kept.exists() and "web" in hikube("get", "vm").out
    assert "nothing to remove" in hikube("system", "prune").err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_where_the_shell_looks(hikube: Program, shell: str):
    home = {"HOME": str(hikube.folder), "SHELL": f"/usr/bin/{shell}"}
    done = hikube("completion", "--install", env=home)
    assert done.code == 0, done.err
    place = Path(done.err.split(" written")[0])
    assert place.is_relative_to(hikube.folder) and place.read_text().strip() == hikube("completion", shell).out.strip()
    assert hikube("completion", "--install", env={**home, "SHELL": "/bin/tcsh"}).code == 2
