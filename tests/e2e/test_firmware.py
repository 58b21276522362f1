"""EFI, secure boot and TPM under real guests: what the guest itself says of them, and what survives stop and start."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import KEPT, TINY, TINY_URL, Host, Real, seeded, stock
from tests.guests import efi

pytestmark = pytest.mark.e2e

# TPM2_CreatePrimary (ECC P-256, owner hierarchy): its public part comes from the TPM's own seed, so it names the TPM.
_COMMAND = (
    "80020000004300000131400000010000000940000009000000000000040000000000"
    "1a0023000b0003047200000006008000430010000300100000000000000000 0000"
).replace(" ", "")
LOOK = r"""
dmesg | grep -m1 'locked down from EFI Secure Boot'
mkdir -p /efi; mount -t efivarfs efivarfs /efi
V=/efi/Mark-12345678-1234-1234-1234-123456789abc
[ -e $V ] && echo "VARIABLE $(tail -c 4 $V)" || printf '\007\000\000\000kept' > $V
if [ -e /dev/tpm0 ]; then
  echo "TPM $(cat /sys/class/tpm/tpm0/tpm_version_major)"
  exec 3<>/dev/tpm0
  printf 'COMMAND' >&3
  head -c 120 <&3 | tail -c +19 | head -c 88 | md5sum | sed 's/^/TPMKEY /'
fi
echo "NIC $(basename $(readlink /sys/class/net/e*/device/driver))"
echo DISKS $(ls /dev/sd? 2>/dev/null)
echo LOOKED
""".replace("COMMAND", "".join(f"\\{b:03o}" for b in bytes.fromhex(_COMMAND)))


@pytest.fixture(scope="module")
def signed(tiny_image: Path) -> Path:
    return efi.make(tiny_image, KEPT / "test-guests")


def manifest(profile: str, **changes: str) -> str:
    text = TINY.replace("instanceProfile: alpine", f"instanceProfile: {profile}").replace("u1.nano", "u1.medium")
    for old, new in changes.items():
        text = text.replace(old, new)
    return seeded(text, LOOK)


def said(real: Real, word: str) -> list[str]:
    """What the guest said behind a word since its last start."""
    return [line.partition(word)[2].strip() for line in real("logs", "web").out.splitlines() if line.startswith(word)]


def put(real: Real, image: Path) -> None:
    shutil.rmtree(real.home / "cache")
    stock(real.home, TINY_URL, image)


@pytest.mark.full
def test_fedora_boots_with_secure_boot_and_forgets_its_variables(real: Real, signed: Path):
    put(real, signed)
    result = real("up", real.file("m.yaml", manifest("fedora")))
    assert result.code == 0, result.err
    log = real("logs", "web").out
    assert "locked down from EFI Secure Boot" in log and "LOOKED" in log and not said(real, "TPM"), log[-3000:]
    assert said(real, "VARIABLE") == []
    # Its profile keeps no variables: the next start begins with the firmware's own.
    assert real("restart", "web", "--wait", "--force").code == 0
    assert "LOOKED" in real("logs", "web").out and said(real, "VARIABLE") == []


@pytest.mark.full
def test_a_windows_machine_keeps_its_variables_and_its_tpm(real: Real, signed: Path, host: Host):
    put(real, signed)
    before = host.facts()
    text = manifest("windows.2k22.virtio")
    result = real("up", real.file("m.yaml", text))
    assert result.code == 0, result.err
    assert "HK519" in str(real.status()["differences"]) and "vpindex" in result.err
    assert "locked down from EFI Secure Boot" in real("logs", "web").out
    assert said(real, "TPM ") == ["2"] and said(real, "VARIABLE") == []
    key = said(real, "TPMKEY")
    assert len(key) == 1 and len(key[0].split()[0]) == 32
    assert real("stop", "web", "--force").code == 0
    assert real("start", "web", "--wait").code == 0
    assert said(real, "VARIABLE") == ["kept"] and said(real, "TPMKEY") == key
    # A new seed is a new UUID: another instance for cloud-init, the same machine for its TPM; real after a restart.
    waits = real("up", real.file("m.yaml", text + "  cloudInitSeed: two\n"))
    assert waits.code == 0 and "takes effect after a restart" in waits.err, waits.err
    assert real("up", "--restart", real.file("m.yaml", text + "  cloudInitSeed: two\n")).code == 0
    assert said(real, "VARIABLE") == ["kept"] and said(real, "TPMKEY") == key
    assert real("down", "-A", "--force").code == 0
    assert not list((real.home / "state" / "tpm").iterdir()) and host.facts() == before


def test_a_plain_windows_machine_has_sata_e1000e_tpm_and_secure_boot(real: Real, tiny_image: Path, host: Host):
    """What the guest itself finds, with a kernel that drives all of it: Debian's generic one."""
    put(real, efi.make(tiny_image, KEPT / "test-guests", "generic"))
    result = real("up", real.file("m.yaml", manifest("windows.2k22")))
    assert result.code == 0, result.err
    log = real("logs", "web").out
    assert "locked down from EFI Secure Boot" in log and "LOOKED" in log, log[-3000:]
    assert said(real, "TPM ") == ["2"] and len(said(real, "TPMKEY")) == 1
    assert said(real, "NIC ") == ["e1000e"]
    assert said(real, "DISKS ") == ["/dev/sda /dev/sdb"]  # the seed is the second one
    assert "hello from" in (host.http(real.access(80)) or "")


def test_an_unsigned_loader_is_refused_and_said(real: Real, tiny_image: Path):
    put(real, efi.make(tiny_image, KEPT / "test-guests", "unsigned"))
    result = real("up", real.file("m.yaml", manifest("fedora")))
    assert result.code == 1 and "HK911" in result.err and "secure boot is on" in result.err
    assert "Access Denied" in result.err


def test_validated_by_libvirts_own_schema_and_bios_images_are_not_efi(real: Real, tiny_image: Path):
    result = real("up", real.file("m.yaml", manifest("fedora")))
    assert result.code == 1 and "HK901" in result.err
    folder = real.home / "out"
    text = manifest("windows.11.virtio").replace("u1.medium", "u1.large")
    assert real("render", real.file("m.yaml", text), "--to", folder).code == 0
    xml = folder / "default" / "web" / "domain.xml"
    done = subprocess.run(["virt-xml-validate", xml, "domain"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
