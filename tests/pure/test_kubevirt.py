"""The objects that Hikube's charts make of the same manifests: the fields that they set, and no others."""

from __future__ import annotations

from hikube_local.api.objects import Object
from hikube_local.manifests.models import read_spec
from hikube_local.render import kubevirt

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKMFVYBmgPwEWcTOxNzEPv5F5ySGVjKGsS9pFkJpmC me"


def made(kind: str = "VMInstance", optical: dict[str, bool] | None = None, **spec) -> dict[str, dict]:
    obj = Object(kind=kind, namespace="team", name="web", spec=read_spec(kind, spec))
    return {kubevirt.file_name(r): r for r in kubevirt.objects(obj, optical or {})}


def machine(**spec) -> dict:
    return made(**spec)["VirtualMachine-vm-instance-web.yaml"]["spec"]


def service(**spec) -> dict:
    return made(**spec)["Service-vm-instance-web.yaml"]


def test_the_machine_carries_what_the_chart_writes():
    body = machine(instanceType="u1.medium", instanceProfile="ubuntu", disks=["sys", {"name": "iso", "bus": "sata"}])
    assert body["instancetype"]["name"] == "u1.medium" and body["preference"]["name"] == "ubuntu"
    inner = body["template"]["spec"]
    assert inner["terminationGracePeriodSeconds"] == 30 and inner["domain"]["machine"] == {"type": ""}
    assert inner["domain"]["devices"]["disks"] == [
        {"name": "disk-sys", "disk": {}, "bootOrder": 1},
        {"name": "disk-iso", "disk": {"bus": "sata"}, "bootOrder": 2},
    ]
    assert inner["volumes"] == [
        {"name": "disk-sys", "dataVolume": {"name": "vm-disk-sys"}},
        {"name": "disk-iso", "dataVolume": {"name": "vm-disk-iso"}},
    ]
    assert inner["networks"] == [{"name": "default", "pod": {}}]
    assert (
        "accessCredentials" not in inner and "cpu" not in inner["domain"] and "gpus" not in inner["domain"]["devices"]
    )
    assert inner["domain"]["firmware"]["uuid"][14] == "4"


def test_an_optical_disk_is_a_cdrom():
    disks = made(optical={"iso": True}, disks=["iso"])["VirtualMachine-vm-instance-web.yaml"]
    assert disks["spec"]["template"]["spec"]["domain"]["devices"]["disks"][0] == {
        "name": "disk-iso",
        "cdrom": {},
        "bootOrder": 1,
    }


def test_run_strategies():
    assert machine()["runStrategy"] == "Always"
    assert machine(running=False)["runStrategy"] == "Halted"
    assert machine(running=False, runStrategy="Once")["runStrategy"] == "Once"


def test_complete_resources_replace_the_instance_type():
    body = machine(instanceType="", resources={"cpu": "2", "sockets": "1", "memory": "1Gi"})
    assert "instancetype" not in body
    assert body["template"]["spec"]["domain"]["cpu"] == {"cores": 2, "sockets": 1}
    assert body["template"]["spec"]["domain"]["resources"] == {"requests": {"memory": "1Gi"}}
    assert "instancetype" not in machine(
        instanceType="u1.medium", resources={"cpu": "2", "sockets": "1", "memory": "1Gi"}
    )
    assert machine(cpuModel="Haswell")["template"]["spec"]["domain"]["cpu"] == {"model": "Haswell"}


def test_keys_and_user_data_are_secrets():
    files = made(sshKeys=[KEY], cloudInit="#cloud-config\nhostname: a")
    assert files["Secret-vm-instance-web-ssh-keys.yaml"]["stringData"] == {"key0": KEY}
    assert files["Secret-vm-instance-web-cloud-init.yaml"]["stringData"] == {"userdata": "#cloud-config\nhostname: a\n"}
    inner = files["VirtualMachine-vm-instance-web.yaml"]["spec"]["template"]["spec"]
    assert inner["accessCredentials"][0]["sshPublicKey"]["propagationMethod"] == {"noCloud": {}}
    assert inner["domain"]["devices"]["disks"] == [{"name": "cloudinitdisk", "disk": {}}]
    assert set(made(sshKeys=[KEY])) >= {"Secret-vm-instance-web-cloud-init.yaml"}
    assert not [n for n in made() if n.startswith("Secret")]


def test_services():
    closed = service(external=False)
    assert closed["spec"]["clusterIP"] == "None" and closed["spec"]["ports"] == [{"port": 65535}]
    assert "annotations" not in closed["metadata"]
    listed = service(external=True, externalPorts=[22, 443], externalAllowICMP=False)
    assert listed["spec"]["type"] == "LoadBalancer" and listed["spec"]["externalTrafficPolicy"] == "Local"
    assert listed["spec"]["ports"][1] == {"name": "port-443", "port": 443, "targetPort": 443}
    assert listed["metadata"]["annotations"] == {
        "networking.cozystack.io/wholeIP": "false",
        "networking.cozystack.io/allowICMP": "false",
    }
    assert service(external=True)["spec"]["ports"][0]["port"] == 22
    whole = service(external=True, externalMethod="WholeIP")
    assert whole["spec"]["ports"] == [{"name": "port-22", "port": 22, "targetPort": 22}]
    empty = service(external=True, externalMethod="WholeIP", externalPorts=[])
    assert empty["spec"]["ports"] == [{"port": 65535}]
    assert whole["metadata"]["annotations"] == {"networking.cozystack.io/wholeIP": "true"}
    assert whole["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"] == "cozy-proxy"


def test_further_networks_and_gpus():
    inner = machine(subnets=[{"name": "back"}], gpus=[{"name": "nvidia.com/X"}])["template"]["spec"]
    assert inner["networks"][1] == {"name": "back", "multus": {"networkName": "team/back"}}
    assert inner["domain"]["devices"]["interfaces"][1] == {"name": "back", "bridge": {}}
    assert inner["domain"]["devices"]["gpus"] == [{"name": "gpu1", "deviceName": "nvidia.com/X"}]


def test_volumes():
    def source(**spec) -> dict:
        return made("VMDisk", **spec)["DataVolume-vm-disk-web.yaml"]["spec"]["source"]

    assert source() == {"blank": {}}
    assert source(source={"http": {"url": "https://x/y"}}) == {"http": {"url": "https://x/y"}}
    assert source(source={"disk": {"name": "a"}}) == {"pvc": {"name": "vm-disk-a", "namespace": "team"}}
    assert source(source={"image": {"name": "debian-12"}})["pvc"]["namespace"] == "cozy-public"
    upload = made("VMDisk", source={"upload": {}}, storage="3Gi")
    volume = upload["DataVolume-vm-disk-web.yaml"]
    assert volume["spec"]["source"] == {"upload": {}}
    assert volume["metadata"]["annotations"]["cdi.kubevirt.io/storage.bind.immediate.requested"] == ""
    assert volume["spec"]["storage"] == {
        "resources": {"requests": {"storage": "3Gi"}},
        "storageClassName": "replicated",
    }
