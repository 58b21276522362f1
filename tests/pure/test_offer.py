"""What a tenant offers (core.cozystack.io's options, its quotas), and what of a manifest it does not have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hikube_local.api.objects import DISK, Key
from hikube_local.manifests.load import Fetched
from hikube_local.manifests.offer import Offer, left_of, lists_of
from hikube_local.manifests.validate import Known, validate

MANIFEST = """\
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata: {name: sys}
spec: {source: {image: {name: IMAGE}}, storage: 20Gi, storageClass: CLASS}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {name: web}
spec: {instanceType: TYPE, instanceProfile: PROFILE, disks: [sys], external: true, externalPorts: [80], sshKeys: [k],
  gpus: [{name: nvidia.com/L40S}], networks: [{name: back}], runStrategy: STRATEGY}
"""
GIVEN = {
    "IMAGE": "debian-12",
    "CLASS": "replicated",
    "TYPE": "u1.medium",
    "PROFILE": "debian",
    "STRATEGY": "Always",
}
LISTS = {
    "instancetype": ("u1.medium", "own.large"),
    "instanceprofile": ("debian", "own.profile"),
    "image": ("debian-12", "golden"),
    "storageclass": ("replicated", "fast"),
    "gpu": ("nvidia.com/L40S",),
    "network": ("back",),
}


def judged(offer: Offer | None, there: dict | None = None, **changed: str):
    text = MANIFEST
    for name, value in {**GIVEN, **changed}.items():
        text = text.replace(name, value)
    known = Known(there or {}, frozenset(), offer)
    found = validate([Fetched.of("m.yaml", text.encode())], None, "default", known).findings.items
    return [f for f in found if f.severity != "difference"]


def codes(found) -> list[str]:
    return sorted(f.code for f in found if f.code != "HK313")  # the key is none


@pytest.mark.parametrize(
    ("field", "value", "list", "line"),
    [
        ("TYPE", "u1.large", "instancetype", 9),
        ("PROFILE", "ubuntu", "instanceprofile", 9),
        ("IMAGE", "ubuntu-2404", "image", 4),
        ("CLASS", "local", "storageclass", 4),
    ],
)
def test_what_the_tenant_has_not_is_told_at_its_line(field: str, value: str, list: str, line: int):
    (found,) = (f for f in judged(Offer("t", LISTS), **{field: value}) if f.code != "HK313")
    assert found.code == "HK408" and found.severity == "error" and found.at.line == line
    assert found.message == f"the tenant has no {list} {value!r}"
    # Where that list was not told, our own table has the word.
    fewer = {name: row for name, row in LISTS.items() if name != list}
    assert codes(judged(Offer("t", fewer), **{field: value})) == []


@pytest.mark.parametrize(
    ("field", "value", "ours"),
    [
        ("TYPE", "own.large", "HK302"),
        ("PROFILE", "own.profile", "HK303"),
        ("IMAGE", "golden", "HK312"),
        ("CLASS", "fast", "HK304"),
    ],
)
def test_what_the_tenant_has_is_no_unknown_word(field: str, value: str, ours: str):
    assert codes(judged(Offer("t", LISTS), **{field: value})) == []
    assert codes(judged(None, **{field: value})) == [ours]


def test_networks_may_come_with_the_same_files_and_gpus_do_not():
    found = [f for f in judged(Offer("t", {**LISTS, "network": (), "gpu": ("nvidia.com/A10",)})) if f.code != "HK313"]
    assert [(f.code, str(f.severity), f.path) for f in found] == [
        ("HK408", "error", "spec.gpus[0]"),
        ("HK408", "warning", "spec.networks[0]"),
    ]


def test_quotas_are_what_is_left_of_all_of_them():
    one = {"status": {"hard": {"limits.cpu": "4", "requests.storage": "30Gi"}, "used": {"limits.cpu": "3500m"}}}
    two = {"status": {"hard": {"limits.cpu": "10", "pods": "5"}, "used": {"pods": "5", "limits.cpu": "1"}}}
    left = left_of([one, two, {"status": {"hard": {"odd": "many"}}}, {}])
    assert left == {"limits.cpu": 0.5, "requests.storage": 30 << 30, "pods": 0}


@pytest.mark.parametrize(
    ("hard", "said"),
    [
        ({"requests.storage": "19Gi"}, "leaves 19Gi of requests.storage: up to here 20Gi more"),
        ({"persistentvolumeclaims": "0"}, "leaves 0 of persistentvolumeclaims: up to here 1 more"),
        ({"services.loadbalancers": "0"}, "leaves 0 of services.loadbalancers"),
        ({"pods": "0"}, "leaves 0 of pods"),
        ({"limits.cpu": "500m"}, "leaves 0.5 of limits.cpu: up to here 1 more"),
        ({"requests.memory": "1Gi"}, "leaves 1Gi of requests.memory: up to here 4Gi more"),
    ],
)
def test_what_goes_beyond_a_quota_is_told(hard: dict, said: str):
    found = [f for f in judged(Offer("t", LISTS, left_of([{"status": {"hard": hard}}]))) if f.code == "HK409"]
    assert len(found) == 1 and said in found[0].message, found
    enough = {name: "999Gi" for name in hard}
    assert codes(judged(Offer("t", LISTS, left_of([{"status": {"hard": enough}}])))) == []


def test_a_machine_that_does_not_run_takes_no_processor_and_what_is_there_counts_once():
    left = left_of([{"status": {"hard": {"limits.cpu": "0", "pods": "0", "requests.storage": "5Gi"}}}])
    assert codes(judged(Offer("t", LISTS, left), STRATEGY="Halted")) == ["HK409"]  # its disk
    found = validate([Fetched.of("m.yaml", _disk("16Gi"))], None, "default", Known.nothing()).objects
    there = {Key(DISK, "default", "sys"): replace(found[0].object, uid="u")}
    # It grows by 4 Gi, and 5 are left.
    assert codes(judged(Offer("t", LISTS, left), there, STRATEGY="Halted")) == []


def _disk(storage: str) -> bytes:
    text = MANIFEST.split("---\n")[0].replace("20Gi", storage)
    return text.replace("IMAGE", "debian-12").replace("CLASS", "replicated").encode()


def test_a_tenant_over_its_quota_refuses_nothing_that_asks_for_nothing_more():
    over = left_of([{"status": {"hard": {"limits.cpu": "1", "pods": "1"}, "used": {"limits.cpu": "4", "pods": "3"}}}])
    there = {i.object.key: replace(i.object, uid="u") for i in _loaded()}
    assert codes(judged(Offer("t", LISTS, over), there)) == []
    assert codes(judged(Offer("t", LISTS, over), {})) == ["HK409", "HK409"]
    # What one machine gives back another may take.
    bigger = {
        k: replace(o, spec=o.instance.but(instanceType="u1.4xlarge")) if o.kind != DISK else o for k, o in there.items()
    }
    assert codes(judged(Offer("t", LISTS, over), bigger)) == []


def test_what_is_there_already_is_not_asked_for_again():
    fewer = {**LISTS, "image": (), "instancetype": ("own.large",)}
    there = {i.object.key: replace(i.object, uid="u") for i in _loaded()}
    assert codes(judged(Offer("t", fewer), there)) == [] and codes(judged(Offer("t", fewer))) == ["HK408", "HK408"]


def test_what_is_only_looked_for_is_not_judged():
    assert codes(judged(Offer("t", LISTS, judges=False), TYPE="own.large")) == []
    assert codes(judged(Offer("t", LISTS, judges=False), TYPE="u1.large")) == []


def _loaded():
    text = MANIFEST
    for name, value in GIVEN.items():
        text = text.replace(name, value)
    return validate([Fetched.of("m.yaml", text.encode())], None, "default", Known.nothing()).objects


@pytest.mark.parametrize(
    "odd",
    [{}, {"status": {"hard": [1]}}, {"spec": [1], "status": 5}, 7, {"status": {"hard": {"pods": "1"}, "used": 3}}],
)
def test_an_answer_of_an_odd_shape_is_no_answer(odd):
    assert set(left_of([odd])) <= {"pods"}
    assert lists_of([odd, {"metadata": "x"}, {"metadata": {"name": "image"}, "spec": {"items": 5}}]) == {"image": ()}


@pytest.mark.parametrize("scope", [{"scopes": ["Terminating"]}, {"scopeSelector": {"matchExpressions": []} | {"x": 1}}])
def test_a_quota_for_some_pods_says_nothing_of_machines(scope: dict):
    assert left_of([{"spec": scope, "status": {"hard": {"pods": "0"}}}]) == {}


def test_lists_that_are_none_are_no_lists():
    rows = [{"value": "a"}, {"label": "b"}, "c"]
    assert lists_of([{"metadata": {"name": "image"}, "spec": {"items": rows}}, {}]) == {"image": ("a",)}
