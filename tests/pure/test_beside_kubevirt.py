"""Our domain beside virt-launcher's for the same object: each element is the same, told to the user, or harmless.

What KubeVirt makes is read off KubeVirt 1.8.4 with Cozystack's settings and its copy of common-instancetypes.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace

import pytest

from hikube_local.codes import CODES
from hikube_local.render import domain, layout, machine
from tests.conftest import ROOT
from tests.pure.test_render import web

MACHINES = {
    "U": {"instanceProfile": "ubuntu", "instanceType": "s1.small", "disks": ["sys", "data"], "cloudInit": "#!"},
    "W": {"instanceProfile": "windows.2k22", "disks": ["sys", "cd1", "cd2"]},
    "V": {"instanceProfile": "windows.2k25.virtio", "disks": ["sys"]},
    "F": {"instanceProfile": "fedora", "disks": ["sys"], "cloudInit": "#!"},
    "C": {"instanceProfile": "cirros", "instanceType": "u1.nano", "disks": ["sys"]},
    "M": {"instanceProfile": "ubuntu", "instanceType": "m1.xlarge", "cpuModel": "Skylake-Server", "disks": ["sys"]},
    "R": {
        "instanceProfile": "rhel.9",
        "resources": {"cpu": 2, "sockets": 2, "memory": "4Gi"},
        "cpuModel": "host-passthrough",
        "disks": ["sys"],
    },
    "N": {
        "instanceProfile": "centos.stream9",
        "disks": [],
        "cloudInit": "#!",
        "external": True,
        "externalMethod": "WholeIP",
        "networks": [{"name": "back"}, {"name": "store"}],
    },
    "X": {"instanceProfile": "ubuntu", "disks": ["sys", {"name": "stick", "bus": "usb"}]},
}
SAME = object()


@dataclass(frozen=True)
class Row:
    """An element: where it is, KubeVirt's value and ours; `why` names the code, the page's words, or why it is harmless."""

    machines: str
    path: str
    there: object
    here: object = SAME
    verdict: str = "same"
    why: str = ""


def told(machines: str, path: str, there: object, here: object, why: str) -> Row:
    return Row(machines, path, there, here, "told", why)


def harmless(machines: str, path: str, there: object, here: object, why: str) -> Row:
    return Row(machines, path, there, here, "harmless", why)


ALL = "UWVFCMRN"
ROWS = [
    Row(ALL, "/type", "kvm"),
    Row(ALL, "os/type/machine", "q35"),
    Row(ALL, "os/smbios/mode", "sysinfo"),
    Row(ALL, "sysinfo/system/entry[@name='manufacturer']", "KubeVirt"),
    Row(ALL, "sysinfo/system/entry[@name='product']", "None"),
    Row(ALL, "sysinfo/system/entry[@name='family']", "KubeVirt"),
    Row(ALL, "sysinfo/oemStrings", None),
    # LiveUpdate: four times the sockets and the memory, of which it has what its type says.
    Row("UFN", "vcpu", "4"),
    Row("UFN", "vcpu/current", "1"),
    Row("R", "vcpu", "16"),
    Row("R", "vcpu/current", "4"),
    Row("R", "maxMemory", str(16 << 30)),
    Row("U", "maxMemory", str(8 << 30)),
    Row("C", "maxMemory", None),  # less than 1 GiB
    Row("UFVWMRN", "cpu/numa/cell/id", "0"),
    Row("UWF", "cpu/mode", "host-model"),
    Row("R", "cpu/mode", "host-passthrough"),
    Row("M", "cpu/model", "Skylake-Server"),
    Row("M", "cpu/feature[@name='mpx']/policy", "disable"),
    harmless(
        "M", "cpu/model/fallback", "allow", "forbid", "a model that the host cannot give is an error, not another"
    ),
    told("M", "memoryBacking/hugepages", "2Mi", None, "HK509"),
    Row("R", "cpu/topology/sockets", "8"),
    Row("R", "cpu/topology/cores", "2"),
    # The clock: nothing is said where the profile has none, the guest then has QEMU's own.
    Row("UFCMRN", "clock/timer", None),
    Row("WV", "clock/timer[@name='rtc']/tickpolicy", "catchup"),
    Row("WV", "clock/timer[@name='pit']/tickpolicy", "delay"),
    Row("WV", "clock/timer[@name='hpet']/present", "no"),
    Row("WV", "clock/timer[@name='hypervclock']/present", "yes"),
    harmless("WV", "clock/adjustment", "reset", None, "the guest's clock is set when it is started here, too"),
    Row(ALL, "features/acpi", ""),
    Row(ALL, "features/vmport/state", "off"),
    harmless("WV", "features/apic", "", None, "QEMU has no option for it"),
    Row("WVFR", "features/smm/state", "on"),
    Row("UCMN", "features/smm", None),
    *(
        Row("WV", f"features/hyperv/{name}/state", "on")
        for name in [
            "relaxed",
            "vapic",
            "spinlocks",
            "vpindex",
            "runtime",
            "synic",
            "reset",
            "frequencies",
            "reenlightenment",
            "tlbflush",
            "ipi",
        ]
    ),
    Row("WV", "features/hyperv/spinlocks/retries", "8191"),
    Row("WV", "features/hyperv/stimer/direct/state", "on"),
    Row("UFCMRN", "features/hyperv", None),
    Row("WVFR", "os/loader/secure", "yes"),
    Row("UCMN", "os/loader", None),
    # Disks.
    Row("U", "devices/disk/target/dev", "vda"),
    Row("UF", "devices/disk/target/bus", "virtio"),
    Row("W", "devices/disk/target/bus", "sata"),
    Row("W", "devices/disk[2]/target/dev", "sdb"),
    Row("W", "devices/disk[@device='cdrom']/readonly", ""),
    Row("X", "devices/disk[2]/target/bus", "usb"),
    Row("X", "devices/disk[2]/target/dev", "sda"),
    Row(ALL, "devices/disk/serial", None),
    Row("UWVFCMR", "devices/disk/driver/discard", "unmap"),
    Row("UWVFCMR", "devices/disk/driver/error_policy", "stop"),
    harmless(
        "UWVFCMR", "devices/disk/driver/cache", "none", None, "the host's cache; the guest sees write back in both"
    ),
    harmless("UF", "devices/disk[last()]/readonly", None, "", "the seed is read only here"),
    harmless("R", "iothreads", "2", "1", "no guest sees its host's threads"),
    # Networks.
    Row("UVFCMRN", "devices/interface/model/type", "virtio-non-transitional"),
    Row("W", "devices/interface/model/type", "e1000e"),
    Row(ALL, "devices/interface/mtu/size", "1400"),
    Row(ALL, "devices/interface/rom/enabled", "no"),
    # Devices.
    Row("UFCMNVR", "devices/controller[@type='usb']/model", "none"),
    Row("WX", "devices/controller[@type='usb']/model", "qemu-xhci"),
    harmless(
        "UWVFCMRN", "devices/controller[@type='scsi']", "virtio-non-transitional", None, "its root port is kept free"
    ),
    Row("WVFR", "devices/video/model/type", "bochs"),
    Row("UCMN", "devices/video/model/type", "vga"),
    Row("W", "devices/input/bus", "usb"),
    Row("V", "devices/input/bus", "virtio"),
    Row("UFCMRN", "devices/input", None),
    Row("WV", "devices/tpm/model", "tpm-crb"),
    Row("WV", "devices/tpm/backend/persistent_state", "yes"),
    Row(ALL, "devices/memballoon/stats/period", "10"),
    Row("UWVFCRN", "devices/memballoon/freePageReporting", "on"),
    Row("M", "devices/memballoon/freePageReporting", None),
    Row("UFCMRN", "devices/rng/backend", "/dev/urandom"),
    Row("WV", "devices/rng", None),
    Row(ALL, "devices/graphics/type", "vnc"),
    Row(ALL, "devices/channel/target/name", "org.qemu.guest_agent.0"),
    *(Row(ALL, f"devices/{absent}", None) for absent in ("watchdog", "panic", "sound", "vsock", "hostdev")),
]
PORTS = {
    "U": {"nics": [1], "xhci": 0, "scsi": 5, "serial": 6, "disks": [7, 8, 9], "balloon": 10, "rng": 11, "input": 0},
    "W": {"nics": [1], "xhci": 5, "scsi": 6, "serial": 7, "disks": [], "balloon": 8, "rng": 0, "input": 0},
    "V": {"nics": [1], "xhci": 0, "scsi": 5, "serial": 6, "disks": [7], "balloon": 8, "rng": 0, "input": 9},
    "N": {"nics": [1, 2, 3], "xhci": 0, "scsi": 5, "serial": 6, "disks": [7], "balloon": 8, "rng": 9, "input": 0},
    "F": {"nics": [1], "xhci": 0, "scsi": 5, "serial": 6, "disks": [7, 8], "balloon": 9, "rng": 10, "input": 0},
}


def made(name: str) -> machine.Machine:
    return machine.portable(web(**MACHINES[name]), {"cd1": True, "cd2": True})


def value(root: ET.Element, path: str) -> str | None:
    """An attribute, else the text, of the first element there; None where there is none."""
    if path.startswith("/"):
        return root.get(path[1:])
    if (element := root.find(path)) is not None:
        return (element.text or "").strip() or ("" if element.get("model") is None else element.get("model"))
    parent, _, attribute = path.rpartition("/")
    element = root.find(parent) if parent else None
    return element.get(attribute) if element is not None else None


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.machines} {r.path}")
def test_each_element_is_the_same_or_told_or_harmless(row: Row):
    page = (ROOT / "docs" / "differences.md").read_text()
    for name in row.machines:
        found = value(ET.fromstring(domain.domain(made(name))), row.path)
        assert found == (row.there if row.here is SAME else row.here), name
    assert (row.verdict == "same") == (row.here is SAME) and (row.verdict == "same" or row.why)
    if row.verdict == "told":
        assert row.why in CODES or row.why in page, "told where?"


def on_ports(root: ET.Element) -> dict[str, object]:
    """What sits on which root port, of the XML."""

    def bus(path: str) -> int:
        found = root.find(f"devices/{path}/address")
        return int(found.get("bus", ""), 16) if found is not None else 0

    def buses(path: str) -> list[int]:
        return [int(a.get("bus", ""), 16) for a in root.findall(f"devices/{path}/address")]

    return {
        "nics": buses("interface"),
        "xhci": bus("controller[@type='usb']"),
        "scsi": bus("controller[@type='scsi']"),
        "serial": bus("controller[@type='virtio-serial']"),
        "disks": buses("disk"),
        "balloon": bus("memballoon"),
        "rng": bus("rng"),
        "input": bus("input"),
    }


@pytest.mark.parametrize("name", PORTS)
def test_devices_sit_where_kubevirt_puts_them(name: str):
    root = ET.fromstring(domain.domain(made(name)))
    found = on_ports(root)
    # The SCSI controller is there always; ours comes with the first disk that wants it, on that port.
    assert found == PORTS[name] | {"scsi": 0}
    ports = {int(p.get("index", "")) for p in root.findall("devices/controller[@model='pcie-root-port']")}
    assert ports == set(range(1, max(ports) + 1))
    taken = [b for v in found.values() for b in (v if isinstance(v, list) else [v]) if b]
    assert len(taken) == len(set(taken)) and set(taken) <= ports
    assert len(ports - set(taken) - {PORTS[name]["scsi"]}) == machine.SPARE_PORTS


def test_a_scsi_disk_brings_the_controller_to_its_port():
    spec = machine.portable(web(disks=["sys", {"name": "data", "bus": "scsi"}], cloudInit="#!"), {})
    found = on_ports(ET.fromstring(domain.domain(spec)))
    assert found["scsi"] == 5 and found["disks"] == [7, 8]


def test_disks_that_come_and_go_take_the_ports_that_are_free_there():
    """Three that KubeVirt keeps for NICs, then those behind everything else; never the SCSI controller's."""
    spec = machine.portable(web(disks=["sys", "a", "b", "c", "d", "e"]), {})
    hot = tuple(replace(d, hot=d.name != "sys") for d in spec.disks)
    found = layout.ports(replace(spec, disks=hot))
    assert [found.disks[n] for n in ["sys", "a", "b", "c", "d", "e"]] == [7, 2, 3, 4, 10, 11] and found.scsi == 5
    one = layout.ports(replace(spec, disks=tuple(replace(d, hot=False) for d in spec.disks)))
    assert one.open == [2, 3, 4, one.rng + 1]


def test_more_than_four_nics_leave_nothing_free_in_front():
    spec = machine.portable(web(networks=[{"name": f"n{i}"} for i in range(5)]), {})
    found = layout.ports(spec)
    assert found.nics == [1, 2, 3, 4, 5, 6] and found.scsi == 7 and found.open == [11, 12, 13, 14]


def test_how_a_machine_is_laid_out_is_no_change_of_it(monkeypatch: pytest.MonkeyPatch):
    """Machines and checkpoints of an earlier release are not taken for changed ones; they are laid out anew when they start."""
    spec = made("F")
    now = domain.domain(spec)
    assert domain.laid_out(now)
    monkeypatch.setattr(layout, "as_there", lambda root, m: None)
    monkeypatch.setattr(layout, "VERSION", "1")
    before = domain.domain(spec)
    monkeypatch.undo()
    assert before != now and domain.digest(before) == domain.digest(now) and not domain.laid_out(before)
