"""Disks under real, tiny guests: other formats, clones, growth, a host that runs out of space."""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import KEPT, TINY, TINY_URL, Host, Real, empty_disk, second, seeded, stock
from tests.growth import patience
from tests.guests import installer

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("kind", ["raw.xz", pytest.param("vmdk", marks=pytest.mark.full)])
def test_a_guest_boots_from_what_is_no_qcow2(real: Real, tiny_image: Path, tmp_path: Path, kind: str):
    """From a folder as the mirror, since the guest's host has no way to the test's server."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    raw = mirror / "tiny.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", tiny_image, raw], check=True)
    if kind == "vmdk":
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, mirror / "tiny.img"], check=True)
    else:
        (mirror / "tiny.img").write_bytes(lzma.compress(raw.read_bytes(), preset=1))
    config = real.file("config.yaml", f'mirrors: {{"http://images.invalid/": "{mirror}"}}\n')
    text = TINY.replace(TINY_URL, "http://images.invalid/tiny.img")
    result = real("--config", config, "up", real.file("m.yaml", text))
    assert result.code == 0, result.err
    assert real.status()["printableStatus"] == "Running"


@pytest.mark.full
def test_clone_and_original_run_side_by_side(real: Real, host: Host):
    made = "mkdir -p /d; mount /dev/vda1 /d; echo from-the-source > /d/mark; sync; umount /d; echo DONE"
    text = seeded(TINY, made)
    assert real("up", real.file("m.yaml", text)).code == 0
    clone = second(TINY, "copy").replace(f'http: {{url: "{TINY_URL}"}}', "disk: {name: sys}")
    look = "mkdir -p /d; mount /dev/vda1 /d; cat /d/mark; echo HOST=$(grep -a local-hostname /tmp/meta-data)"
    running = real("up", real.file("c.yaml", seeded(clone, look)), timeout=200)
    assert running.code == 1 and "in use by vminstance/web" in running.err and "waits until" in running.err
    assert real("stop", "web", "--force").code == 0
    # As a kill in the middle of a checkpoint leaves it: which layer is the newest is not settled yet.
    note = real.home / "state" / "machines" / "default" / "web" / "pending.json"
    note.write_text(json.dumps({"verb": "create", "name": "x", "old": {}, "new": {}}))
    short = real("up", real.file("c.yaml", seeded(clone, look)))
    assert short.code == 1 and "interrupted checkpoint" in short.err and "hikube-local stop web" in short.err
    assert real("stop", "web").code == 0 and not note.exists()
    assert real("up", real.file("c.yaml", seeded(clone, look))).code == 0
    assert real("start", "web", "--wait").code == 0
    log = real("logs", "copy").out
    assert "from-the-source" in log and "vm-instance-copy" in log
    assert "hello from" in (host.http(real.access(80, "copy")) or "") and "hello from" in (
        host.http(real.access(80)) or ""
    )


@pytest.mark.full
def test_growth_is_seen_by_the_running_guest(real: Real):
    watch = "(for i in $(seq 1 120); do cat /sys/block/vda/size; sleep 1; done) &"
    assert real("up", real.file("m.yaml", seeded(TINY, watch))).code == 0
    assert real("up", real.file("m.yaml", seeded(TINY.replace("storage: 1Gi", "storage: 2Gi"), watch))).code == 0
    deadline = time.monotonic() + patience(30)
    while str(2 * (2 << 20)) not in real("logs", "web").out:
        assert time.monotonic() < deadline
        time.sleep(1)


@pytest.mark.full
def test_a_guest_without_space_is_paused_and_goes_on(host: Host, tiny_image: Path, tmp_path: Path):
    """The state lies on a file system that fills up under the guest."""
    home = tmp_path / "small"
    home.mkdir()
    host.run("mount", "-t", "tmpfs", "-o", "size=320m", "tmpfs", home)
    inside = Path(f"/proc/{host.process.pid}/root{home}")
    program = Real(home, host)
    try:
        program.folder = tmp_path / "files"
        program.folder.mkdir()
        stock(inside, TINY_URL, tiny_image)
        data = TINY.replace("disks: [sys]", "disks: [sys, data]") + "---\n"
        data += "apiVersion: apps.cozystack.io/v1alpha1\nkind: VMDisk\nmetadata: {name: data}\nspec: {storage: 1Gi}\n"
        filling = "(sleep 3; dd if=/dev/urandom of=/dev/vdb bs=1M count=150 conv=fsync 2>/dev/null; echo WRITTEN) &"
        text = data.replace("  disks: [sys, data]\n", "  disks: [sys, data]\n" + seeded("", filling))
        ballast = inside / "ballast"
        ballast.write_bytes(os.urandom(1 << 20) * 200)
        result = program("up", program.file("m.yaml", text))
        assert result.code == 0, result.err
        deadline = time.monotonic() + patience(90)
        while program.status()["printableStatus"] != "Paused":
            assert time.monotonic() < deadline, program("logs", "web").out[-500:]
            time.sleep(1)
        fill(inside / "rest")
        told = program("describe", "vm/web").out
        assert "cannot be written" in told and "WRITTEN" not in program("logs", "web").out
        assert "hikube-local unpause web" in told
        ballast.unlink()
        assert program.status()["printableStatus"] == "Paused"  # a look lets nothing go on
        assert "VM web was unpaused" in program("unpause", "web").out
        assert program.status()["printableStatus"] == "Running"
        while "WRITTEN" not in program("logs", "web").out:
            assert time.monotonic() < deadline + 60
            time.sleep(1)
        fill(ballast)
        assert program("down", "-A", "--force").code == 0
        assert not program.processes()
    finally:
        program.close()
        host.run("umount", "-l", home)


def fill(path: Path) -> None:
    """Take all the room there is on the file system of `path`."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(64 << 10)):
            pass


@pytest.mark.full
def test_an_optical_disk_without_a_source_is_an_empty_drive(real: Real):
    text = TINY.replace("disks: [sys]", "disks: [sys, cd]") + "---\n"
    text += "apiVersion: apps.cozystack.io/v1alpha1\nkind: VMDisk\nmetadata: {name: cd}\nspec: {optical: true, storage: 1Gi}\n"
    assert real("up", real.file("m.yaml", text)).code == 0
    xml = real("virsh", "dumpxml", "default_vm-instance-web").out
    drive = xml.split("device='cdrom'")[1].split("</disk>")[0]
    assert "<source" not in drive and "bus='sata'" in drive and "<readonly/>" in drive


@pytest.mark.full
def test_an_installers_iso_after_an_empty_system_disk(real: Real, host: Host, tiny_image: Path):
    """As Hikube's pages describe Windows: the ISO boots since the disk is empty. The installer powers the machine off,
    Always brings it back, and now the disk boots."""
    iso = installer.make(tiny_image, KEPT / "test-guests")
    stock(real.home, "http://tiny.invalid/installer.iso", iso)
    text = TINY.replace(f'{{storage: 1Gi, source: {{http: {{url: "{TINY_URL}"}}}}}}', "{storage: 1Gi}")
    assert text != TINY
    with_iso = text.replace("disks: [sys]", "disks: [sys, iso]") + "---\n"
    with_iso += "apiVersion: apps.cozystack.io/v1alpha1\nkind: VMDisk\nmetadata: {name: iso}\n"
    with_iso += 'spec: {optical: true, storage: 1Gi, source: {http: {url: "http://tiny.invalid/installer.iso"}}}\n'
    first = real("up", real.file("m.yaml", with_iso), "--timeout", "120s")
    assert first.code == 0, first.err
    log = real("logs", "web").out
    assert log.index("installer: done") < log.index("login: ")
    assert "hello from" in (host.http(real.access(80)) or "")
    # The ISO is taken out again, and the disk boots.
    second_up = real("up", real.file("m.yaml", text), "--restart", "--timeout", "120s")
    assert second_up.code == 0, second_up.err
    assert "hello from" in (host.http(real.access(80)) or "")


BLOCKS = "(while :; do echo BLOCKS $(cat /sys/block/vd*/size) > /dev/ttyS0; sleep 1; done) &"


def test_a_hotpluggable_disk_comes_and_goes_live_and_another_waits_for_a_restart(real: Real):
    data = empty_disk("data", "64Mi")
    assert real("up", real.file("m.yaml", seeded(TINY, BLOCKS))).code == 0
    started = [line for line in real("logs", "web").out.splitlines() if "init started" in line]

    def blocks() -> str:
        time.sleep(3)
        return real("logs", "web").out.rpartition("BLOCKS ")[2]

    hot = TINY.replace("disks: [sys]", "disks: [sys, {name: data, hotpluggable: true}]")
    result = real("up", real.file("hot.yaml", seeded(hot, BLOCKS) + data))
    assert result.code == 0 and "disks: +data" in result.err and "restart" not in result.err, result.err
    assert str((64 << 20) // 512) in blocks()
    conditions = real("get", "vm", "web", "-o", "json").json["status"]["conditions"]
    assert "RestartRequired" not in [c["type"] for c in conditions]
    gone = real("up", real.file("m.yaml", seeded(TINY, BLOCKS)))
    assert gone.code == 0 and "disks: -data" in gone.err, gone.err
    assert str((64 << 20) // 512) not in blocks()
    cold = TINY.replace("disks: [sys]", "disks: [sys, data]")
    late = real("up", real.file("cold.yaml", seeded(cold, BLOCKS) + data))
    assert late.code == 0 and "takes effect after a restart" in late.err, late.err
    assert [line for line in real("logs", "web").out.splitlines() if "init started" in line] == started
    assert real("up", "--restart", real.file("cold.yaml", seeded(cold, BLOCKS) + data)).code == 0
    assert str((64 << 20) // 512) in blocks()


GROWS = "(while :; do echo GROWN $(cat /sys/devices/system/cpu/present) $(cat /sys/bus/virtio/devices/*/device | grep -c 0x0018) > /dev/ttyS0; sleep 1; done) &"


def test_more_memory_reaches_a_running_machine_and_less_waits_for_a_restart(real: Real):
    """As KubeVirt's LiveUpdate: up to four times, in place, by a virtio device (24). vCPUs: test_kvm.py."""
    small = TINY.replace("u1.nano", "u1.small")
    assert real("up", real.file("m.yaml", seeded(small, GROWS))).code == 0
    started = [line for line in real("logs", "web").out.splitlines() if "init started" in line]

    def shows(what: str) -> None:
        last = f"GROWN {what}"
        real.wait_for(lambda: last in "\n".join(real("logs", "web").out.splitlines()[-3:]), last)

    shows("0 0")
    large = real.file("large.yaml", seeded(TINY.replace("u1.nano", "u1.medium"), GROWS))
    assert "define, resize" in real("plan", large).out
    grown = real("up", large)
    assert grown.code == 0 and "1 vCPU, 4Gi of memory" in grown.err and "restart" not in grown.err, grown.err
    shows("0 1")
    status = real("get", "vm", "web", "-o", "json").json["status"]
    assert "RestartRequired" not in [c["type"] for c in status["conditions"]]
    assert "nothing changed" in real("up", large).err
    assert [line for line in real("logs", "web").out.splitlines() if "init started" in line] == started
    less = real("up", real.file("m.yaml", seeded(small, GROWS)))
    assert less.code == 0 and "takes effect after a restart" in less.err, less.err
    assert real("up", "--restart", real.file("m.yaml", seeded(small, GROWS))).code == 0
    shows("0 0")
