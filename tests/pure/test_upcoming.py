"""Fields of the platform's next releases are known: done where a laptop can, else told, never an unknown field."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hikube_local.api.objects import INSTANCE
from hikube_local.api.sources import CopyOf, FromImage
from hikube_local.manifests.models import read_spec
from hikube_local.manifests.validate import Known, validate
from hikube_local.render import kubevirt, seed
from hikube_local.source.finding import Severity
from tests.conftest import disk, instance
from tests.pure.test_render import web

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5v0Zy0vkPUPLmEqQ2i1c0wKVS8xM6yBzQYk1vZ3c0d me"
NETWORK = b"""\
network:
  version: 2
  ethernets:
    cozy-en:
      match:
        name: "en*"
      dhcp4: true
      dhcp4-overrides:
        use-domains: true
    cozy-eth:
      match:
        name: "eth*"
      dhcp4: true
      dhcp4-overrides:
        use-domains: true
"""


def said(tmp_path: Path, text: str) -> dict[Severity, list[str]]:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    found = validate([str(path)], None, "default", Known({}, frozenset()), False).findings.items
    return {s: [f"{f.code} {f.path} {f.message}" for f in found if f.severity is s] for s in Severity}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"netplanDhcp": True}, "netplanDhcp"),
        ({"networks": [{"name": "back", "ipAddress": "10.1.2.3"}]}, "networks[0].ipAddress"),
        ({"networks": [{"name": "back"}], "primaryNetwork": "back"}, "primaryNetwork"),
        ({"external": True, "externalPorts": [22], "externalIPs": [{"claim": "mine"}]}, "externalIPs"),
        ({"schedulingClass": "gold"}, "schedulingClass"),
        ({"disks": [{"name": "sys", "dvName": "other"}]}, "disks[0].dvName"),
        ({"disks": [{"name": "sys", "hotpluggable": True}]}, "disks[0].hotpluggable"),
        ({"firmware": {"bootloader": "uefi"}}, "firmware"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_field_on_its_way_is_told_and_no_error(tmp_path: Path, spec: dict, field: str):
    found = said(tmp_path, instance(sshKeys=[KEY], **spec))
    assert not found[Severity.ERROR]
    assert [m for m in found[Severity.DIFFERENCE] if m.startswith(f"HK516 spec.{field} ") and "upcoming" in m]


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ({"primaryNetwork": "absent"}, "HK304", "not listed in networks"),
        ({"externalIPs": [{"claim": "a"}]}, "HK304", "requires external: true"),
        ({"external": True, "externalIPs": [{"claim": "a", "target": "second"}]}, "HK304", "does not publish"),
        ({"external": True, "externalIPs": [{"claim": "a"}, {"claim": "b"}]}, "HK323", "a second time"),
        ({"netplanDhcp": "yes"}, "HK205", "netplanDhcp"),
        ({"networks": [{"name": "a", "address": "1.2.3.4"}]}, "HK204", "address"),
    ],
)
def test_what_the_next_charts_refuse_is_refused(tmp_path: Path, spec: dict, code: str, words: str):
    found = said(tmp_path, instance(sshKeys=[KEY], **spec))[Severity.ERROR]
    assert any(m.startswith(code) and words in m for m in found), found


@pytest.mark.parametrize(
    ("name", "namespace", "content"),
    [
        ("vm-default-images-ubuntu-2404", "cozy-public", FromImage("ubuntu-2404")),
        ("vm-disk-base", "", CopyOf("base")),
    ],
)
def test_a_volume_of_the_charts_own_names_is_what_it_stands_for(tmp_path, name: str, namespace: str, content):
    source = {"pvc": {"name": name, **({"namespace": namespace} if namespace else {})}}
    assert read_spec("VMDisk", {"source": source}).content == content
    found = said(tmp_path, disk(source=source, storage="20Gi"))
    assert not found[Severity.ERROR] and "HK516" in str(found[Severity.DIFFERENCE])


@pytest.mark.parametrize(
    "pvc",
    [
        {"name": "data-0"},
        {"name": "vm-disk-x", "namespace": "cozy-public"},
        {"name": "vm-disk-x", "namespace": "another"},
        {"name": "vm-disk-"},
        {"name": "vm-disk-../x"},
        {"name": "vm-default-images-debian-12"},
    ],
)
def test_any_other_volume_is_refused(tmp_path: Path, pvc: dict):
    (error,) = [m for m in said(tmp_path, disk(source={"pvc": pvc}))[Severity.ERROR]]
    assert error.startswith("HK312")


@pytest.mark.parametrize("field", ["primaryNetwork", "schedulingClass"])
def test_a_field_that_is_empty_says_nothing(tmp_path: Path, field: str):
    found = said(tmp_path, instance(sshKeys=[KEY], **{field: ""}))
    assert not found[Severity.ERROR] and "HK516" not in str(found[Severity.DIFFERENCE])


def test_the_network_config_of_the_seed_is_the_charts_byte_for_byte():
    made = seed.seed(web(netplanDhcp=True, sshKeys=[KEY]), "ID")
    assert made.network == NETWORK and list(made.files) == ["user-data", "meta-data", "network-config"]
    without = seed.seed(web(sshKeys=[KEY]), "ID")
    assert "network-config" not in without.files and without.digest != made.digest
    assert yaml.safe_load(made.network)["network"]["ethernets"]["cozy-en"]["dhcp4-overrides"] == {"use-domains": True}


def test_a_primary_network_is_no_further_one():
    spec = web(networks=[{"name": "front"}, {"name": "back"}], primaryNetwork="front").instance
    assert spec.further_networks == ("back",)


def test_the_charts_objects_of_the_new_fields():
    obj = web(
        external=True,
        externalIPs=[{"claim": "reserved"}],
        networks=[{"name": "front"}, {"name": "back", "ipAddress": "10.1.2.3"}],
        primaryNetwork="front",
        netplanDhcp=True,
        sshKeys=[KEY],
        disks=[{"name": "sys", "dvName": "own"}],
    )
    assert obj.kind == INSTANCE
    made = {o["kind"] + "/" + o["metadata"]["name"]: o for o in kubevirt.objects(obj, {})}
    service = made["Service/vm-instance-web"]
    assert service["metadata"]["annotations"]["local.sdn.cozystack.io/ip-address-claim"] == "reserved"
    template = made["VirtualMachine/vm-instance-web"]["spec"]["template"]
    assert template["metadata"]["annotations"]["back.default.ovn.kubernetes.io/ip_address"] == "10.1.2.3"
    assert template["metadata"]["annotations"]["sdn.cozystack.io/vpc"] == "default/front"
    assert [n["name"] for n in template["spec"]["networks"]] == ["default", "back"]
    assert template["spec"]["volumes"][0]["dataVolume"] == {"name": "own"}
    cloud_init = template["spec"]["volumes"][-1]["cloudInitNoCloud"]
    assert cloud_init["networkDataSecretRef"] == {"name": "vm-instance-web-network-config"}
    secret = made["Secret/vm-instance-web-network-config"]
    assert secret["stringData"] == {"networkdata": NETWORK.decode()}
