"""Every refusal and warning: its code at its place, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hikube_local.manifests.validate import Known, validate
from hikube_local.source.finding import Severity
from hikube_local.userdata import check as userdata
from tests.conftest import PAIR, disk, instance

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDqVtVJ3aLd2hxjvP0lPbnNVYbQO0x2o8yQmB3R8jv1y me"
BASE = {"instanceType": "u1.medium", "sshKeys": [KEY]}


@pytest.fixture
def check(tmp_path: Path):
    def run(text: str, namespace: str | None = None, for_plan: bool = False):
        path = tmp_path / "m.yaml"
        path.write_text(text)
        return validate([str(path)], namespace, "default", Known.nothing(), for_plan)

    return run


def codes(result, severity: Severity | None = None) -> list[str]:
    return [d.code for d in result.findings.items if severity is None or d.severity is severity]


def errors(result) -> list[str]:
    return codes(result, Severity.ERROR)


def test_a_good_pair_has_no_error_and_no_warning(check):
    result = check(PAIR)
    assert errors(result) == []
    assert codes(result, Severity.WARNING) == []
    assert [o.object.name for o in result.objects] == ["sys", "web"]


ERRORS = {
    "unknown type": ({"instanceType": "u1.huge"}, "HK302"),
    "unknown profile": ({"instanceProfile": "windows"}, "HK303"),
    "family of profiles": ({"instanceProfile": "centos"}, "HK303"),
    "unknown method": ({"external": True, "externalMethod": "Everything"}, "HK304"),
    "unknown strategy": ({"runStrategy": "Sometimes"}, "HK304"),
    "port zero": ({"external": True, "externalPorts": [0]}, "HK305"),
    "port too high": ({"external": True, "externalPorts": [65536]}, "HK305"),
    "port twice": ({"external": True, "externalPorts": [22, 22]}, "HK306"),
    "no ports": ({"external": True, "externalPorts": []}, "HK307"),
    "partial resources": ({"resources": {"cpu": "2"}}, "HK326"),
    "no size at all": ({"instanceType": "", "resources": {"cpu": "2", "memory": "4Gi"}}, "HK309"),
    "half a processor": ({"instanceType": "", "resources": {"cpu": "500m", "memory": "4Gi", "sockets": "1"}}, "HK308"),
    "memory that is none": ({"instanceType": "", "resources": {"cpu": "1", "memory": "4GB", "sockets": "1"}}, "HK308"),
    "below the profile": ({"instanceType": "u1.nano", "instanceProfile": "ubuntu"}, "HK310"),
    "windows on one vCPU": ({"instanceType": "u1.medium", "instanceProfile": "windows.11"}, "HK310"),
    "private key": ({"sshKeys": ["-----BEGIN OPENSSH PRIVATE KEY-----\nabc"]}, "HK314"),
    "key twice": ({"sshKeys": [KEY, KEY]}, "HK323"),
    "disk twice": ({"disks": ["a", "a"]}, "HK323"),
    "user-data of nothing but blank lines": ({"cloudInit": "\n\n"}, "HK335"),
    "a profile of another architecture": ({"instanceProfile": "fedora.arm64"}, "HK303"),
    "vCPUs that a profile cannot spread": (
        {"instanceProfile": "centos.stream8.dpdk", "instanceType": "u1.xlarge"},
        "HK310",
    ),
    "unknown bus": ({"disks": [{"name": "a", "bus": "ide"}]}, "HK304"),
    "quoted boolean": ({"external": "true"}, "HK205"),
    "number for text": ({"cloudInitSeed": 5}, "HK205"),
    "text for ports": ({"externalPorts": ["22"]}, "HK205"),
    "unknown field": ({"externalPort": [22]}, "HK204"),
    "retired systemDisk": ({"systemDisk": {"size": "5Gi"}}, "HK204"),
    "underscore": ({"_x": 1}, "HK204"),
    "less indented later": ({"cloudInit": "  #cloud-config\n hostname: x\n"}, "HK315"),
    "larger than a Secret": ({"cloudInit": "#cloud-config\n# " + "x" * (1 << 20)}, "HK327"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_hikube_refuses_is_refused(check, name):
    change, code = ERRORS[name]
    result = check(instance(**(BASE | change)))
    assert code in errors(result)


WARNINGS = {
    "placeholder key": ({"sshKeys": ["ssh-ed25519 AAAA... user@host"]}, "HK313"),
    "words for a key": ({"sshKeys": ["your-public-key-here"]}, "HK313"),
    "no header": ({"cloudInit": "hostname: my-vm"}, "HK316"),
    "users without default": ({"cloudInit": "#cloud-config\nusers: [{name: a}]\n"}, "HK317"),
    "ports with WholeIP": ({"external": True, "externalMethod": "WholeIP", "externalPorts": [22]}, "HK318"),
    "ports without external": ({"externalPorts": [22]}, "HK318"),
    "no way in": ({"sshKeys": []}, "HK325"),
    "disk nowhere": ({"disks": ["ghost"]}, "HK402"),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_validates_and_bites_is_a_warning(check, name):
    change, code = WARNINGS[name]
    result = check(instance(**(BASE | change)))
    assert errors(result) == []
    assert code in codes(result, Severity.WARNING)


HEADERS = {
    "\n\n#cloud-config\nhostname: a\n": True,
    "#Cloud-Config\nhostname: a\n": True,
    '#cloud-config-archive\n- content: "#!/bin/sh"\n': True,
    "Subject: a\nMIME-Version: 1.0\nContent-Type: text/plain\n\n#!/bin/sh\n": True,
    "## template: jinja\n#cloud-config\n{}\n": True,
    "## template:jinja\n#cloud-config\n{}\n": False,
    "# cloud-config\nhostname: a\n": False,
    "Content-Type: multipart/mixed\n\n": False,
}


@pytest.mark.parametrize("text", HEADERS)
def test_a_header_is_known_as_cloud_init_knows_it(check, text):
    """By `validate` and by `cloudinit check` alike."""
    told = codes(check(instance(**(BASE | {"cloudInit": text}))), Severity.WARNING)
    assert ("HK316" not in told) == HEADERS[text]
    alone = {n.code for n in userdata.check(text.encode(), keys_given=True)}
    assert alone.isdisjoint({"HK316", "HK344", "HK340"}) == HEADERS[text]


DISKS = {
    "size": ({"size": "100Gi"}, "HK204"),
    "two sources": ({"source": {"http": {"url": "https://a.b/c"}, "image": {"name": "debian-12"}}}, "HK311"),
    "unknown image": ({"source": {"image": {"name": "debain-12"}}}, "HK312"),
    "image without a public URL": ({"source": {"image": {"name": "cloudlinux-9"}}}, "HK312"),
    "ftp": ({"source": {"http": {"url": "ftp://a/b"}}}, "HK319"),
    "no url": ({"source": {"http": {}}}, "HK206"),
    "zero": ({"storage": "0"}, "HK322"),
    "no quantity": ({"storage": "30GB"}, "HK308"),
    "below the smallest": ({"source": {"image": {"name": "rocky-9"}}, "storage": "5Gi"}, "HK321"),
}


@pytest.mark.parametrize("name", DISKS)
def test_disks_that_hikube_refuses(check, name):
    change, code = DISKS[name]
    assert code in errors(check(disk(**change)))


def test_the_help_cures_copied_mistakes(check):
    result = check(disk(size="100Gi"))
    assert "storage" in result.findings.items[0].help


def test_shapes_of_the_documentation_are_taken(check):
    for spec in (
        {"disks": [{"name": "a"}]},
        {"disks": ["a"], "resources": {"cpu": "", "memory": ""}},
        {"disks": [{"name": "a", "bus": "sata"}], "runStrategy": "Always"},
        {"sshKeys": None, "cloudInit": None, "disks": None},
    ):
        assert errors(check(instance(**spec))) == []
    for spec in ({}, {"storage": 5368709120}, {"source": None}, {"source": {"upload": {}}}):
        assert errors(check(disk(**spec))) == []


def test_all_problems_are_told_at_once_with_their_places(check):
    result = check(
        PAIR.replace("u1.medium", "u1.tiny").replace("[22, 80]", "[22, 99999]").replace("storage: 5Gi", "storage: x")
    )
    found = {(d.code, d.place.line, d.place.column) for d in result.findings.items if d.severity is Severity.ERROR}
    assert found == {("HK308", 9, 12), ("HK302", 21, 17), ("HK305", 20, 23)}


def test_a_caret_points_at_the_value(check):
    result = check(PAIR.replace("u1.medium", "u1.tiny"))
    text = next(d for d in result.findings.items if d.code == "HK302").render().splitlines()
    assert text[1][text[2].index("^") :].startswith("u1.tiny")


KINDS = {
    "misspelt": ("apps.cozystack.io/v1alpha1", "VMInstanse", "HK202"),
    "wrong version": ("apps.cozystack.io/v1", "VMDisk", "HK203"),
    "wrong group": ("app.cozystack.io/v1alpha1", "VMInstance", "HK203"),
    "retired": ("apps.cozystack.io/v1alpha1", "VirtualMachine", "HK208"),
    "lower case": ("apps.cozystack.io/v1alpha1", "vmdisk", "HK202"),
    "cyrillic": ("\u0430pps.cozystack.io/v1alpha1", "VMDisk", "HK203"),
    "nothing of ours": ("apps.cozystack.io/v1alpha1", "Frobnicator", "HK202"),
}


@pytest.mark.parametrize("name", KINDS)
def test_near_misses_of_our_kinds_are_errors(check, name):
    version, kind, code = KINDS[name]
    assert errors(check(f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n")) == [code]


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("v1", "Secret"),
        ("v1", "Namespace"),
        ("apps.cozystack.io/v1alpha1", "Postgres"),
        ("apps.cozystack.io/v1alpha1", "VPN"),
        ("backups.cozystack.io/v1alpha1", "BackupJob"),
        ("kubevirt.io/v1", "VirtualMachine"),
        ("kubevirt.io/v1", "VirtualMachineInstance"),
    ],
)
def test_other_kinds_are_passed_over_with_a_line(check, version, kind):
    result = check(f"{PAIR}---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: other}}\nspec: {{}}\n")
    assert errors(result) == []
    assert [d.ref for d in result.findings.items if d.code == "HK207"] == [f"{kind}/other"]


def test_what_kubectl_printed_is_read(check):
    text = """
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: apps.cozystack.io/v1alpha1
  kind: VMDisk
  metadata:
    name: a
    namespace: tenant-x
    uid: 123
    managedFields: [{manager: kubectl}]
    creationTimestamp: "2026-01-01T00:00:00Z"
  spec: {storage: 1Gi}
  status: {phase: Ready}
"""
    result = check(text)
    assert errors(result) == []
    assert [(o.object.namespace, o.object.name) for o in result.objects] == [("tenant-x", "a")]


def test_an_objects_own_namespace_wins_unless_n_contradicts(check):
    text = PAIR.replace("name: sys\nspec", "name: sys\n  namespace: own\nspec").replace(
        "name: web\n", "name: web\n  namespace: own\n", 1
    )
    assert {o.object.namespace for o in check(text).objects} == {"own"}
    assert set(errors(check(text, namespace="other"))) == {"HK406"}


@pytest.mark.parametrize(
    ("name", "ok"),
    [("a", True), ("1a", False), ("A", False), ("a.b", False), ("a-", False), ("a" * 41, True), ("a" * 42, False)],
)
def test_names_of_machines(check, name, ok):
    result = check(instance(**BASE).replace('"web"', f'"{name}"'))
    assert (errors(result) == []) is ok


def test_a_disk_in_two_machines_is_refused(check):
    text = PAIR + "---\n" + PAIR.split("---\n")[1].replace("name: web\n", "name: web2\n")
    assert errors(check(text)) == ["HK403"]


def test_an_object_twice_is_refused(check):
    assert "HK401" in errors(check(PAIR + "---\n" + PAIR.split("---\n")[0]))


def test_a_missing_disk_is_an_error_for_plan(check):
    assert errors(check(instance(**BASE, disks=["ghost"]), for_plan=True)) == ["HK402"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("#cloud-config\npassword: s3cret\nchpasswd: {expire: false}\n", "HK330"),
        ("#cloud-config\nchpasswd:\n  list: |\n    a:s3cret\n", "HK330"),
        ("#cloud-config\nusers: [{name: a, plain_text_passwd: s3cret}]\n", "HK330"),
        ("#cloud-config\npassword: $6$abc$def\n", ""),
        ("#cloud-config\nruncmd:\n  - ufw --force enable\n  - ufw allow ssh\n", "HK329"),
        ("#cloud-config\nruncmd:\n  - ufw allow OpenSSH\n  - ufw --force enable\n", ""),
    ],
)
def test_traps_of_user_data_are_told_without_their_secrets(tmp_path, text, code):
    path = tmp_path / "m.yaml"
    path.write_text(instance(cloudInit=text, disks=[]))
    found = validate([str(path)], None, "default", Known.nothing()).findings.items
    codes = {d.code for d in found} & {"HK328", "HK329", "HK330"}
    assert codes == ({code} if code else set())
    assert not any("s3cret" in d.message for d in found)


def test_wholeip_wants_a_firewall_of_the_guests_own(tmp_path):
    path = tmp_path / "m.yaml"
    for text, told in (("", True), ("#!/bin/sh\ntrue\n", True), ("#!/bin/sh\nufw allow ssh\nufw enable\n", False)):
        path.write_text(instance(external=True, externalMethod="WholeIP", cloudInit=text))
        found = validate([str(path)], None, "default", Known.nothing()).findings.items
        assert ("HK328" in {d.code for d in found}) is told, text
