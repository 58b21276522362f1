"""Row by row what Hikube's manifests mean: a case for each row of the reference, in its words.

What the tables of profiles and instance types say of every entry is in test_render.py; the seed's bytes are in
test_identity.py; refusals case by case in test_manifests.py.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hikube_local.api import names
from hikube_local.api.objects import Object, RunStrategy
from hikube_local.manifests.models import read_spec
from hikube_local.manifests.validate import Known, validate
from hikube_local.plan.planner import plan_disk
from hikube_local.plan.steps import DiskObserved, Verb
from hikube_local.render import domain, kubevirt, machine, seed, tenant
from hikube_local.render.sizing import requested
from hikube_local.source.finding import Severity
from tests.conftest import disk, instance
from tests.pure.test_manifests import KEY

WEB = {"instanceType": "u1.medium", "sshKeys": [KEY]}


def web(**spec: Any) -> Object:
    return Object(kind="VMInstance", namespace="default", name="web", spec=read_spec("VMInstance", spec))


def xml(optical: dict[str, bool] | None = None, **spec: Any) -> ET.Element:
    return ET.fromstring(domain.domain(machine.portable(web(**spec), optical or {})))


def objects(kind: str = "VMInstance", **spec: Any) -> dict[str, dict]:
    obj = Object(kind=kind, namespace="default", name="web", spec=read_spec(kind, spec))
    return {r["kind"]: r for r in kubevirt.objects(obj, {})}


class Said:
    """What `validate` says of one document."""

    def __init__(self, folder: Path, text: str, old: dict[str, Any] | None = None) -> None:
        path = folder / "m.yaml"
        path.write_text(text)
        there = Object(kind="VMDisk", namespace="default", name="sys", spec=read_spec("VMDisk", old or {}))
        known = Known({there.key: there} if old is not None else {}, frozenset())
        self.items = validate([str(path)], None, "default", known, False).findings.items

    def has(self, severity: Severity, code: str = "", word: str = "") -> bool:
        return any(d.severity is severity and code in d.code and word in f"{d.message} {d.help}" for d in self.items)

    @property
    def clean(self) -> bool:
        return not self.has(Severity.ERROR)


Ask = Callable[..., Said]
ERROR, WARNING, DIFFERENCE = Severity.ERROR, Severity.WARNING, Severity.DIFFERENCE


def ports(**spec: Any) -> list[tuple[str, int]]:
    return [(p.get("name", ""), p["port"]) for p in objects(**spec)["Service"]["spec"]["ports"]]


def buses(**spec: Any) -> list[str]:
    return [d.find("target").get("bus") for d in xml(**spec).iterfind("devices/disk")]


def attribute(path: str, name: str, **spec: Any) -> str | None:
    found = xml(**spec).find(path)
    return None if found is None else found.get(name)


MACHINE: dict[str, Callable[[Ask], bool]] = {
    "name: the domain is NAMESPACE_vm-instance-NAME": lambda ask: xml().findtext("name") == "default_vm-instance-web",
    "name: at most 41 characters": lambda ask: (
        ask(instance(**WEB).replace('"web"', f'"{"a" * 41}"')).clean
        and ask(instance(**WEB).replace('"web"', f'"{"a" * 42}"')).has(ERROR, word="41")
    ),
    "name: a letter first": lambda ask: ask(instance(**WEB).replace('"web"', '"1a"')).has(ERROR),
    "name: no dots": lambda ask: ask(instance(**WEB).replace('"web"', '"a.b"')).has(ERROR),
    "keys that begin with _ are refused": lambda ask: ask(instance(**WEB, _x=1)).has(ERROR, "HK204"),
    "unknown keys: an error here, with what Hikube does": lambda ask: ask(instance(**WEB, colour=1)).has(
        ERROR, "HK204", "ignore"
    ),
    "external: absent is false": lambda ask: not web().instance.external,
    "external: false is a headless service": lambda ask: (
        (service := objects()["Service"]["spec"])["clusterIP"] == "None" and service["type"] == "ClusterIP"
    ),
    "external: true is a LoadBalancer": lambda ask: objects(external=True)["Service"]["spec"]["type"] == "LoadBalancer",
    "externalMethod: PortList by default": lambda ask: not web(external=True).instance.whole_ip,
    "externalMethod: WholeIP": lambda ask: web(external=True, externalMethod="WholeIP").instance.whole_ip,
    "externalMethod: anything else is refused": lambda ask: ask(instance(**WEB, externalMethod="All")).has(
        ERROR, "HK304"
    ),
    "externalPorts: absent is 22": lambda ask: ports(external=True) == [("port-22", 22)],
    "externalPorts: absent is said once": lambda ask: ask(instance(**WEB, external=True)).has(
        DIFFERENCE, "HK324", "22"
    ),
    "externalPorts: [] with PortList is refused": lambda ask: ask(instance(**WEB, external=True, externalPorts=[])).has(
        ERROR, "HK307"
    ),
    "externalPorts: [] with WholeIP is the placeholder": lambda ask: (
        ports(external=True, externalMethod="WholeIP", externalPorts=[]) == [("", 65535)]
    ),
    "externalPorts: a port twice is refused": lambda ask: ask(instance(**WEB, external=True, externalPorts=[9, 9])).has(
        ERROR, "HK306"
    ),
    "externalPorts: ignored with WholeIP": lambda ask: ask(
        instance(**WEB, external=True, externalMethod="WholeIP", externalPorts=[22])
    ).has(WARNING, "HK318"),
    "externalAllowICMP: true by default, in the service": lambda ask: (
        "allow" in str(objects(external=True)["Service"]["metadata"]["annotations"])
    ),
    "running: false is Halted": lambda ask: web(running=False).instance.strategy is RunStrategy.HALTED,
    "running: runStrategy wins": lambda ask: (
        web(running=False, runStrategy="Always").instance.strategy is RunStrategy.ALWAYS
    ),
    **{
        f"runStrategy: {s}": partial(
            lambda ask, s: objects(runStrategy=s)["VirtualMachine"]["spec"]["runStrategy"] == s, s=s
        )
        for s in ("Always", "Halted", "Manual", "RerunOnFailure", "Once")
    },
    "instanceType: u1.medium by default": lambda ask: requested(web().instance).memory == 4 << 30,
    "instanceType: unknown is refused": lambda ask: ask(instance(sshKeys=[KEY], instanceType="u9.huge")).has(
        ERROR, "HK302"
    ),
    "instanceType: empty wants all of resources": lambda ask: ask(
        instance(sshKeys=[KEY], instanceType="", resources={"cpu": "1", "memory": "1Gi"})
    ).has(ERROR, "HK309"),
    "instanceProfile: ubuntu by default": lambda ask: machine.profile_of(web().instance).name == "ubuntu",
    "instanceProfile: unknown is refused": lambda ask: ask(instance(**WEB, instanceProfile="windows")).has(
        ERROR, "HK303"
    ),
    "disks: names, in boot order": lambda ask: (
        [b.get("order") for b in xml(disks=["a", "b", "c"]).iterfind("devices/disk/boot")] == ["1", "2", "3"]
    ),
    "disks: {name} is the same as a name": lambda ask: (
        domain.digest(domain.domain(machine.portable(web(disks=[{"name": "a"}]), {})))
        == domain.digest(domain.domain(machine.portable(web(disks=["a"]), {})))
    ),
    "disks: bus overrides the profile's": lambda ask: (
        buses(disks=["a", {"name": "b", "bus": "sata"}]) == ["virtio", "sata"]
    ),
    "disks: one that does not exist is told": lambda ask: ask(instance(**WEB, disks=["ghost"])).has(WARNING, "HK402"),
    "networks: a NIC each, and said": lambda ask: (
        len(xml(networks=[{"name": "back"}]).findall("devices/interface")) == 2
        and ask(instance(**WEB, networks=[{"name": "back"}])).has(DIFFERENCE, "HK512")
    ),
    "subnets: networks' old name": lambda ask: len(xml(subnets=[{"name": "back"}]).findall("devices/interface")) == 2,
    "gpus: told, and carried to KubeVirt": lambda ask: (
        ask(instance(**WEB, gpus=[{"name": "nvidia.com/AD102GL_L40S"}])).has(DIFFERENCE, "HK505")
        and len(
            objects(gpus=[{"name": "nvidia.com/A"}] * 2)["VirtualMachine"]["spec"]["template"]["spec"]["domain"][
                "devices"
            ]["gpus"]
        )
        == 2
    ),
    "cpuModel: a model by name, with KVM": lambda ask: (
        (cpu := xml(cpuModel="Haswell").find("cpu")).get("mode") == "custom"
        and (cpu.findtext("model"), cpu.find("model").get("fallback")) == ("Haswell", "forbid")
        and attribute("cpu", "mode", cpuModel="host-passthrough") == "host-passthrough"
    ),
    "cpuModel: told, and carried to KubeVirt": lambda ask: (
        ask(instance(**WEB, cpuModel="Haswell")).has(DIFFERENCE, "HK513")
        and "Haswell" in str(objects(cpuModel="Haswell")["VirtualMachine"])
    ),
    "cpuModel: host-model by default": lambda ask: attribute("cpu", "mode") == "host-model",
    "resources: instead of a type, cpu is cores a socket": lambda ask: (
        (c := xml(instanceType="", resources={"cpu": "2", "sockets": "3", "memory": "4Gi"})).find("vcpu").get("current")
        == "6"
        and (c.find("cpu/topology").get("sockets"), c.find("cpu/topology").get("cores")) == ("12", "2")
        and c.findtext("memory") == str(4 << 30)
    ),
    **{
        f"resources: the fraction {cpu} is refused": partial(
            lambda ask, cpu: ask(
                instance(sshKeys=[KEY], instanceType="", resources={"cpu": cpu, "sockets": "1", "memory": "4Gi"})
            ).has(ERROR, "HK308"),
            cpu=cpu,
        )
        for cpu in ("1.5", "500m")
    },
    "resources: all three beside a type replace it, said once": lambda ask: (
        (said := ask(instance(**WEB, resources={"cpu": "2", "sockets": "1", "memory": "4Gi"}))).clean
        and said.has(DIFFERENCE, "HK516")
        and requested(
            web(instanceType="u1.medium", resources={"cpu": "2", "sockets": "1", "memory": "3Gi"}).instance
        ).memory
        == 3 << 30
    ),
    "resources: some beside a type are refused, named": lambda ask: ask(
        instance(**WEB, resources={"cpu": "2", "memory": "4Gi"})
    ).has(ERROR, "HK326", "sockets"),
    "resources: empty strings mean nothing": lambda ask: (
        ask(instance(**WEB, resources={"cpu": "", "memory": ""})).clean
    ),
    "quantities: as Kubernetes writes them": lambda ask: all(
        ask(disk(storage=text)).clean for text in ("30Gi", "1.5Gi", "5000M", "2e9", 5368709120)
    ),
    "the profile's least vCPUs": lambda ask: ask(instance(**WEB, instanceProfile="windows.11")).has(ERROR, "HK310"),
    "the profile's least memory": lambda ask: ask(instance(sshKeys=[KEY], instanceType="u1.nano")).has(ERROR, "HK310"),
    "null is absent, for every field": lambda ask: (
        ask(
            instance(
                **dict.fromkeys(
                    [
                        "external",
                        "externalMethod",
                        "externalPorts",
                        "externalAllowICMP",
                        "running",
                        "runStrategy",
                        "instanceType",
                        "instanceProfile",
                        "disks",
                        "networks",
                        "subnets",
                        "gpus",
                        "cpuModel",
                        "resources",
                        "sshKeys",
                        "cloudInit",
                        "cloudInitSeed",
                    ]
                )
            )
        ).clean
    ),
}

DISK: dict[str, Callable[[Ask], bool]] = {
    "name: at most 45 characters": lambda ask: (
        ask(disk().replace('"sys"', f'"{"a" * 45}"')).clean
        and ask(disk().replace('"sys"', f'"{"a" * 46}"')).has(ERROR, word="45")
    ),
    "source: {} is an empty disk": lambda ask: volume()["source"] == {"blank": {}},
    "source: two at once are refused": lambda ask: ask(disk(source={"upload": {}, "image": {"name": "debian-12"}})).has(
        ERROR, "HK311"
    ),
    "source.http.url": lambda ask: (
        volume(source={"http": {"url": "https://a.b/c"}})["source"] == {"http": {"url": "https://a.b/c"}}
    ),
    "source.image.name: a clone of the platform's image": lambda ask: (
        "pvc" in volume(source={"image": {"name": "debian-12"}})["source"]
    ),
    "source.disk.name: a clone of another disk": lambda ask: (
        volume(source={"disk": {"name": "gold"}})["source"]["pvc"]["name"] == "vm-disk-gold"
    ),
    "source.upload waits for a file": lambda ask: "upload" in volume(source={"upload": {}})["source"],
    "optical: a CD-ROM on SATA, read-only": lambda ask: (
        (cd := xml({"iso": True}, disks=["iso"]).find("devices/disk")).get("device") == "cdrom"
        and cd.find("target").get("bus") == "sata"
        and cd.find("readonly") is not None
    ),
    "storage: 5Gi by default": lambda ask: read_spec("VMDisk", {}).storage == "5Gi",
    "storage: grows": lambda ask: disk_steps("2Gi", 1 << 30) == [Verb.GROW],
    "storage: never shrinks": lambda ask: ask(disk(storage="1Gi"), old={"storage": "2Gi"}).has(ERROR, word="shrink"),
    "storageClass: immutable": lambda ask: ask(disk(storageClass="local"), old={}).has(ERROR, word="immutable"),
    "storageClass: replicated by default, said": lambda ask: ask(disk()).has(DIFFERENCE, "HK504"),
    "storageClass: local": lambda ask: not ask(disk(storageClass="local")).has(DIFFERENCE, "HK504"),
    "storageClass: replicated-async": lambda ask: ask(disk(storageClass="replicated-async")).clean,
    "the import happens once": lambda ask: disk_steps("1Gi", 1 << 30) == [],
}


def volume(**spec: Any) -> dict:
    return objects("VMDisk", **spec)["DataVolume"]["spec"]


def disk_steps(storage: str, has: int) -> list[Verb]:
    obj = Object(
        kind="VMDisk", namespace="n", name="d", spec=read_spec("VMDisk", {"storage": storage, "source": {"upload": {}}})
    )
    seen = DiskObserved(exists=True, size=has, generation=obj.generation)
    return [s.verb for s in plan_disk(obj, seen).steps]


SEED: dict[str, Callable[[Ask], bool]] = {
    "no keys and no user-data: no seed": lambda ask: buses(disks=["a"]) == ["virtio"] and seed.seed(web(), "I") is None,
    "the seed is a disk on the profile's bus, after the others": lambda ask: (
        [d.get("device") for d in xml(disks=["a"], cloudInit="#!").iterfind("devices/disk")] == ["disk", "disk"]
        and buses(disks=["a"], cloudInit="#!") == ["virtio", "virtio"]
    ),
    "with the plain Windows profiles it is on SATA": lambda ask: (
        buses(instanceType="u1.2xlarge", instanceProfile="windows.2k22", cloudInit="#!") == ["sata"]
    ),
    "no network-config and no vendor-data": lambda ask: (
        set(seed.seed(web(cloudInit="#!"), "I").files) == {"meta-data", "user-data"}
    ),
    "local-hostname is vm-instance-NAME": lambda ask: (
        b'"local-hostname":"vm-instance-web"' in seed.meta_data(web(), "I")
    ),
    "users without default: the keys reach nobody": lambda ask: ask(
        instance(**WEB, cloudInit="#cloud-config\nusers: [{name: a}]\n")
    ).has(WARNING, "HK317"),
    "a new seed is a new identity": lambda ask: (
        names.firmware_uuid("default", "web", "1") != names.firmware_uuid("default", "web", "")
    ),
    "no header: cloud-init ignores it": lambda ask: ask(instance(**WEB, cloudInit="hostname: my-vm")).has(
        WARNING, "HK316"
    ),
}


def conf() -> str:
    return tenant.dnsmasq_conf(tenant.Tenant("default", 1), "/run/net")


NETWORK: dict[str, Callable[[Ask], bool]] = {
    "one NIC of the profile's model": lambda ask: (
        attribute("devices/interface/model", "type") == "virtio-non-transitional"
    ),
    "MTU 1400": lambda ask: attribute("devices/interface/mtu", "size") == "1400" and "1400" in conf(),
    "the NIC has no option ROM": lambda ask: attribute("devices/interface/rom", "enabled") == "no",
    "the NIC is enp1s0: the first root port": lambda ask: attribute("devices/interface/address", "bus") == "0x01",
    "search domains by options 119 and 15": lambda ask: (
        "option:domain-search,default.svc.cozy.local,svc.cozy.local,cozy.local" in conf()
        and "\ndomain=default.svc.cozy.local\n" in conf()
    ),
    "the domain is cozy.local": lambda ask: "local=/cozy.local/" in conf(),
}

BOX: dict[str, Callable[[Ask], bool]] = {
    "q35": lambda ask: attribute("os/type", "machine") == "q35",
    "each vCPU a socket": lambda ask: attribute("cpu/topology", "sockets", instanceType="s1.large") == "16",
    "error_policy stop, discard unmap": lambda ask: (
        attribute("devices/disk/driver", "error_policy", disks=["a"]) == "stop"
        and attribute("devices/disk/driver", "discard", disks=["a"]) == "unmap"
    ),
    "an I/O thread where the profile asks": lambda ask: (
        xml(instanceProfile="centos.stream10", disks=["a"]).findtext("iothreads") == "1"
        and xml(disks=["a"]).find("iothreads") is None
    ),
    "no USB controller": lambda ask: attribute("devices/controller[@type='usb']", "model") == "none",
    "virtio-rng on /dev/urandom": lambda ask: xml().findtext("devices/rng/backend") == "/dev/urandom",
    "serial port 0 on a socket, with a log beside it": lambda ask: (
        attribute("devices/serial/source", "mode") == "bind" and bool(attribute("devices/serial/log", "file"))
    ),
    "VGA with 16 MiB": lambda ask: attribute("devices/video/model", "vram") == "16384",
    "VNC on a unix socket": lambda ask: attribute("devices/graphics/listen", "type") == "socket",
    "the guest agent's channel": lambda ask: attribute("devices/channel/target", "name") == "org.qemu.guest_agent.0",
    "the balloon reports free pages, statistics every 10 s": lambda ask: (
        attribute("devices/memballoon", "freePageReporting") == "on"
        and attribute("devices/memballoon/stats", "period") == "10"
    ),
    "SMBIOS says KubeVirt": lambda ask: (
        {e.get("name"): e.text for e in xml().iterfind("sysinfo/system/entry")}.items()
        >= {"manufacturer": "KubeVirt", "family": "KubeVirt", "product": "None"}.items()
    ),
    "TPM 2.0 is tpm-crb where it is persistent": lambda ask: (
        attribute("devices/tpm", "model", instanceType="u1.2xlarge", instanceProfile="windows.2k22") == "tpm-crb"
    ),
    "no panic device": lambda ask: xml().find("devices/panic") is None,
    "clock UTC, with KVM no timers but the profile's": lambda ask: (
        attribute("clock", "offset") == "utc"
        and xml().find("clock/timer") is None
        and attribute("clock/timer[@name='hpet']", "present", instanceProfile="windows.2k22") == "no"
    ),
    "grace period 30 s, for Windows too": lambda ask: (
        objects(instanceType="u1.2xlarge", instanceProfile="windows.2k22")["VirtualMachine"]["spec"]["template"][
            "spec"
        ]["terminationGracePeriodSeconds"]
        == 30
    ),
    "secure boot has SMM and enrolled keys": lambda ask: (
        (w := xml(instanceType="u1.2xlarge", instanceProfile="windows.2k22")).find("features/smm") is not None
        and w.find("os/loader").get("secure") == "yes"
        and w.find("os/firmware/feature[@name='enrolled-keys']").get("enabled") == "yes"
    ),
    "u1 and s1 share CPU: said": lambda ask: all(
        ask(instance(sshKeys=[KEY], instanceType=t)).has(DIFFERENCE, "HK508") for t in ("u1.medium", "s1.small")
    ),
    "m1 has huge pages: said": lambda ask: ask(instance(sshKeys=[KEY], instanceType="m1.large")).has(
        DIFFERENCE, "HK509"
    ),
}

COPIED: dict[str, Callable[[Ask], bool]] = {
    "VMDisk size": lambda ask: ask(disk(size="100Gi")).has(ERROR, "HK204", "storage"),
    "VMInstance systemDisk": lambda ask: ask(instance(**WEB, systemDisk={"image": "ubuntu"})).has(
        ERROR, "HK204", "VMDisk"
    ),
    "kind VirtualMachine": lambda ask: ask(instance(**WEB).replace("VMInstance", "VirtualMachine")).has(
        ERROR, word="convert"
    ),
    "instanceProfile windows": lambda ask: ask(instance(**WEB, instanceProfile="windows")).has(
        ERROR, "HK303", "windows."
    ),
    "instanceProfile centos": lambda ask: ask(instance(**WEB, instanceProfile="centos")).has(ERROR, "HK303", "centos."),
    "image ubuntu is an administrator's": lambda ask: ask(disk(source={"image": {"name": "ubuntu"}})).has(
        ERROR, "HK312"
    ),
    "names that Hikube's pages do not list are told": lambda ask: (
        ask(instance(**WEB, instanceProfile="debian")).has(DIFFERENCE, "HK334", "debian")
        and ask(instance(sshKeys=[KEY], instanceType="cx1.medium")).has(DIFFERENCE, "HK334", "cx1.medium")
        and ask(disk(source={"image": {"name": "alpine-3.21"}}, storage="20Gi")).has(DIFFERENCE, "HK334", "alpine-3.21")
        and not ask(instance(**WEB, instanceProfile="ubuntu")).has(DIFFERENCE, "HK334")
    ),
    "nothing but disks": lambda ask: ask(instance(disks=[{"name": "a"}])).clean,
    "a VMDisk without anything": lambda ask: ask(disk()).clean,
    **{
        f"the placeholder {key!r}": partial(
            lambda ask, key: (
                (said := ask(instance(instanceType="u1.medium", sshKeys=[key]))).clean and said.has(WARNING, "HK313")
            ),
            key=key,
        )
        for key in (
            "ssh-ed25519 AAAA... user@host",
            "ssh-rsa AAAAB3Nza...",
            "your-public-key-here",
            "votre-clé-publique-ici",
            "<paste your ssh public key here>",
        )
    },
    "the placeholder https://...": lambda ask: (
        (said := ask(disk(source={"http": {"url": "https://..."}}))).clean and said.has(WARNING)
    ),
    "password and chpasswd": lambda ask: (
        ask(instance(**WEB, cloudInit="#cloud-config\npassword: x\nchpasswd: {expire: false}\n")).clean
    ),
    "several GPUs of one kind": lambda ask: ask(instance(**WEB, gpus=[{"name": "nvidia.com/H100_94GB"}] * 2)).clean,
    "the platform's other applications are passed over": lambda ask: (
        ask(
            instance(**WEB) + "\n---\napiVersion: apps.cozystack.io/v1alpha1\nkind: Postgres\nmetadata: {name: db}\n"
        ).clean
    ),
    "other groups are passed over": lambda ask: (
        ask(instance(**WEB) + "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n").clean
    ),
    "a near miss of our kinds is refused": lambda ask: ask(instance(**WEB).replace("VMInstance", "VMInstanse")).has(
        ERROR, word="VMInstance"
    ),
}

ROWS = {
    f"{table}: {row}": check
    for table, rows in {
        "VMInstance": MACHINE,
        "VMDisk": DISK,
        "seed": SEED,
        "network": NETWORK,
        "machine": BOX,
        "Hikube's pages": COPIED,
    }.items()
    for row, check in rows.items()
}


@pytest.mark.parametrize("row", ROWS)
def test_row(row: str, tmp_path: Path):
    assert ROWS[row](partial(Said, tmp_path))
