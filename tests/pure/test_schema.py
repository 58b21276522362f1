"""The schema for editors, the fields that `explain` tells, and the retired kind that `convert` brings over."""

from __future__ import annotations

import json
from collections.abc import Iterator

import jsonschema
import pytest
import yaml

from hikube_local.api.objects import SPECS
from hikube_local.catalogue import data
from hikube_local.language import language
from hikube_local.manifests import convert
from hikube_local.manifests.schema import explain, schema
from tests.conftest import EXAMPLES, ROOT

EXAMPLE_FILES = sorted(EXAMPLES.rglob("*.yaml"))
OURS = ("VMInstance", "VMDisk")


def validator() -> jsonschema.Draft202012Validator:
    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


@pytest.mark.parametrize("path", EXAMPLE_FILES, ids=lambda p: p.name)
def test_every_example_is_valid_and_carries_the_modeline(path):
    assert path.read_text().startswith("# yaml-language-server: $schema=")
    check = validator()
    for document in yaml.safe_load_all(path.read_text()):
        if document and document["kind"] in OURS:
            check.validate(document)


def test_the_schema_in_docs_is_the_one_that_is_printed():
    written = json.loads((ROOT / "docs" / "hikube.schema.json").read_text())
    assert written == schema(), "hikube-local schema > docs/hikube.schema.json"


def instance(**spec) -> dict:
    return {"apiVersion": "apps.cozystack.io/v1alpha1", "kind": "VMInstance", "metadata": {"name": "a"}, "spec": spec}


@pytest.mark.parametrize(
    "spec",
    [
        {"instanceTyp": "u1.medium"},
        {"instanceType": "u1.tiny"},
        {"external": "yes"},
        {"externalPorts": ["22"]},
        {"runStrategy": "Sometimes"},
        {"disks": [{"nam": "a"}]},
    ],
)
def test_what_is_wrong_is_not_valid(spec):
    assert not validator().is_valid(instance(**spec))


@pytest.mark.parametrize(
    "spec",
    [
        {"sshKeys": None, "disks": None},
        {"disks": ["a", {"name": "b", "bus": "sata"}]},
        {"instanceType": "", "resources": {"cpu": 2, "sockets": "1", "memory": "1Gi"}},
    ],
)
def test_what_hikube_takes_is_valid(spec):
    assert validator().is_valid(instance(**spec))


def test_every_field_is_explained():
    for kind, word in (("VMInstance", "vminstance"), ("VMDisk", "vmdisk")):
        for name in SPECS[kind].names():
            found = explain(f"{word}.spec.{name}")
            assert found and found.description, name
            assert found.hikube, name
        for path in data.fields()[word]["spec"]:
            assert explain(f"{word}.spec.{path}"), path
    assert explain("vminstance.spec.nothing") is None and explain("pod") is None
    assert [c[0] for c in explain("vminstance.spec.disks").children] == ["name", "bus", "hotpluggable", "dvName"]


def below(path: str) -> Iterator[str]:
    """The field, and those in it."""
    found = explain(path)
    assert found is not None, path
    yield path
    for name, _ in found.children:
        yield from below(f"{path}.{name}")


@pytest.mark.parametrize("kind", ["vminstance", "vmdisk"])
def test_every_field_has_its_french(kind: str):
    """What stands in English stands in French: a field that is added without it fails here."""
    for path in below(f"{kind}.spec"):
        english, french = explain(path), explain(path, "fr")
        assert bool(english.hikube) == bool(french.hikube) and bool(english.here) == bool(french.here), path
        assert not english.description or french.description != english.description, path
    assert set(data.fields("fr")[kind]["spec"]) >= set(data.fields()[kind]["spec"])


@pytest.mark.parametrize(
    ("environment", "asked", "found"),
    [
        ({"LANG": "fr_CH.UTF-8"}, "", "fr"),
        ({"LANG": "fr_CH.UTF-8", "LC_ALL": "C"}, "", "en"),
        ({"LANG": "de_CH.UTF-8"}, "", "de"),
        ({"LANG": "rm_CH.UTF-8"}, "", "en"),
        ({"LANG": "fr_FR"}, "en", "en"),
        ({"LANG": "fr_FR", "LANGUAGE": "es:en:fr"}, "", "en"),
        ({"LANG": "C", "LANGUAGE": "fr"}, "", "en"),
        ({"LANG": "frp_IT"}, "", "en"),
        ({}, "fr", "fr"),
        ({}, "", "en"),
    ],
)
def test_the_language_is_the_environments_unless_one_is_asked_for(environment, asked, found, monkeypatch):
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert language(asked) == found


def test_a_retired_machine_becomes_a_disk_and_a_machine():
    old = {
        "kind": "VirtualMachine",
        "metadata": {"name": "old", "namespace": "t", "uid": "x"},
        "spec": {
            "external": True,
            "systemDisk": {"image": "cirros", "size": "3Gi", "storageClass": "local"},
            "disks": [{"name": "more"}],
            "subnets": [{"name": "back"}],
            "gone": 1,
            "cloudInit": None,
        },
    }
    (disk, machine), told = convert.machine(old)
    assert disk["metadata"] == {"name": "old", "namespace": "t"} == machine["metadata"]
    assert "cirros" in disk["spec"]["source"]["http"]["url"] and disk["spec"]["storage"] == "5Gi"
    assert disk["spec"]["storageClass"] == "local"
    assert machine["spec"] == {
        "external": True,
        "subnets": [{"name": "back"}],
        "disks": [{"name": "old"}, {"name": "more"}],
    }
    assert any("systemDisk.size" in t for t in told) and any("spec.gone" in t for t in told)
    check = validator()
    for document in (disk, machine):
        check.validate(document)
    plain, _ = convert.machine({"metadata": {"name": "p"}})
    assert plain[0]["spec"] == {
        "source": {"http": {"url": convert.IMAGES["ubuntu"]}},
        "storage": "5Gi",
        "storageClass": "replicated",
    }
