"""Every profile's domain XML is valid by libvirt's own schema."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hikube_local.api.objects import Object
from hikube_local.catalogue import data
from hikube_local.manifests.models import read_spec
from hikube_local.render import domain, machine


@pytest.mark.skipif(
    not shutil.which("virt-xml-validate"), reason="virt-xml-validate (libvirt-clients) is not installed"
)
@pytest.mark.parametrize("profile", data.profiles())
def test_libvirts_schema_takes_it(profile: str, tmp_path: Path):
    disks = ["sys", {"name": "data", "bus": "scsi"}, {"name": "late", "bus": "virtio", "hotpluggable": True}, "cd"]
    spec = {"instanceProfile": profile, "instanceType": "u1.large", "disks": disks, "networks": [{"name": "back"}]}
    body = {**spec, "cloudInit": "#cloud-config\n", "firmware": {"efiPersistent": True}}
    body |= {"cpuModel": "Haswell"} if profile == "ubuntu" else {}
    obj = Object(kind="VMInstance", namespace="default", name="web", spec=read_spec("VMInstance", body))
    path = tmp_path / "domain.xml"
    path.write_text(domain.domain(machine.portable(obj, {"cd": True})))
    done = subprocess.run(["virt-xml-validate", path, "domain"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
