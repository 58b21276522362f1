"""A client of another API: what it sends to bring an object about, and what it makes of a tenant's answers."""

from __future__ import annotations

import random

from hikube_local.api.objects import Object
from hikube_local.backends.remote import api, status
from hikube_local.backends.remote.api import Beside
from hikube_local.kube.objects import merge_patch
from hikube_local.kubeclient.merge import three_way
from hikube_local.manifests.models import read_spec


def test_a_three_way_merge_sets_what_is_wanted_takes_away_what_was_and_leaves_what_is_anybody_elses():
    last, wanted = {"a": 1, "b": {"x": 1, "y": 2}, "gone": 1}, {"a": 2, "b": {"x": 1}, "list": [1]}
    live = {"a": 1, "b": {"x": 1, "y": 2, "theirs": 3}, "gone": 1, "default": "d", "list": [1, 2]}
    patch = three_way(last, wanted, live)
    assert patch == {"a": 2, "b": {"y": None}, "gone": None, "list": [1]}
    assert merge_patch(live, patch) == {"a": 2, "b": {"x": 1, "theirs": 3}, "default": "d", "list": [1]}


def test_after_the_merge_there_is_nothing_left_to_do():
    """Whatever was sent last, is wanted, and is there."""
    chosen = random.Random(27)

    def value(depth: int) -> object:
        if depth and chosen.random() < 0.4:
            return {k: value(depth - 1) for k in "abc" if chosen.random() < 0.6}
        return chosen.choice([1, "x", [1], [], True])

    def mapping() -> dict:
        return {k: value(2) for k in "abcd" if chosen.random() < 0.7}

    for _ in range(3000):
        last, wanted, live = mapping(), mapping(), mapping()
        now = merge_patch(live, three_way(last, wanted, live))
        assert three_way(wanted, wanted, now) == {}, (last, wanted, live)
        for name in live.keys() - wanted.keys() - last.keys():
            assert now[name] == live[name]


def raw(kind: str, spec: dict, **more: object) -> dict:
    about = {
        "name": "web",
        "namespace": "tenant-a",
        "resourceVersion": "7",
        "creationTimestamp": "2026-11-30T10:00:00Z",
    }
    return {"kind": kind, "metadata": about | {"annotations": {}}, "spec": spec} | more


def test_an_object_of_a_server_is_read_without_its_defaults_and_without_fields_of_a_newer_chart():
    spec = {
        "instanceType": "s1.small",
        "externalPorts": [22],
        "runStrategy": "Always",
        "ofTomorrow": {"x": 1},
        "disks": [{"name": "d"}],
    }
    obj = api.parsed(raw("VMInstance", spec))
    assert obj.spec == read_spec("VMInstance", {"instanceType": "s1.small", "disks": ["d"]})
    assert obj.resource_version == 7 and obj.created == 1796032800.0
    # What was sent from here is what was written, default or not.
    sent = api.body(
        Object(
            kind="VMInstance", namespace="tenant-a", name="web", spec=read_spec("VMInstance", {"externalPorts": [22]})
        )
    )
    mine = raw("VMInstance", spec)
    mine["metadata"]["annotations"] = sent["metadata"]["annotations"]
    assert api.parsed(mine).instance.externalPorts == (22,)
    assert api.applied(mine) == {"externalPorts": [22]} and api.applied(raw("VMInstance", spec)) is None
    assert api.parsed(mine).annotations == {}


def _status(theirs: dict, **beside: dict) -> dict:
    obj = api.parsed(raw("VMInstance", {}))
    return status.of(
        raw("VMInstance", {}, status=theirs), obj, Beside(**{n: {"vm-instance-web": v} for n, v in beside.items()})
    )


def test_a_tenants_machine_is_ready_when_it_runs_and_its_service_says_where():
    vm = {
        "status": {
            "printableStatus": "Running",
            "ready": True,
            "conditions": [{"type": "AgentConnected", "status": "True"}],
        }
    }
    service = {"spec": {"ports": [{"port": 443}]}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}}
    pod = {"status": {"podIP": "10.1.2.3", "startTime": "2026-11-30T10:00:05Z"}}
    now = _status({"conditions": [{"type": "Ready", "status": "True"}]}, machines=vm, services=service, pods=pod)
    assert now["ready"] and now["printableStatus"] == "Running" and now["agentConnected"]
    assert now["access"] == [{"port": 443, "protocol": "TCP", "address": "203.0.113.9", "hostPort": 443}]
    assert [a["address"] for a in now["addresses"]][:2] == ["203.0.113.9", "10.1.2.3"]
    assert now["conditions"][0] == {
        "type": "Ready",
        "status": "True",
        "reason": "Ready",
        "message": "",
        "lastTransitionTime": "",
    }
    # A pod that waits: the chart is installed all the same.
    waits = _status(
        {"conditions": [{"type": "Ready", "status": "True"}]},
        machines={"status": {"printableStatus": "ErrorUnschedulable"}},
    )
    assert not waits["ready"] and waits["printableStatus"] == "ErrorUnschedulable" and waits["access"] == []


def test_what_a_chart_refused_minutes_later_is_the_cause():
    said = "execution error at (vm-instance/templates/vm.yaml:5:4): Specified instanceType not exists in cluster: huge"
    failed = {"type": "Ready", "status": "False", "reason": "InstallFailed", "message": said}
    now = _status({"conditions": [failed]})
    assert (
        now["failed"] and now["cause"] == {"code": "HK822", "message": said} and now["conditions"][0]["message"] == said
    )
    assert now["conditions"][0]["status"] == "False"


def test_without_the_right_to_read_virtual_machines_the_charts_own_word_counts():
    works = {"type": "WorkloadsReady", "status": "True", "reason": "Operational"}
    assert _status({"conditions": [works]})["ready"]
    assert not _status({"conditions": [works | {"status": "False", "message": "0 of 1"}]})["ready"]


def test_a_tenants_disk_is_as_far_as_its_volume():
    obj = api.parsed(raw("VMDisk", {"storage": "5Gi"}))
    volume = {"status": {"phase": "ImportInProgress", "progress": "41.2%"}}
    now = status.of(raw("VMDisk", {}), obj, Beside(volumes={"vm-disk-web": volume}))
    assert (now["phase"], now["progress"]) == ("ImportInProgress", "41.2%")
    unknown = status.of(raw("VMDisk", {}), obj, Beside())
    assert unknown["phase"] == "Unknown" and unknown["conditions"][0]["status"] == "Unknown"


def test_events_are_about_our_objects():
    about = {"kind": "VirtualMachineInstance", "name": "vm-instance-web"}
    assert api.reference({"involvedObject": about}) == "vminstance/web"
    assert api.reference({"involvedObject": {"kind": "VMDisk", "name": "d"}}) == "vmdisk/d"
