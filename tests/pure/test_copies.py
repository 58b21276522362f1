"""Copies for a test in a tenant: names of their own, what they carry, what no copy would be true to, what they cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hikube_local.api.objects import Named
from hikube_local.lab import copies
from hikube_local.lab.copies import Run
from hikube_local.manifests.load import Fetched
from hikube_local.manifests.validate import Known, validate

RUN = Run("a1b2c3", "me-laptop", 2_000_000_000.5)
KEY = "ssh-ed25519 AAAA hikube-local"
MANIFEST = """\
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata: {name: sys}
spec: {source: {image: {name: debian-12}}, storage: 20Gi, storageClass: replicated}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata: {name: copy}
spec: {source: {disk: {name: SOURCE}}, storage: 20Gi, storageClass: replicated}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {name: web, labels: {team: a}}
spec: {instanceType: TYPE, instanceProfile: debian, disks: [sys, {name: copy, bus: scsi}], external: true,
  externalPorts: [80], runStrategy: Halted, sshKeys: [KEYS], cloudInit: "USERDATA"}
"""


def read(**changed: str):
    text = MANIFEST
    given = {"SOURCE": "sys", "TYPE": "u1.medium", "KEYS": "mine", "USERDATA": "#cloud-config\\n{}"} | changed
    for name, value in given.items():
        text = text.replace(name, value)
    return validate([Fetched.of("m.yaml", text.encode())], None, "default", Known.nothing()).objects


def made(**changed: str):
    objects = [i.object for i in read(**changed)]
    return {key.name: obj for key, obj in copies.copies(objects, "tenant-a", RUN, KEY).items()}


def test_a_copy_has_a_name_of_its_own_and_says_whose_it_is_and_until_when():
    found = made()
    assert {o.name for o in found.values()} == {"t-a1b2c3-sys", "t-a1b2c3-copy", "t-a1b2c3-web"}
    for obj in found.values():
        assert obj.namespace == "tenant-a"
        assert obj.labels.items() >= {copies.RUN: "a1b2c3", copies.OWNER: "me-laptop"}.items()
        assert copies.until(obj) == 2_000_000_000
    assert found["web"].labels["team"] == "a"
    assert copies.told(found["web"]) == "vminstance/t-a1b2c3-web, of me-laptop, until 2033-05-18T03:33:20Z"


def test_a_copy_is_joined_to_the_other_copies_runs_and_has_no_public_address():
    found = made()
    spec = found["web"].instance
    assert [(d.name, d.bus) for d in spec.disks] == [("t-a1b2c3-sys", None), ("t-a1b2c3-copy", "scsi")]
    assert found["copy"].disk.source.disk.name == "t-a1b2c3-sys"
    assert made(SOURCE="golden")["copy"].disk.source.disk.name == "golden"  # what is there already is copied from
    assert not spec.external and str(spec.strategy) == "Always" and spec.sshKeys == ("mine", KEY)
    assert spec.cloudInit == "#cloud-config\n{}"


def test_a_name_that_would_be_too_long_is_cut_and_stays_its_own():
    long = "a" * 40
    objects = [i.object for i in read()]
    many = [objects[2]]
    many += [replace(objects[2], name=f"{long}{n}"[-41:]) for n in range(3)]
    names = [o.name for o in copies.copies([*objects[:2], *many], "t", RUN, KEY).values()]
    assert len(set(names)) == len(names) and max(map(len, names)) <= 41


@pytest.mark.parametrize(
    ("changed", "said", "line"),
    [
        ({"USERDATA": "", "KEYS": ""}, "no cloud-init seed", 14),
        ({"USERDATA": "#cloud-config\\nusers: [{name: me}]"}, "makes no default user", 15),
        ({"USERDATA": "#cloud-config\\npower_state: {mode: poweroff}"}, "ends with the machine off", 15),
    ],
)
def test_what_no_copy_is_true_to_is_refused_at_its_line(changed: dict, said: str, line: int):
    (found,) = copies.refused(read(**changed))
    assert found.code == "HK410" and said in found.message and found.at.line == line


@pytest.mark.parametrize(
    "user_data",
    [
        "#cloud-config\\nusers: [default, {name: me}]",
        "#cloud-config\\nuser: {name: me}",
        "#!/bin/sh",
        "#cloud-config\\nuser: ops\\nusers: [{name: deploy}]",
        "#cloud-config\\nhostname: vm-instance-web",
        "#cloud-config\\npower_state: {mode: reboot}",
    ],
)
def test_what_a_copy_is_true_to_is_made(user_data: str):
    assert list(copies.refused(read(USERDATA=user_data))) == []


@pytest.mark.parametrize(
    ("named", "refused"), [("vm-instance-db", True), ("vm-instance-db-2", False), ("xvm-instance-db", False)]
)
def test_user_data_that_names_another_machine_of_the_manifest(named: str, refused: bool):
    items = read(USERDATA=f"#cloud-config\\nruncmd: [ping {named}.tenant.svc]")
    text = (
        MANIFEST.split("---\n")[2]
        .replace("web", "db")
        .replace("STRATEGY", "Always")
        .replace("USERDATA", "#cloud-config")
    )
    for name, value in {"TYPE": "u1.medium", "KEYS": "mine"}.items():
        text = text.replace(name, value)
    items += validate([Fetched.of("n.yaml", text.encode())], None, "default", Known.nothing()).objects
    assert [f.code for f in copies.refused(items)] == ["HK410"] * refused


def test_an_upload_is_refused():
    items = read()
    text = MANIFEST.split("---\n")[0].replace("{image: {name: debian-12}}", "{upload: {}}")
    items += validate([Fetched.of("n.yaml", text.encode())], None, "other", Known.nothing()).objects
    (found,) = copies.refused(items)
    assert "uploaded" in found.message and found.at.file == "n.yaml"


@pytest.mark.parametrize(
    ("kind", "seconds", "much"),
    [("u1.medium", 900, False), ("u1.8xlarge", 900, True), ("u1.medium", 7200, True), ("own.128", 900, True)],
)
def test_what_it_takes_is_told_and_much_is_asked_about(kind: str, seconds: float, much: bool):
    objects = [i.object for i in read()]
    objects = [replace(o, spec=o.instance.but(instanceType=kind)) if o.name == "web" else o for o in objects]
    words, asks = copies.cost(objects, 1, seconds)
    assert asks is much and "1 machine, " in words and "40Gi of disks" in words
    assert f"at most {seconds // 60} minutes" in words


def test_gpus_and_several_images_are_told():
    objects = [i.object for i in read()]
    objects = [replace(o, spec=o.instance.but(gpus=(Named(name="a"),))) if o.name == "web" else o for o in objects]
    words, asks = copies.cost(objects, 3, 2.0)
    assert asks and "1 GPU, 3 times, at most 1 minutes" in words
