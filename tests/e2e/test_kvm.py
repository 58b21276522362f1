"""Machines under real KVM: for hosts that have it, and the nested one (`make test-host`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hikube_local.host import accelerator
from tests.e2e.conftest import TINY, Real

pytestmark = [pytest.mark.kvm, pytest.mark.e2e, pytest.mark.usefixtures("kvm")]


@pytest.fixture(scope="module")
def kvm() -> None:
    if not (found := accelerator.probe()).kvm:
        pytest.skip(f"no KVM here: {found.why}")


def domain(real: Real) -> str:
    return real("virsh", "dumpxml", "default_vm-instance-web").out


def page(real: Real) -> str:
    where = real.access(80)
    real.wait_for(lambda: "hello from" in (real.host.http(where, 20) or ""), "the page")
    return where


def test_a_guest_runs_under_kvm_with_the_kernels_network_and_comes_back_from_memory(real: Real):
    assert real("up", real.file("m.yaml", TINY)).code == 0
    assert "<domain type='kvm'" in domain(real)
    page(real)
    qemu = next(p for p in real.processes() if "qemu-system" in os.readlink(f"/proc/{p}/exe"))
    if os.path.exists("/dev/vhost-net"):
        opened = {os.readlink(f) for f in Path(f"/proc/{qemu}/fd").iterdir()}
        assert "/dev/vhost-net" in opened, opened  # and the guest got its lease through it
    assert real("snapshot", "create", "web", "point").code == 0
    assert real("snapshot", "restore", "web", "point", "--yes").code == 0
    page(real)


@pytest.mark.parametrize("model", ["host-passthrough", "host-model"])
def test_the_hosts_own_processor(real: Real, model: str):
    assert real("up", real.file("m.yaml", f"{TINY}  cpuModel: {model}\n")).code == 0
    page(real)


def test_more_vcpus_and_memory_reach_a_running_machine(real: Real):
    """Of one vCPU, which an emulated machine has no room beside."""
    small = TINY.replace("u1.nano", "u1.micro")
    assert real("up", real.file("m.yaml", small)).code == 0
    grown = real("up", real.file("m.yaml", small.replace("u1.micro", "u1.medium")))
    assert grown.code == 0 and "1 vCPU, 4Gi of memory" in grown.err, grown.err
    two = small.replace("instanceType: u1.micro", "resources: {cpu: 1, sockets: 2, memory: 4Gi}")
    more = real("up", real.file("m.yaml", two))
    if (os.cpu_count() or 1) > 1:
        assert more.code == 0 and "2 vCPUs, 4Gi of memory" in more.err, more.err
        assert "RestartRequired" not in str(real("get", "vm", "web", "-o", "json").json["status"]["conditions"])
    page(real)
