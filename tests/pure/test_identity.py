"""Identities of twenty machines by readers of the formula that share nothing with ours, and by what the chart literally does."""

from __future__ import annotations

import hashlib
import itertools
import json

import pytest
import yaml

from hikube_local.api import names
from hikube_local.api.objects import Object
from hikube_local.manifests.models import read_spec
from hikube_local.render import seed

NAMES = [
    ("default", "web"),
    ("default", "a"),
    ("tenant-prod", "db-1"),
    ("tenant-x", "n" * 41),
    ("kube-system", "x-y-z"),
]
SEEDS = ["", "1", "two words", "été"]
CASES = list(itertools.product(NAMES, SEEDS))
TEXTS = [
    "#cloud-config\npackages: [vim]\n",
    "#cloud-config\nwrite_files:\n  - content: |\n      a\n\n      b\n",
    "#!/bin/sh\necho 'hi'   \n\techo tab\n\n",
    "   #cloud-config\n   hostname: x\n",
    "#cloud-config\r\nhostname: y\r\n",
]


def uuid_of(namespace: str, name: str, value: str) -> str:
    """H[0:8]-H[8:12]-4H[13:16]-9H[17:20]-H[20:32], of the hex sha256 of NAMESPACE-vm-instance-NAME-SEED."""
    h = hashlib.new("sha256", "-".join([namespace, f"vm-instance-{name}", value]).encode("utf-8")).hexdigest()
    return "-".join([h[:8], h[8:12], "4" + h[13:16], "9" + h[17:20], h[20:32]])


@pytest.mark.parametrize(("who", "value"), CASES, ids=lambda v: str(v)[:30])
def test_uuid_and_meta_data_of_twenty_cases(who, value):
    namespace, name = who
    assert len(CASES) == 20
    assert names.firmware_uuid(namespace, name, value) == uuid_of(namespace, name, value)
    spec = read_spec("VMInstance", {"sshKeys": ["k <a&b>"], "instanceType": "u1.small", "cloudInitSeed": value})
    obj = Object(kind="VMInstance", namespace=namespace, name=name, spec=spec)
    raw = seed.meta_data(obj, uuid_of(namespace, name, value)).decode()
    assert json.loads(raw) == {
        "instance-type": "u1.small",
        "instance-id": uuid_of(namespace, name, value),
        "local-hostname": f"vm-instance-{name}"[:63],
        "public-keys": {"0": "k <a&b>"},
    }
    assert " " not in raw.replace("k ", "k_") and "\\u003ca\\u0026b\\u003e" in raw


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_user_data_is_what_the_chart_makes_of_it(text):
    """Helm's `indent 4` under `userdata: |`, read back by a YAML reader as Kubernetes has one."""
    indented = "\n".join("    " + line for line in text.splitlines()) + "\n"
    manifest = f"apiVersion: v1\nkind: Secret\nstringData:\n  userdata: |\n{indented}"
    carried = yaml.safe_load(manifest)["stringData"]["userdata"]
    obj = Object(kind="VMInstance", namespace="default", name="web", spec=read_spec("VMInstance", {"cloudInit": text}))
    assert seed.user_data(obj).decode() == carried
