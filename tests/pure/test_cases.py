"""Inputs after public bug reports and real files, each a class (shared/cases): what is found in each, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hikube_local.manifests.validate import Known, validate
from hikube_local.source.finding import Severity
from hikube_local.userdata import shell, template, whole
from hikube_local.userdata.check import check
from tests.conftest import Program, disk, instance

CORPUS = Path(__file__).parent.parent / "corpus"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDqVtVJ3aLd2hxjvP0lPbnNVYbQO0x2o8yQmB3R8jv1y me"
B64 = "H4sIAAAAAAACA0tUKEhMzk5NUUhKzMtLLeLKT1MoKc9XyMnMSy3mAgCiwPieHQAAAA=="


def mime(*parts: str, header: str = "") -> str:
    body = "".join(f"--B\nContent-Type: text/cloud-config\n{header}\n#cloud-config\n{p}" for p in parts)
    return f'Content-Type: multipart/mixed; boundary="B"\nMIME-Version: 1.0\n\n{body}--B--\n'


def files(content: str, **more: str) -> str:
    rows = "".join(f"    {k}: {v}\n" for k, v in more.items())
    return f"#cloud-config\nwrite_files:\n  - path: /x\n{rows}    content: {content}\n"


# name: (user-data, the errors and warnings by (code, line)); what stands beside as a note does not matter here.
CLASSES: dict[str, tuple[str, set[tuple[str, int]]]] = {
    "C1 a user's keys with dashes": (
        f"#cloud-config\nusers:\n  - name: a\n    lock-passwd: false\n    ssh-authorized_keys: [{KEY}]\n",
        set(),
    ),
    "C1 a dashed key that is none": (
        "#cloud-config\nusers:\n  - default\n  - {name: a, lock-paswd: false}\n",
        {("HK341", 4)},
    ),
    "C2 a quote cut off by YAML": ("#cloud-config\nruncmd:\n  - echo ' # x' > /y\n", {("HK358", 3)}),
    "C2 a comment behind a whole command": ("#cloud-config\nruncmd:\n  - echo 'x' # y\n", set()),
    "C2 an apostrophe in a comment": ("#cloud-config\nruncmd:\n  - echo x # don't\n", set()),
    "C3 a template that jinja refuses": (
        '## template: jinja\n#cloud-config\nruncmd:\n  - echo "${#a[@]}"\n',
        {("HK340", 4)},
    ),
    "C3 raw": ('## template: jinja\n#cloud-config\nruncmd:\n  - echo "{% raw %}${#a[@]}{% endraw %}"\n', set()),
    "C3 lines glued by trim_blocks": (
        "## template: jinja\n#cloud-config\npackages:\n{%- for p in ['a', 'b'] %}\n  - {{ p }}\n{%- endfor %}\n",
        {("HK340", 1)},
    ),
    "C3 a loop over what only the machine knows": (
        "## template: jinja\n#cloud-config\nssh_authorized_keys:\n{% for k in ds.meta_data.keys %}\n  - {{ k }}\n{% endfor %}\n",
        set(),
    ),
    "C4 base64 that is none": (files("abc", encoding="b64"), {("HK340", 5)}),
    "C4 base64": (files("aGk=", encoding="base64"), set()),
    "C4 gzip in base64": (files(B64, encoding="gz+b64"), set()),
    "C4 base64 that is no gzip": (files("aGk=", encoding="gz+b64"), {("HK340", 5)}),
    "C4 !!binary that is none": (files("!!binary abc"), {("HK340", 4)}),
    "C5 a later part's list takes an earlier one's place": (
        mime("runcmd: [a]\n", "runcmd: [b]\n"),
        {("HK357", 8)},
    ),
    "C5 a merge type says otherwise": (
        mime("runcmd: [a]\n", "runcmd: [b]\n", header="X-Merge-Type: list(append)+dict(recurse_array)+str()\n"),
        set(),
    ),
    "C5 merge_how says otherwise": (
        mime("runcmd: [a]\n", "merge_how: [{name: list, settings: [append]}]\nruncmd: [b]\n"),
        set(),
    ),
    "C5 the same twice": (mime("hostname: a\n", "hostname: a\n"), set()),
    "C5 an archive": (
        "#cloud-config-archive\n- |\n  #cloud-config\n  runcmd: [a]\n- |\n  #cloud-config\n  runcmd: [b]\n",
        {("HK357", 4)},
    ),
    "C5 users and keys in two parts": (
        mime(
            "users:\n  - name: a\n",
            f"write_files:\n  - path: /home/a/.ssh/authorized_keys\n    defer: true\n    content: {KEY}\n",
        ),
        set(),
    ),
    "C6 switches": (
        "#cloud-config\nssh_pwauth: 0\ndisable_root: 'no'\npackage_update: 1\ngrowpart: {mode: 'off'}\nresize_rootfs: 'yes'\n",
        set(),
    ),
    "C6 no switch": ("#cloud-config\ngrowpart: {mode: maybe}\n", {("HK342", 2)}),
    "C7 a raw disk": (
        "#cloud-config\nfs_setup:\n  - {device: /dev/vdb, filesystem: xfs, partition: none}\n",
        {("HK360", 3)},
    ),
    "C7 overwrite": (
        "#cloud-config\nfs_setup:\n  - {device: /dev/vdb, filesystem: xfs, overwrite: true}\n",
        {("HK360", 3)},
    ),
    "C7 auto": ("#cloud-config\nfs_setup:\n  - {device: /dev/vdb, filesystem: xfs, partition: auto}\n", set()),
    "C8 a group of a user's name": ("#cloud-config\ngroups: [app]\nusers: [default, {name: app}]\n", {("HK359", 2)}),
    "C8 a group of the default user's name": ("#cloud-config\ngroups:\n  - debian: [root]\n", {("HK359", 3)}),
    "C8 a primary group": ("#cloud-config\ngroups: [app]\nusers: [default, {name: app, primary_group: app}]\n", set()),
    "C8 another group": ("#cloud-config\ngroups: [docker]\nusers: [default, {name: app}]\n", set()),
    "C9 empty items": ("#cloud-config\nruncmd:\n  - # first\n  - ls\n  - ~\n", set()),
    "C10 items that are no commands": ("#cloud-config\nbootcmd:\n  - 5\n", {("HK345", 3)}),
    "C11 the own name": ("#cloud-config\nhostname: box\nfqdn: box.local\n", set()),
    "C11 the own name, looked up": ("#cloud-config\nfqdn: box.local\nruncmd:\n  - ping -c1 box.local\n", set()),
    "C11 the text of a sed": ("#cloud-config\nruncmd:\n  - sed -i s/a.local/b.local/ /etc/x\n", set()),
    "C11 a look-up": ("#cloud-config\nruncmd:\n  - curl http://db.local/\n", {("HK351", 3)}),
    "C11 another host's folder": ("#cloud-config\nmounts:\n  - [nas.local:/srv, /srv, nfs]\n", {("HK351", 3)}),
    "C11 a time server": ("#cloud-config\nntp:\n  servers:\n    - time.local\n", {("HK351", 4)}),
    "C13 keys by a file": (
        f"#cloud-config\nusers: [{{name: a}}]\nwrite_files:\n  - path: /home/a/.ssh/authorized_keys\n    defer: true\n    content: {KEY}\n",
        set(),
    ),
    "C13 keys in a comment": ("#cloud-config\n# /authorized_keys\nusers: [{name: a}]\n", {("HK317", 3)}),
    "C14 a list with a shell's words": ("#cloud-config\nruncmd:\n  - [echo, a, '>', /b]\n", {("HK361", 3)}),
    "C14 a list with a star": ("#cloud-config\nruncmd:\n  - [rm, -f, /etc/x/*]\n", {("HK361", 3)}),
    "C14 a list that runs a shell": ("#cloud-config\nruncmd:\n  - [sh, -c, 'echo a > /b']\n", set()),
    "C14 a star for the program itself": ("#cloud-config\nruncmd:\n  - [find, /srv, -name, '*.x']\n", set()),
    "C16 deprecated below the top": ("#cloud-config\nchpasswd: {list: ['a:$6$x$y']}\n", {("HK343", 2)}),
    "C16 newer below the top": (
        "#cloud-config\nwrite_files:\n  - {path: /x, source: {uri: 'https://a.example/b'}}\n",
        {("HK343", 3)},
    ),
    "C16 a newer type": ("#cloud-config\npackages:\n  - {apt: [nginx]}\n", {("HK343", 3)}),
    "C17 CR LF": ("#cloud-config\r\nhostname: a\r\nruncmd:\r\n  - |\r\n    ls\r\n", set()),
    "C18 ufw with another port": (
        "#cloud-config\nwrite_files:\n  - path: /etc/ssh/sshd_config.d/p.conf\n    content: |\n      Port 2222\n"
        "runcmd:\n  - ufw allow 2222/tcp\n  - ufw --force enable\n",
        set(),
    ),
    "C18 another port, the wrong one let in": (
        "#cloud-config\nwrite_files:\n  - path: /etc/ssh/sshd_config.d/p.conf\n    content: |\n      Port 2222\n"
        "runcmd:\n  - ufw allow 80/tcp\n  - ufw --force enable\n",
        {("HK329", 8)},
    ),
    "C18 a range": ("#!/bin/sh\nufw allow 20:30/tcp\nufw enable\n", set()),
    "C18 from a network": ("#!/bin/sh\nufw allow from 192.0.2.0/24\nufw enable\n", set()),
    "C18 a loop": ("#!/bin/sh\nfor p in 22 80; do ufw allow $p/tcp; done\nufw enable\n", set()),
}


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_is_told_at_its_line_and_nothing_else(name):
    text, expected = CLASSES[name]
    found = {(n.code, n.line) for n in check(text.encode()) if n.severity is not Severity.DIFFERENCE}
    assert found == expected


@pytest.mark.parametrize("path", sorted((CORPUS / "good").iterdir()), ids=lambda p: p.name)
def test_a_good_file_gets_no_error_and_no_warning(path):
    found = [n for n in check(path.read_bytes()) if n.severity is not Severity.DIFFERENCE]
    assert not found, [(n.code, n.line, n.message) for n in found]


@pytest.mark.parametrize("path", sorted((CORPUS / "told").iterdir()), ids=lambda p: p.name)
def test_what_is_wrong_with_a_file_is_told(path):
    expected = set(path.read_text().split("# expect: ", 1)[1].splitlines()[0].split())
    assert {n.code for n in check(path.read_bytes()) if n.severity is not Severity.DIFFERENCE} == expected


def test_the_corpus_is_large():
    assert len(list((CORPUS / "good").iterdir())) >= 100


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ("echo 'a", True),
        ("echo 'a'", False),
        ('echo "a', True),
        ("echo it\\'s", False),
        ('echo "it\'s"', False),
        ("a # 'b", False),
        ("echo $(date", False),
        ("x=`date", True),
        ("echo 'a\\'", False),
        ("echo a#'b'", False),
    ],
)
def test_quotes_are_read_as_a_shell_reads_them(text, opened):
    assert shell.open_quote(text) is opened


def test_a_strangers_template_is_not_run_for_long():
    loops = "## template: jinja\n#cloud-config\n{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}\n"
    assert template.rendered(loops) is None and template.refused(loops) is None
    for hostile in (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% set x = cycler.__init__.__globals__.os.popen('id') %}",
    ):
        shown = template.rendered(f"## template: jinja\n#cloud-config\nhostname: {hostile}\n")
        assert shown is None or ("uid=" not in shown and "<class" not in shown)


@pytest.mark.parametrize(
    ("disks", "text", "found"),
    [
        (["sys"], "mounts: [[/dev/vdb, /data]]", True),
        (["sys", "data"], "mounts: [[/dev/vdb, /data]]", False),
        (["sys", "data"], "mounts: [[/dev/vdc1, /data]]", True),
        (["sys"], "mounts: [[/dev/vdz, /data]]", True),
        (["sys"], "# /dev/vdb", False),
        (["sys"], "mounts: [[/dev/vda1, /data]]", False),
        (["sys"], "mounts: [[/dev/sda1, /data]]", False),
    ],
)
def test_a_device_that_is_the_seed_is_told(hikube: Program, disks, text, found):
    """C20: with one disk /dev/vdb is the cloud-init seed."""
    path = hikube.file("m.yaml", instance(disks=disks, sshKeys=[KEY], cloudInit=f"#cloud-config\n{text}\n"))
    assert ("HK362" in hikube("validate", path).out) is found


def test_what_kubectl_prints_is_taken(hikube: Program):
    """C22: get -o yaml of the platform has appVersion at the top; a Windows shell writes UTF-16."""
    text = instance(disks=["sys"], sshKeys=[KEY]).replace('"spec"', '"appVersion": "0.4.0", "status": {}, "spec"')
    assert hikube("validate", hikube.file("k.json", text)).code == 0
    for encoding in ("utf-16-le", "utf-16-be"):
        path = hikube.folder / f"{encoding}.json"
        path.write_bytes(("\ufeff" + text).encode(encoding))
        assert hikube("validate", path).code == 0


def test_cloud_init_as_a_mapping_says_how_it_is_written(hikube: Program):
    """C23."""
    path = hikube.file("m.yaml", instance(disks=["sys"], cloudInit={"write_files": []}))
    found = next(f for f in hikube("validate", path, "-o", "json").json if f["code"] == "HK205")
    assert "cloudInit: |" in found["help"]


def test_what_convert_gives_is_valid(hikube: Program):
    """C24: resources.requests of the retired kind."""
    old = """\
        apiVersion: apps.cozystack.io/v1alpha1
        kind: VirtualMachine
        metadata: {name: test}
        spec:
          domain: {cpu: {cores: "1"}}
          resources: {requests: {cpu: "2", memory: 4Gi}}
          instanceType: ""
          systemDisk: {image: ubuntu, storage: 5Gi}
        """
    result = hikube("convert", hikube.file("old.yaml", old))
    assert result.code == 0
    checked = hikube("validate", "-", "-o", "json", input=result.out)
    assert not [f for f in checked.json if f["severity"] == "error"], checked.out
    assert "memory: 4Gi" in result.out and "requests" in result.err


def test_kubevirts_own_machine_is_not_converted_in_silence(hikube: Program):
    path = hikube.file("vm.yaml", "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: a}\n")
    result = hikube("convert", path)
    assert result.code == 2 and "KubeVirt" in result.err


def test_a_cd_may_be_in_two_machines(hikube: Program):
    """KubeVirt attaches a read-only volume to as many machines as like."""
    cd = disk(optical=True, source={"http": {"url": "https://example.org/a.iso"}}).replace('"sys"', '"cd"')
    one = instance(disks=["a", "cd"], sshKeys=[KEY])
    two = one.replace('"web"', '"db"').replace('"a"', '"b"')
    disks = [disk().replace('"sys"', f'"{n}"') for n in ("a", "b")]
    text = "\n---\n".join([cd, *disks, one, two])
    assert hikube("validate", hikube.file("cd.yaml", text)).code == 0
    assert (
        "HK403" in hikube("validate", hikube.file("rw.yaml", text.replace('"optical": true', '"optical": false'))).out
    )


def test_two_objects_of_one_uuid_are_refused(hikube: Program):
    """A2: the platform's formula joins namespace and name by a dash."""

    def machine(namespace: str, name: str) -> str:
        return instance(disks=[], sshKeys=[KEY]).replace(
            '"name": "web"', f'"name": "{name}", "namespace": "{namespace}"'
        )

    text = machine("x-vm-instance-y", "z") + "\n---\n" + machine("x", "y-vm-instance-z")
    result = hikube("validate", hikube.file("u.yaml", text))
    assert result.code == 2 and "HK407" in result.out and "x-vm-instance-y" in result.out
    assert validate([str(hikube.folder / "u.yaml")], None, "default", Known.nothing()).findings.failed


@pytest.mark.parametrize(
    "hostile",
    [
        "a: {{ 9**(9**9) }}",
        "{% for a in range(99999) %}{{ a ~ 'x'*100000 }}{% endfor %}",
        "{% set x = 'x' * 9000000 %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}",
        "a: {{ 'x' | center(99999999999) }}",
    ],
)
def test_a_template_is_rendered_within_bounds(hostile: str):
    """Neither numbers nor texts nor filters are bounded by jinja's sandbox: the process is."""
    assert template.rendered(f"## template: jinja\n#cloud-config\n{hostile}\n") is None


@pytest.mark.parametrize(
    "text, how",
    [
        ("power_state: {mode: reboot}\n", "reboot"),
        ("power_state: {mode: poweroff, delay: now, message: bye}\n", "poweroff"),
        ("power_state: {mode: halt, delay: '+1'}\n", "halt"),
        ("power_state: {mode: reboot, delay: 30}\n", ""),
        ("power_state: {mode: reboot, condition: false}\n", ""),
        ("power_state: {delay: now}\n", ""),
        ("runcmd:\n- [systemctl, daemon-reload]\n- reboot\n", "reboot"),
        ("runcmd:\n- /sbin/shutdown -r now\n", "reboot"),
        ("runcmd:\n- systemctl poweroff\n", "poweroff"),
        ("runcmd:\n- touch /var/run/reboot-required\n- ./reboot.sh\n", ""),
        ("runcmd:\n- [shutdown, -r, now]\n- [echo, reboot]\n", "reboot"),
        ("runcmd:\n- cd / && sudo reboot\n", "reboot"),
        ("runcmd:\n- shutdown now\n", "poweroff"),
        ("runcmd:\n- shutdown -r +60\n", ""),
        ("runcmd:\n- echo please reboot later\n- '# reboot'\n- systemctl mask poweroff\n", ""),
        ("power_state: {mode: reboot, delay: '²'}\n", ""),
        ("packages: [curl]\n", ""),
    ],
)
def test_how_a_first_boot_ends_is_known_before_it_begins(text: str, how: str):
    """C15: what is waited for after cloud-init is done."""
    found = whole.ending(f"#cloud-config\n{text}")
    assert (found.how if found else "") == how
