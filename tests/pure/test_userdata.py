"""A gallery of user-data, good and bad: what `cloudinit check` finds in each, at which line."""

from __future__ import annotations

import base64
import gzip
import re
from unittest import mock

import pytest
import yaml

from hikube_local.catalogue import data
from hikube_local.userdata import parts, requested, shell, tree
from hikube_local.userdata.check import check
from tests.conftest import EXAMPLES, Program, instance
from tests.growth import is_linear

MIME = 'Content-Type: multipart/mixed; boundary="b"\nMIME-Version: 1.0\n\n--b\nContent-Type: text/cloud-config\n'
# name: (user-data, {(code, line)}) - all that is found, no more.
GALLERY: dict[str, tuple[str, set[tuple[str, int]]]] = {
    "good": (
        "#cloud-config\npackage_update: true\nusers: [default]\nruncmd:\n  - set -e\n  - systemctl enable x\n",
        {("HK350", 2)},
    ),
    "script": ("#!/bin/sh\necho hello\n", set()),
    "boothook": ("#cloud-boothook\n#!/bin/sh\necho hi\n", set()),
    "header alone": ("#cloud-config\n", {("HK316", 1)}),
    "no header": ("hostname: my-vm\n", {("HK316", 1)}),
    "header with a blank": ("# cloud-config\npackages: [vim]\n", {("HK344", 1)}),
    "header with an underscore": ("#cloud_config\nhostname: x\n", {("HK344", 1)}),
    "header glued": ("#cloudconfig\nhostname: x\n", {("HK344", 1)}),
    "upper case header": ("#Cloud-Config\nhostname: x\n", set()),
    "lost line breaks": ("#cloud-config packages: [vim] runcmd: [ls]\n", {("HK355", 1), ("HK316", 1)}),
    "unknown key": ("#cloud-config\npackage: [vim]\n", {("HK341", 2)}),
    "a key of another level": ("#cloud-config\nusers:\n  - default\n  - name: a\n    ssh_key: x\n", {("HK341", 5)}),
    "text for a list": ("#cloud-config\nruncmd: echo hi\n", {("HK342", 2)}),
    "a mapping for a list": ("#cloud-config\nwrite_files:\n  path: /x\n  content: y\n", {("HK342", 3)}),
    "a file without a path": ("#cloud-config\nwrite_files:\n  - content: y\n", {("HK342", 3)}),
    "an unknown encoding": (
        "#cloud-config\nwrite_files:\n  - {path: /x, content: y, encoding: bas64}\n",
        {("HK342", 3)},
    ),
    "echo with a colon": ("#cloud-config\nruncmd:\n  - echo: hi\n", {("HK345", 3)}),
    "false and true": ("#cloud-config\nruncmd: [false, true]\n", {("HK345", 2), ("HK346", 2)}),
    "hidden failure": ("#cloud-config\nruncmd:\n  - mkdir /x/y\n  - echo done\n", {("HK346", 3)}),
    "octal argument": ("#cloud-config\nruncmd:\n  - [chmod, 0755, /x]\n", {("HK353", 3)}),
    "yes for a name": ("#cloud-config\nhostname: yes\n", {("HK342", 2)}),
    "decimal mode": ("#cloud-config\nwrite_files:\n  - path: /x\n    permissions: 644\n", {("HK347", 4)}),
    "octal mode": ("#cloud-config\nwrite_files:\n  - path: /x\n    permissions: 0644\n", {("HK347", 4)}),
    "quoted mode": ("#cloud-config\nwrite_files:\n  - path: /x\n    permissions: '0644'\n", set()),
    "owner too early": (
        "#cloud-config\nusers: [default, {name: app, sudo: null}]\nwrite_files:\n  - {path: /srv/x, owner: 'app:app'}\n",
        {("HK348", 4)},
    ),
    "owner deferred": (
        "#cloud-config\nusers: [default, {name: app}]\nwrite_files:\n  - {path: /srv/x, owner: app, defer: true}\n",
        set(),
    ),
    "home too early": (
        "#cloud-config\nusers: [default, {name: app}]\nwrite_files:\n  - path: /home/app/.profile\n",
        {("HK348", 4)},
    ),
    "a home that nobody's user has": ("#cloud-config\nwrite_files:\n  - path: /home/shared/x\n", set()),
    "users without default": ("#cloud-config\nusers:\n  - name: app\n", {("HK317", 3)}),
    "no users at all": ("#cloud-config\nusers: []\n", {("HK317", 2)}),
    "users as text": ("#cloud-config\nusers: app\n", {("HK317", 2)}),
    "users by default": ("#cloud-config\nusers: default\n", set()),
    "chpasswd that sets none": ("#cloud-config\nusers: [{name: a}]\nchpasswd: {expire: false}\n", {("HK317", 2)}),
    "include of nothing": ("#include\n", {("HK316", 1)}),
    "upstart": ("#upstart-job\nx\n", {("HK343", 1)}),
    "users with a key": ("#cloud-config\nusers:\n  - name: app\n    ssh_authorized_keys: [k]\n", {("HK313", 4)}),
    "packages alone": ("#cloud-config\npackages: [nginx]\n", {("HK349", 2), ("HK350", 2)}),
    "a name under .local": ("#cloud-config\nruncmd:\n  - ping vm-instance-db.default.svc.cozy.local\n", {("HK351", 3)}),
    "a password where a hash is wanted": (
        "#cloud-config\nusers:\n  - default\n  - {name: a, passwd: s3cret, lock_passwd: false}\n",
        {("HK330", 3)},
    ),
    "password in clear": ("#cloud-config\npassword: s3cret\nchpasswd: {expire: false}\n", {("HK330", 2)}),
    "no final words": ("#cloud-config\nfinal_message: ''\n", {("HK352", 2)}),
    "CRLF, which cloud-init mends": ("#!/bin/sh\r\necho hi\r\n", set()),
    "CRLF below the first line": ("#!/bin/sh\necho hi\r\n", {("HK354", 1)}),
    "ufw first": ("#cloud-config\nruncmd:\n  - ufw --force enable && ufw allow ssh\n", {("HK329", 3)}),
    "broken YAML": ("#cloud-config\nruncmd:\n  - a\n - b\n", {("HK340", 4)}),
    "a list at the top": ("#cloud-config\n- a\n", {("HK340", 2)}),
    "a key twice": ("#cloud-config\nhostname: a\nhostname: b\n", {("HK104", 3)}),
    "a tab": ("#cloud-config\nruncmd:\n\t- a\n", {("HK340", 3)}),
    "deprecated": ("#cloud-config\napt_update: true\n", {("HK343", 2), ("HK350", 2)}),
    "downloads": ("#cloud-config\nruncmd:\n  - curl -fsSL https://get.docker.com | sh\n", {("HK350", 3)}),
    "local download": ("#cloud-config\nruncmd:\n  - curl -s http://localhost:8080/\n", set()),
    "include": ("#include\nhttps://example.org/user-data\n", {("HK350", 2)}),
    "jinja": ("## template: jinja\n#cloud-config\nhostname: '{{ v1.region }}'\n", {("HK356", 1)}),
    "archive": (
        "#cloud-config-archive\n- type: text/cloud-config\n  content: |\n    #cloud-config\n    package: [x]\n",
        {("HK341", 5)},
    ),
    "binary content": ("#cloud-config\nwrite_files:\n  - {path: /x, content: !!binary aGk=}\n", set()),
    "helper keys": ("#cloud-config\nx-one: &one [vim]\nhostname: h\n", set()),
    "two documents": ("#cloud-config\nhostname: a\n---\nhostname: b\n", {("HK340", 4)}),
    "byte order mark": ("\ufeff#cloud-config\nhostname: a\n", {("HK344", 1), ("HK316", 1)}),
    "files that end in .local": ("#!/bin/sh\ncp /etc/fail2ban/jail.local /etc/rc.local .env.local\n", set()),
    "the documented cure": (
        "#!/bin/sh\necho 'Domains=cozy.local ~local' > /etc/x.network\nping vm-instance-db.default.svc.cozy.local\n",
        set(),
    ),
    "ufw in a comment": ("#!/bin/sh\n# do not run ufw enable here\ntrue\n", set()),
    "curl as a package": ("#cloud-config\npackage_update: true\npackages:\n  - curl\n", {("HK350", 2), ("HK350", 3)}),
    "errexit": ("#cloud-config\nruncmd:\n  - set -o errexit\n  - mkdir /a/b\n", set()),
    "a hash": ("#cloud-config\nchpasswd: {users: [{name: a, password: $6$x$y}]}\n", set()),
    "a password of chpasswd.users": (
        "#cloud-config\nchpasswd:\n  users:\n    - {name: a, password: s3cret, type: text}\n",
        {("HK330", 3)},
    ),
    "an archive's part without a header": ("#cloud-config-archive\n- content: |\n    runcmd: ls\n", {("HK342", 3)}),
    "MIME": (
        'Content-Type: multipart/mixed; boundary="b"\nMIME-Version: 1.0\n\n--b\nContent-Type: text/cloud-config\n\n'
        "#cloud-config\nruncmd: ls\n--b--\n",
        {("HK342", 8)},
    ),
    "MIME in base64": (
        MIME + "Content-Transfer-Encoding: base64\n\nI2Nsb3VkLWNvbmZpZwpydW5jbWQ6IGxzCg==\n--b--\n",
        {("HK342", 8)},
    ),
    "MIME, two alike": (
        MIME
        + "\n#cloud-config\nhostname: a\n--b\nContent-Type: text/cloud-config\n\n#cloud-config\nruncmd: ls\n--b--\n",
        {("HK342", 13)},
    ),
    "MIME with another boundary": (
        MIME.replace("--b\n", "--c\n") + "\n#cloud-config\nruncmd: ls\n--c--\n",
        {("HK340", 1)},
    ),
    "MIME of a type that nobody takes": (
        MIME.replace("text/cloud-config", "text/yaml") + "\n#cloud-config\nruncmd: [ls]\n--b--\n",
        {("HK344", 7)},
    ),
    "MIME with a gzip": (
        MIME.replace("text/cloud-config", "application/gzip")
        + "Content-Transfer-Encoding: base64\n\n"
        + base64.b64encode(gzip.compress(b"#cloud-config\nruncmd: ls\n", mtime=0)).decode()
        + "\n--b--\n",
        {("HK342", 8)},
    ),
    "MIME as cloud-init's own tool writes it": (
        "From nobody Thu Jan  1 00:00:00 1970\n" + MIME + "\n#cloud-config\nruncmd: ls\n--b--\n",
        {("HK342", 9)},
    ),
    "MIME without its version": (MIME.replace("MIME-Version: 1.0\n", "") + "\n#cloud-config\n--b--\n", {("HK340", 1)}),
    "MIME with a handler of its own": (
        MIME.replace("text/cloud-config", "text/part-handler")
        + "\n#part-handler\n--b\nContent-Type: text/mine\n\nx\n--b--\n",
        set(),
    ),
    "a template": (
        "## template: jinja\n#cloud-config\nhostname: {{ v1.instance_id }}\n{% if x %}\nruncmd:\n  - echo: hi\n{% endif %}\n",
        {("HK356", 1), ("HK345", 6)},
    ),
    "a template whose values are not known": (
        "## template: jinja\n#cloud-config\nruncmd: {{ commands }}\nbootcmd: {{ x }}\n",
        {("HK356", 1)},
    ),
    "a locked password": (
        "#cloud-config\nusers:\n  - {name: a, passwd: $6$x$y}\n",
        {("HK317", 3)},
    ),
    "a password that opens": (
        "#cloud-config\nusers:\n  - {name: a, passwd: $6$x$y, lock_passwd: false}\n",
        set(),
    ),
    "a placeholder for a key": (
        "#cloud-config\nusers:\n  - name: a\n    ssh_authorized_keys:\n      - ssh-rsa AAAAB3NzaC1yc2E...\n",
        {("HK313", 5)},
    ),
    "a private key": (
        "#cloud-config\nssh_authorized_keys:\n  - |\n    -----BEGIN OPENSSH PRIVATE KEY-----\n    abc\n",
        {("HK314", 3)},
    ),
    "a command as a list": ("#cloud-config\nruncmd:\n  - [git, clone, 'https://a.b/c', /srv]\n", {("HK350", 3)}),
}


# What Hikube's own pages show, and what bites in it; needs the internet: HK350.
PAGES = {
    "12-fragment-cloud-init": {("HK313", 15), ("HK350", 16), ("HK349", 17), ("HK346", 26)},
    "06-production": {("HK317", 51), ("HK313", 54), ("HK350", 55), ("HK349", 56), ("HK346", 60)},
    "01-vm-example": {("HK316", 33)},
}


@pytest.mark.parametrize("name", PAGES)
def test_the_user_data_of_hikubes_pages(name, hikube):
    path = EXAMPLES / "hikube-docs" / f"{name}.yaml"
    rows = hikube("cloudinit", "check", path, "-o", "json").json
    assert {(r["code"], r["line"]) for r in rows} == PAGES[name]


@pytest.mark.parametrize("name", GALLERY)
def test_what_is_found_in_each(name):
    text, expected = GALLERY[name]
    assert {(n.code, n.line) for n in check(text.encode())} == expected


def test_the_table_is_whole():
    table = data.cloudinit()
    assert len(table["keys"]) > 100
    stages = {m for modules in table["modules"].values() for m in modules}
    for name in ("runcmd", "write_files", "packages", "users", "chpasswd", "ntp"):
        assert table["keys"][name]["module"] in stages
    for row in table["keys"].values():
        assert row["type"] and set(row["type"]) <= {"array", "object", "string", "boolean", "integer", "number", "null"}


def test_gzip_is_looked_into_and_damage_is_told():
    raw = gzip.compress(b"#cloud-config\nruncmd: ls\n")
    assert [n.code for n in check(raw)] == ["HK342"]
    assert [n.code for n in check(raw[:-6])] == ["HK340"]
    head, rest = gzip.compress(b"#cloud-config\n"), gzip.compress(b"runcmd: ls\n")
    assert [n.code for n in check(head + rest)] == ["HK342"], "all of its members"
    assert [n.code for n in check(head + rest[:-6])] == ["HK340"]
    assert [n.code for n in check(b"#cloud-config\n\xff\n")] == ["HK340"]


def test_many_commands_take_no_longer_each():
    """By the work that is done, not by a clock: no scalar is read as a document of its own."""
    text = "#cloud-config\nruncmd:\n" + "".join(f"  - echo {n}\n" for n in range(20_000))
    with mock.patch.object(yaml, "safe_load", side_effect=AssertionError):
        assert {n.code for n in check(text.encode())} == {"HK346"}


@pytest.fixture
def hikube(tmp_path):
    return Program(tmp_path / "home")


def test_places_are_lines_of_the_manifest(hikube: Program):
    text = """\
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {name: web}
spec:
  disks: [{name: sys}]
  sshKeys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ a@b"]
  cloudInit: |
    #cloud-config

    users:
      - name: app
    runcmd:
      - echo: hi
"""
    path = hikube.file("m.yaml", text)
    result = hikube("cloudinit", "check", path, "-o", "json")
    assert result.code == 2
    rows = {(r["code"], r["line"], r["column"]) for r in result.json}
    assert rows == {("HK317", 11, 7), ("HK345", 13, 9)}
    assert all(r["object"] == "VMInstance/web" and r["file"] == str(path) for r in result.json)
    shown = hikube("cloudinit", "check", path, env={"GITHUB_ACTIONS": "true"})
    assert f"::error file={path},line=13::" in shown.err and "::error" not in shown.out
    mime = 'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/cloud-config\n'
    body = f"{mime}\n#cloud-config\nruncmdd: [a]\n--b--\n"
    carried = instance(disks=["sys"], cloudInit=body)
    for raw in (body, body.replace("\n", "\r\n") + "kind: x\r\n", carried, "<stdin>"):
        given = hikube.file("mime", raw) if raw != "<stdin>" else "-"
        found = hikube("cloudinit", "check", given, input=carried if given == "-" else None)
        assert found.code == 2 and "'runcmdd' is not a key" in found.out and "HK112" not in found.out, found.out
    assert re.search(r"m\.yaml:13:9: error\[HK345\]", shown.out) and "own table" in shown.err
    assert hikube("cloudinit", "check", hikube.file("good", "#cloud-config\npackages: [x]\n")).code == 0
    assert hikube("cloudinit", "check", "--strict", hikube.file("good", "#cloud-config\npackages: [x]\n")).code == 0
    assert hikube("cloudinit", "check", "--strict", hikube.file("bad", "#cloud-config\napt_update: true\n")).code == 2
    assert hikube("cloudinit", "check", hikube.home / "nowhere").code == 2


def test_the_seed_is_shown_and_two_are_compared(hikube: Program, tmp_path):

    one = instance(disks=["sys"], cloudInit="#cloud-config\nhostname: a\n")
    a = hikube.file("a.yaml", one)
    b = hikube.file("b.yaml", instance(disks=["sys"], cloudInit="#cloud-config\nhostname: b\n"))
    c = hikube.file("c.yaml", instance(disks=["sys"], cloudInit="#cloud-config\nhostname: b\n", cloudInitSeed="2"))
    shown = hikube("cloudinit", "render", a)
    assert "#cloud-config\nhostname: a\n" in shown.out and '"instance-id":' in shown.out
    assert hikube("cloudinit", "render", a, "--to", tmp_path / "seed").code == 0
    assert (tmp_path / "seed" / "user-data").read_text() == "#cloud-config\nhostname: a\n"
    same, reseeded = hikube("cloudinit", "diff", a, b), hikube("cloudinit", "diff", a, c)
    assert "+hostname: b" in same.out and "acts on hostname" in same.out and "does not repeat" not in same.out
    assert "once-per-instance modules again at the next boot: hostname" in reseeded.out
    assert (
        reseeded.out.splitlines().count("\\ No newline at end of file") == 2
    )  # of meta-data, as diff(1) says it (C27)
    more = "#cloud-config\nhostname: a\ngrowpart: {mode: 'off'}\nruncmd: [ls]\n"
    other = hikube("cloudinit", "diff", a, hikube.file("d.yaml", instance(disks=["sys"], cloudInit=more))).out
    assert "acts on growpart; it does not repeat runcmd for this instance: set a new cloudInitSeed" in other
    script = hikube.file("e.yaml", instance(disks=["sys"], cloudInit="#!/bin/sh\nls\n"))
    again = hikube.file("f.yaml", instance(disks=["sys"], cloudInit="#!/bin/sh\nls -l\n"))
    assert "none of what changed; it does not repeat the script" in hikube("cloudinit", "diff", script, again).out
    for before, after, words in (
        ("#cloud-boothook\nls\n", "#cloud-boothook\nls -l\n", "acts on the boothook"),
        ("#cloud-config\nhostname: a\n", "#cloud-config\n# why\nhostname: a\n", "no change that it acts on"),
        ("#cloud-config\noutput: {all: '>> /a'}\n", "#cloud-config\noutput: {all: '>> /b'}\n", "acts on output"),
        (
            "## template: jinja\n#cloud-config\nbootcmd: ['{{ v1.region }}']\n",
            "## template: jinja\n#cloud-config\nbootcmd: ['{{ v1.domain }}']\n",
            "acts on bootcmd",
        ),
    ):
        files = [
            hikube.file(f"{n}.yaml", instance(disks=["sys"], cloudInit=t)) for n, t in (("x", before), ("y", after))
        ]
        assert words in hikube("cloudinit", "diff", *files).out, (before, after)
    assert "once-per-instance modules again" in reseeded.out and '+{"instance' in reseeded.out
    assert "the same" in hikube("cloudinit", "diff", a, a).err
    assert hikube("cloudinit", "diff", a, b, "other").code == 2


def test_whatever_comes_is_answered_with_findings():
    """Hostile and broken user-data, and mutations of the gallery: findings, never an exception, never a long wait."""
    import random

    hostile = [
        b"#cloud-config\na: " + b"[" * 500,
        b"#cloud-config\nx: !!python/object/apply:os.system ['id']\n",
        b"#cloud-config\na: &a [x]\nb: &b [*a,*a]\nc: [*b,*b,*c]\n",
        b"#cloud-config\n? [a, b]\n: x\n1: 2\n<<: 5\n",
        b"#cloud-config\nwrite_files: [foo, null, {path: 5, owner: 7, permissions: [1]}]\nusers: {a: b}\nchpasswd: {list: [1]}\n",
        b"#cloud-config-archive\n- 1\n- [a]\n- {type: text/cloud-config}\n- {content: 5}\n",
        b"Content-Type: multipart/mixed\nMIME-Version: 1.0\n\nfoo\n",
        gzip.compress(bytes(64 << 20)),
        bytes(range(256)),
    ]
    hostile += [b"#!/bin/sh\n" + word * 20_000 for word in (b"a.", b"ufw ", b"apt ", b"curl ")]
    nested = "".join(f'Content-Type: multipart/mixed; boundary="b{i}"\n\n--b{i}\n' for i in range(2000))
    hostile += [
        nested.encode(),
        b"#cloud-config\nusers: [{name: [a]}]\nwrite_files: [{path: /x, owner: b}]\n",
        b"x" * (2 << 20),
    ]
    for raw in hostile:
        assert isinstance(check(raw), list)
    draw = random.Random(7)
    seeds = [text.encode() for text, _ in GALLERY.values()] + [h for h in hostile if len(h) < 1000]
    for _ in range(400):
        raw = bytearray(draw.choice(seeds))
        for _ in range(draw.randint(1, 5)):
            at = draw.randrange(len(raw) + 1)
            raw[at : at + draw.randrange(4)] = draw.choice(
                [b"\n", b"- ", b": ", b"{", b"[", b"&a ", b"*a", b"|", b"\xff"]
            )
        check(bytes(raw))


@pytest.mark.parametrize("word", ["a.", "ufw ", "ufw allow 1", "apt ", "curl ", "x.local ", "curl x.local "])
def test_a_script_takes_time_in_proportion(word):
    is_linear(check, lambda n: b"#!/bin/sh\n" + word.encode() * n + b"\n" + (word + "\n").encode() * n, 2000)


@pytest.mark.parametrize(
    "row",
    [
        "  - echo 'a' # b\n",
        "  - [rm, '/a/*']\n",
        "  - {a: b}\n",
        "  - true\n",
        "  - ufw allow 2222/tcp\n",
        "  - ping x.local\n",
    ],
)
def test_commands_take_time_in_proportion(row):
    is_linear(check, lambda n: b"#cloud-config\nruncmd:\n" + row.encode() * n, 400)


@pytest.mark.parametrize("row", ["  - {name: a, passwd: b}\n", "  - default\n", "  - [a, b]\n"])
def test_users_take_time_in_proportion(row):
    is_linear(check, lambda n: b"#cloud-config\ngroups: [a, b]\nusers:\n" + row.encode() * n, 300)


def test_parts_take_time_in_proportion():
    part = "--b\nContent-Type: text/cloud-config\n\n#cloud-config\nruncmd: [ls]\n"
    head = 'Content-Type: multipart/mixed; boundary="b"\nMIME-Version: 1.0\n\n'
    is_linear(check, lambda n: (head + part * n + "--b--\n").encode(), 60)


def test_many_parts_and_one_long_line_take_time_in_proportion():
    """What `check` does for each part, or for each command of a line, is not done over the whole text."""
    part = "--b\nContent-Type: text/plain\n\nx\n"
    is_linear(lambda raw: list(parts.take_apart(raw)), lambda n: (MIME + part * n + "--b--\n").encode(), 8000)

    def made(n: int) -> tuple:
        text = "runcmd: [" + "ls, " * n + "ls]"
        return tree.read(text)[0], [text]

    is_linear(lambda given: list(shell.of_commands(*given)), made, 10_000)


def test_a_folder_holds_manifests_and_what_else_lies_there(hikube: Program):
    folder = hikube.folder / "machines"
    folder.mkdir()
    (folder / "web.yaml").write_text(instance(disks=["sys"], cloudInit="#cloud-config\nhostname: a\n"))
    (folder / "map.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
    (folder / "checks.yaml").write_text("# nothing but a comment\n")
    result = hikube("cloudinit", "check", "--strict", folder)
    assert result.code == 0, result.out + result.err
    (folder / "web.yaml").write_text(instance(disks=["sys"], cloudInit="#cloud-config\nhostnam: a\n"))
    assert hikube("cloudinit", "check", folder).code == 2


def test_factors_that_are_no_numbers_are_refused(hikube: Program, pair, monkeypatch):
    from hikube_local.errors import UsageError
    from hikube_local.host import accelerator

    assert hikube("test", pair, "--timeout-factor", "nan").code == 2
    for text in ("nan", "0", "-1", "inf", "soon"):
        monkeypatch.setenv(accelerator.STRETCH, text)
        with pytest.raises(UsageError, match=f"is '{text}', not a number over 0"):
            accelerator._stretch()
    monkeypatch.setenv(accelerator.STRETCH, "")
    assert accelerator._stretch() == 1.0


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("users:\n  - name: demo\n", "demo"),
        ("users:\n  - default\n  - name: demo\n", ""),
        ("users: [one, two]\n", "one"),
        ("users: one,default\n", ""),
        ("users: []\n", ""),
        ("users: 3\n", ""),
        ("users:\n  - name: [1]\n  - 5\n", ""),
        ("users: {alice: {}, bob: {}}\n", "alice"),
        ("users: {default: {}, bob: {}}\n", ""),
        ("users:\n  - {name: svc, system: true}\n  - {name: admin}\n", "admin"),
        ("users:\n  - {name: first}\n  - {name: admin, ssh_authorized_keys: [k]}\n", "admin"),
        ("user: {name: own}\n", "own"),
        ("user: own\nusers: [default]\n", "own"),
        ("packages: [nginx]\n", ""),
    ],
)
def test_who_can_log_in_without_the_images_own_user(text: str, user: str):
    """`ssh NAME` goes in as whom the user-data makes; an image's user that it does not make is no guess."""
    assert requested.login("#cloud-config\n" + text) == user
