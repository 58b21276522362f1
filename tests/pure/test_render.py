"""What the machine comes to: seed bytes, domain XML, addresses, sizes."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from hikube_local.api.objects import Object
from hikube_local.catalogue import data
from hikube_local.errors import HikubeError
from hikube_local.manifests.models import read_spec
from hikube_local.render import addresses, domain, fit, growth, machine, seed, tenant
from hikube_local.render.sizing import Size, requested

GOLDEN = Path(__file__).parent / "golden"


def web(**spec) -> Object:
    return Object(kind="VMInstance", namespace="default", name="web", spec=read_spec("VMInstance", spec))


def test_user_data_passes_unchanged_but_for_its_end():
    for text, carried in (
        ("#cloud-config\na: 1", "#cloud-config\na: 1\n"),
        ("#cloud-config\na: 1\n\n\n", "#cloud-config\na: 1\n"),
        ("#!/bin/sh\r\necho\r\n", "#!/bin/sh\necho\n"),
        ("  #cloud-config\n  a: 1\n", "#cloud-config\na: 1\n"),
        ("#cloud-config\na: 1  \n\tb\n", "#cloud-config\na: 1  \n\tb\n"),
    ):
        assert seed.user_data(web(cloudInit=text)) == carried.encode()


@pytest.mark.parametrize("text", ["  a: 1\n b: 2\n", "a: \x01\n", "a\x85b\n", "a\u2028b\n"])
def test_user_data_that_breaks_the_chart_is_refused(text):
    with pytest.raises(seed.UserDataRefused):
        seed.chart_text(text)


def test_keys_alone_become_a_cloud_config():
    assert seed.user_data(web(sshKeys=['ssh-rsa AAA "me"', "", "k2"])) == (
        b'#cloud-config\nssh_authorized_keys:\n  - "ssh-rsa AAA \\"me\\""\n  - ""\n  - "k2"\n'
    )


def test_meta_data_is_one_json_object_in_gos_manner():
    keys = [f"key-{i} <me&you>" for i in range(11)]
    raw = seed.meta_data(web(instanceType="u1.small", sshKeys=keys), "ID").decode()
    assert raw.startswith(
        '{"instance-type":"u1.small","instance-id":"ID","local-hostname":"vm-instance-web","public-keys":{"0":'
    )
    assert "\\u003cme\\u0026you\\u003e" in raw
    assert not raw.endswith("\n")
    found = json.loads(raw)["public-keys"]
    # key0, key1, key10, key2 …: the files' names are sorted as strings, and so are the numbers.
    assert list(found) == ["0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert found["2"].startswith("key-10 ")


def test_no_seed_without_keys_and_user_data():
    assert seed.seed(web(), "ID") is None
    # The chart counts the list, not what is in it; KubeVirt leaves an empty key's file out.
    made = seed.seed(web(sshKeys=[""]), "ID")
    assert made.user_data == b'#cloud-config\nssh_authorized_keys:\n  - ""\n' and b"public-keys" not in made.meta_data


def test_complete_resources_leave_no_instance_type_in_the_meta_data():
    resources = {"cpu": 1, "sockets": 2, "memory": "2Gi"}
    for spec in ({"instanceType": "u1.large"}, {}):
        made = seed.meta_data(web(**spec, resources=resources, sshKeys=["k"]), "ID")
        assert made.startswith(b'{"instance-id":"ID",')
    assert b'"instance-type":"u1.large"' in seed.meta_data(web(instanceType="u1.large", resources={"cpu": 1}), "ID")


def test_the_seed_volume_is_a_whole_number_of_mib():
    made = seed.volume(seed.seed(web(cloudInit="#cloud-config\n"), "ID"))
    assert len(made) == 1 << 20
    assert len(seed.volume(seed.Seed(b"x" * (1 << 20), b"{}"))) == 2 << 20


@pytest.mark.parametrize(
    "profile", ["ubuntu", "fedora", "windows.2k22", "windows.11.virtio", "rhel.9.desktop", "centos.stream9"]
)
def test_golden_domain_xml(profile, request):
    obj = web(
        instanceType="s1.large",
        instanceProfile=profile,
        disks=["sys", {"name": "data", "bus": "sata"}, "cd"],
        cloudInit="#!",
    )
    xml = domain.domain(machine.portable(obj, {"cd": True}))
    path = GOLDEN / f"{profile}.xml"
    if request.config.getoption("--golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(xml)
    assert xml == path.read_text()


@pytest.mark.parametrize("profile", data.profiles())
def test_every_profile_shows_in_the_domain_xml(profile):
    p = data.profiles()[profile]
    root = ET.fromstring(
        domain.domain(
            machine.portable(web(instanceType="u1.2xlarge", instanceProfile=profile, disks=["sys"], cloudInit="#!"), {})
        )
    )
    targets = [d.find("target").get("bus") for d in root.iterfind("devices/disk")]
    assert targets == [p.disk_bus, p.disk_bus]
    assert root.find("devices/interface/model").get("type") == (
        p.nic if p.nic != "virtio" else "virtio-transitional" if p.transitional else "virtio-non-transitional"
    )
    assert (root.find("devices/graphics") is not None) is (root.find("devices/video") is not None) is p.graphics
    assert (root.find("devices/memballoon").get("model") != "none") is p.balloon
    assert (root.find("devices/controller/pcihole64") is None) is p.pci_hole64
    assert (root.find("os").get("firmware") == "efi") is (p.firmware == "efi")
    assert (root.find("features/smm") is not None) is p.smm
    assert (root.find("devices/rng") is not None) is p.rng
    assert (root.find("iothreads") is not None) is p.dedicated_iothread
    assert (root.find("devices/tpm") is not None) is bool(p.tpm)
    assert (root.find("devices/input") is not None) is bool(p.input)
    if p.secure_boot:
        assert root.find("os/loader").get("secure") == "yes"


def test_room_to_grow_ends_where_a_machine_needs_another_kind_of_interrupts():
    spec = machine.portable(web(disks=["sys"]), {})

    def vcpus(size: Size) -> tuple[str, str]:
        root = ET.fromstring(domain.domain(dataclasses.replace(spec, size=size)))
        return root.findtext("vcpu"), root.find("cpu/topology").get("sockets")

    assert vcpus(Size(63, 1, GIB)) == ("252", "252")
    assert vcpus(Size(64, 1, GIB)) == ("255", "255")
    assert vcpus(Size(8, 8, GIB)) == ("248", "31")
    assert vcpus(Size(256, 1, GIB)) == ("256", "256")


def test_an_emulated_machine_of_one_vcpu_has_no_room_for_more():
    """It would boot slower for it; its memory grows all the same, and one of two vCPUs does whatever it is run by."""
    assert growth.room(Size(1, 1, GIB), kvm=False) == growth.Capacity(1, 4 * GIB)
    assert growth.room(Size(1, 1, GIB)) == growth.Capacity(4, 4 * GIB)
    assert growth.room(Size(2, 1, GIB), kvm=False) == growth.Capacity(8, 4 * GIB)
    assert growth.room(Size(1, 1, GIB // 2)) == growth.Capacity(4, GIB // 2)


def test_what_a_running_machine_has_and_may_have_is_read_off_its_definition():
    spec = machine.portable(web(instanceType="u1.small", disks=["sys"]), {})
    live = domain.domain(spec)
    assert growth.capacity(live) == growth.Capacity(1, 2 * GIB) and growth.most(live) == growth.Capacity(4, 8 * GIB)
    device = growth.device(live, 6 * GIB)
    grown = live.replace("</devices>", device + "</devices>").replace('current="1"', 'current="3"')
    assert growth.capacity(grown) == growth.Capacity(3, 6 * GIB) and growth.most(grown) == growth.Capacity(4, 8 * GIB)
    # What was added is part of what is asked for next.
    assert '<requested unit="KiB">6291456</requested>' in growth.device(grown, 8 * GIB)
    before = '<domain><memory unit="KiB">1048576</memory><vcpu>2</vcpu><metadata/></domain>'
    assert growth.capacity(before) == growth.most(before) == growth.Capacity(2, GIB)


def test_how_a_profile_lays_out_vcpus():
    """Spread, as KubeVirt: two threads each, the ratio's cores in a socket; what does not divide is refused elsewhere."""
    assert requested(web(instanceType="u1.2xlarge").instance) == Size(8, 1, 32 * GIB)
    dpdk = {"instanceProfile": "rhel.9.dpdk"}
    assert requested(web(instanceType="u1.2xlarge", **dpdk).instance) == Size(1, 4, 32 * GIB, threads=2)
    realtime = requested(web(instanceType="u1.4xlarge", instanceProfile="rhel.9.realtime").instance)
    assert realtime == Size(4, 2, 64 * GIB, threads=2) and realtime.vcpus == 16
    capped, told = fit.fit(realtime, 4, 256 * GIB, 0, True, GIB, False)
    assert (capped.sockets, capped.cores, capped.threads) == (4, 1, 1) and [d.code for d in told] == ["HK501"]


@pytest.mark.parametrize("name", data.instancetypes())
def test_every_instance_type_shows_in_the_domain_xml(name):
    kind = data.instancetypes()[name]
    root = ET.fromstring(domain.domain(machine.portable(web(instanceType=name, instanceProfile="cirros"), {})))
    assert int(root.find("memory").text) == kind.memory
    assert int(root.find("vcpu").get("current")) == kind.vcpu
    assert root.find("cpu/topology").get("sockets") == str(min(4 * kind.vcpu, 255))


def test_the_nic_comes_first_and_ports_are_spare():
    root = ET.fromstring(domain.domain(machine.portable(web(disks=["a", "b"], cloudInit="#!"), {})))
    assert root.find("devices/interface/address").get("bus") == "0x01"
    ports = len(root.findall("devices/controller[@model='pcie-root-port']"))
    # NIC, serial, balloon, rng, three disks
    assert ports - 7 >= 4


def test_drivers_always_name_their_format():
    root = ET.fromstring(domain.domain(machine.portable(web(disks=["a"], cloudInit="#!"), {})))
    assert [d.get("type") for d in root.iterfind("devices/disk/driver")] == ["qcow2", "raw"]
    assert all(d.find("backingStore") is not None for d in root.iterfind("devices/disk"))


def test_the_digest_tells_machines_apart():
    one = domain.domain(machine.portable(web(disks=["a"]), {}))
    other = domain.domain(machine.portable(web(disks=["a", "b"]), {}))
    assert domain.digest(one) and domain.digest(one) != domain.digest(other)
    assert domain.digest(one) == domain.digest(domain.domain(machine.portable(web(disks=["a"]), {})))


def test_resources_replace_the_type():
    assert requested(web(instanceType="", resources={"cpu": "2", "sockets": "3", "memory": "4Gi"}).instance) == Size(
        3, 2, 4 << 30
    )


GIB = 1 << 30


def test_a_machine_that_fits_is_not_changed():
    assert fit.fit(Size(2, 1, 4 * GIB), 4, 16 * GIB, 0, True, GIB, False) == (Size(2, 1, 4 * GIB), [])


def test_a_machine_that_is_too_large_is_capped_and_told():
    size, told = fit.fit(Size(8, 1, 32 * GIB), 2, 16 * GIB, 4 * GIB, True, GIB, False)
    assert size == Size(2, 1, 8 * GIB)
    assert [d.code for d in told] == ["HK501", "HK502"]


def test_a_cap_is_refused_with_exact_and_below_the_profiles_least():
    with pytest.raises(HikubeError, match="--exact"):
        fit.fit(Size(8, 1, GIB), 2, 16 * GIB, 0, True, GIB, True)
    with pytest.raises(HikubeError, match="at least 2Gi"):
        fit.fit(Size(1, 1, 4 * GIB), 2, 4 * GIB, 2 * GIB, True, 2 * GIB, False)


def test_addresses_are_stable_and_do_not_collide():
    first = addresses.choose_host("default", "web", [])
    assert first == addresses.choose_host("default", "web", [9])
    assert addresses.choose_host("default", "web", [first]) != first
    with pytest.raises(ValueError, match="no address"):
        addresses.choose_host("default", "web", range(10, 251))


def test_the_range_is_free_of_the_hosts_routes_and_kept():
    assert addresses.choose_octet([]) == 77
    assert addresses.choose_octet(["10.77.3.0/24", "192.168.0.0/16"]) == 78
    assert addresses.choose_octet(["10.64.0.0/12"]) == 80
    assert addresses.choose_octet([], kept=91) == 91
    assert addresses.choose_octet(["10.91.0.1"], kept=91) == 77
    # A default route, and a VPN's halves of it, are no claim on our range.
    assert addresses.choose_octet(["0.0.0.0/1", "default", "odd"]) == 77
    with pytest.raises(ValueError, match="routed by the host"):
        addresses.choose_octet(["10.0.0.0/8"])


def test_ports_keep_their_number_or_move_up_and_never_onto_a_declared_one():
    def given(ports, kept, usable):
        return addresses.assign_ports(ports, kept, lambda protocol, port: usable(port))

    assert given(["22", "80"], {}, lambda p: True) == {"22": 22, "80": 80}
    assert given(["22", "80"], {}, lambda p: p >= 1024) == {"22": 10022, "80": 10080}
    assert given(["22", "10022"], {}, lambda p: p != 22) == {"22": 10023, "10022": 10022}
    assert given(["22"], {"22": 10022}, lambda p: True) == {"22": 10022}
    # TCP and UDP of one number do not stand in each other's way.
    assert given(["53", "53/udp"], {}, lambda p: True) == {"53": 53, "53/udp": 53}


def test_dhcp_options_are_hikubes():
    text = tenant.dnsmasq_conf(tenant.Tenant("team", 7), "/x")
    for line in (
        "dhcp-option=option:domain-search,team.svc.cozy.local,svc.cozy.local,cozy.local",
        "dhcp-option=option:mtu,1400",
        "domain=team.svc.cozy.local",
        "dhcp-ignore-names",
        "dhcp-range=10.77.7.1,static,255.255.255.0,infinite",
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize("image", [(), (("/cache/sha256/abc", "qcow2"),)], ids=["an empty disk", "on an image"])
def test_a_checkpoint_is_no_change_of_the_machine(image):
    """Another layer under a disk leaves the digest as it is; another image does not."""

    def digest(name: str, *backing: tuple[str, str]) -> str:
        device = machine.DiskDevice("sys", f"/disks/sys/{name}", "qcow2", "virtio", boot_order=1, backing=backing)
        spec = dataclasses.replace(machine.portable(web(disks=["sys"]), {}), disks=(device,))
        return domain.digest(domain.domain(spec))

    plain = digest("disk.qcow2", *image)
    assert digest("layer-1.qcow2", ("/disks/sys/disk.qcow2", "qcow2"), *image) == plain
    assert digest("disk.qcow2", ("/cache/sha256/other", "qcow2")) != plain


def test_an_emulated_machine_has_not_what_emulation_is_slow_at_and_a_throw_away_one_no_spare_ports():
    spec = machine.portable(web(disks=["sys"]), {})

    def told(**changes: object) -> ET.Element:
        return ET.fromstring(domain.domain(dataclasses.replace(spec, **changes)))

    def off(root: ET.Element) -> list[str | None]:
        return [f.get("name") for f in root.findall("cpu/feature[@policy='disable']")]

    assert off(told(kvm=False)) == ["erms", "fsrm", "la57", "pku"] and off(told(kvm=True)) == []
    ports = "devices/controller[@model='pcie-root-port']"
    # Three that KubeVirt keeps for NICs are free in both.
    assert len(told().findall(ports)) - len(told(spare_ports=0).findall(ports)) == machine.SPARE_PORTS - 3


def test_what_can_grow_in_place_and_what_needs_a_restart():
    """Sockets and memory; not other cores or threads, not another kind of memory, not without a port for it."""

    def shape(**spec: object) -> str:
        return domain.digests(machine.portable(web(disks=["sys"], **spec), {})).shape

    def own(cpu: int, sockets: int, memory: str) -> dict:
        return {"resources": {"cpu": cpu, "sockets": sockets, "memory": memory}}

    assert shape(**own(1, 1, "2Gi")) == shape(**own(1, 4, "8Gi")) == shape(instanceType="u1.large")
    assert shape(**own(1, 4, "2Gi")) != shape(**own(4, 1, "2Gi"))
    assert shape(instanceType="u1.large") != shape(instanceType="m1.large")
    # libvirt and QEMU round up.
    assert growth.Capacity(1, 1500000256).within(growth.Capacity(2, 1500000000))
    assert not growth.Capacity(1, 2 * GIB).within(growth.Capacity(1, GIB))
    live = domain.domain(machine.portable(web(instanceType="u1.small", disks=["sys"]), {}))
    assert growth.most(live).memory == 8 * GIB
    full = ET.fromstring(live)
    for port in full.findall("devices/controller[@model='pcie-root-port']"):
        ET.SubElement(
            ET.SubElement(full.find("devices"), "hostdev"), "address", type="pci", bus=hex(int(port.get("index")))
        )
    assert growth.most(ET.tostring(full, encoding="unicode")) == growth.Capacity(4, 2 * GIB)
