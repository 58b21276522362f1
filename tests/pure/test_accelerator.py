"""The verdict on KVM, on recorded times of hosts; and which accelerator a machine gets."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from hikube_local.api.objects import Object, VMInstanceSpec
from hikube_local.host.accelerator import LONG, SHORT, Times, code, judge
from hikube_local.host.facts import HostFacts
from hikube_local.plan.accelerator import choose
from hikube_local.readiness import qemu
from hikube_local.render import domain, machine

HOST = HostFacts(cpus=2, memory=4 << 30, available=4 << 30, kvm=True, why="tried")
TCG = Times(0.07, 0.25)  # QEMU 7.2 on a server of 2024


@pytest.mark.parametrize(
    "name, tcg, kvm, yes",
    [
        ("a laptop, whose KVM starts no faster than emulation", TCG, Times(0.115, 0.135), True),
        ("a runner of GitHub's, where each exit costs", Times(0.12, 0.36), Times(0.86, 0.89), True),
        ("loaded: starts of a second, one loop disturbed", Times(1.3, 1.9), Times(1.6, 1.7), True),
        ("KVM in an emulated host", Times(1.5, 5.4), Times(0.5, 0.9), True),
        ("times that are all noise", Times(0.10, 0.28), Times(0.12, 0.11), True),
        ("KVM that is emulated itself", Times(0.07, 0.25), Times(0.2, 2.9), False),
    ],
)
def test_the_verdict_measures_the_processor_and_not_the_start_of_a_program(name, tcg, kvm, yes):
    found = judge(tcg, kvm, "")
    assert found.kvm is yes, (name, found)
    assert found.lasting is yes  # a no that was measured is measured again


def test_a_no_for_want_of_a_device_lasts_and_another_one_does_not():
    assert judge(TCG, None, "/dev/kvm does not exist").lasting
    assert not judge(TCG, None, "").lasting and "does not run" in judge(TCG, None, "").why


def test_slowness_is_the_slope():
    assert judge(Times(5.0, 5.02), None, "no").slowness == 1.0  # a slow start is no slow processor
    assert judge(Times(0.07, 0.27), None, "no").slowness == 10.0
    assert judge(Times(1.5, 5.4), Times(0.5, 0.6), "").slowness == 5.0  # KVM inside an emulated host


def test_the_boot_sector_takes_the_number_of_loops():
    for loops in (SHORT, LONG):
        made = code(loops)
        assert len(made) == 512 and made[-2:] == b"\x55\xaa" and b"\xb9" + loops.to_bytes(4, "little") in made


def test_the_accelerator_of_a_machine():
    tcg_host = replace(HOST, kvm=False, why="no device")
    assert choose(HOST, "", "", "").word == "kvm" and choose(tcg_host, "", "", "").why == "no device"
    # Who overrules it: the command, then the manifest, then the environment.
    for asked, by in (
        (("tcg", "kvm", "kvm"), "--accelerator"),
        (("", "tcg", "kvm"), "annotation"),
        (("", "", "tcg"), "environment"),
    ):
        found = choose(HOST, *asked)
        assert (found.word, found.by) == ("tcg", by)
    assert choose(tcg_host, "kvm", "", "").kvm  # also against what was measured


def test_a_verdict_that_changes_takes_no_checkpoint_away_in_silence():
    tcg_host = replace(HOST, kvm=False, why="no device")
    assert choose(HOST, "", "", "", "tcg", memory=frozenset({"tcg"})).word == "tcg"
    assert choose(HOST, "", "", "", "tcg").word == "kvm"  # nothing to lose
    assert choose(tcg_host, "", "", "", "kvm", runs=True).word == "kvm"  # it runs: nothing is changed under it
    lost = choose(tcg_host, "", "", "", "kvm", memory=frozenset({"kvm"}))
    assert (lost.word, lost.lost) == ("tcg", "kvm")
    assert choose(HOST, "kvm", "", "", "tcg", memory=frozenset({"tcg"})).lost == "tcg"
    # Emulated for a while because somebody asked: its checkpoints of before are still KVM's, and auto goes back to it.
    back = choose(HOST, "", "", "", "", runs=True, memory=frozenset({"kvm"}))
    assert (back.word, back.lost) == ("kvm", "")
    assert choose(HOST, "tcg", "", "", "kvm", memory=frozenset({"kvm"})).lost == "kvm"
    assert choose(HOST, "", "", "", "tcg", memory=frozenset({"kvm", "tcg"})).lost == "tcg"


def _xml(**changes) -> ET.Element:
    spec = VMInstanceSpec(instanceProfile=changes.pop("profile", "ubuntu"))
    obj = Object(kind="VMInstance", namespace="default", name="web", spec=spec)
    return ET.fromstring(domain.domain(replace(machine.portable(obj, {}), **changes)))


@pytest.mark.parametrize("model, off", [("Skylake-Server", True), ("Icelake-Client", True), ("EPYC", False)])
def test_a_model_whose_mpx_no_host_has_goes_without_it(model, off):
    found = _xml(cpu_model=model).findall("cpu/feature[@name='mpx']")
    assert [f.get("policy") for f in found] == (["disable"] if off else [])


def test_a_windows_guest_is_told_the_frequency_of_the_host():
    timer = _xml(profile="windows.11", tsc=2_400_000_000).find("clock/timer[@name='tsc']")
    assert timer is not None and timer.get("frequency") == "2400000000"
    for other in ({"profile": "windows.11"}, {"tsc": 1}, {"profile": "windows.11", "tsc": 1, "kvm": False}):
        assert _xml(**other).find("clock/timer[@name='tsc']") is None


@pytest.mark.parametrize(
    "said, reason, remedy",
    [
        (
            "char device redirected\nKVM: entry failed, hardware error 0xffffffff\nRAX=0 SMM=1 HLT=0\n",
            "KVM: entry failed, hardware error 0xffffffff",
            "secure boot needs",
        ),
        ("ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy\n", "", "another hypervisor"),
        (
            "KVM internal error. Suberror: 1\nemulation failure\n",
            "KVM internal error. Suberror: 1",
            "--accelerator tcg",
        ),
    ],
)
def test_qemus_own_line_and_the_remedy(said, reason, remedy):
    assert qemu.reason(said) == reason
    assert remedy in qemu.remedy(said, "web", kvm=True) and "--accelerator tcg" in qemu.remedy(said, "web", kvm=True)
    assert "accelerator" not in qemu.remedy(said, "web", kvm=False)
