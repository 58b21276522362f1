"""Warm starts: what a first boot has to do anew each time, and which kept states go."""

from __future__ import annotations

import pytest

from hikube_local.backends.qemu.checkpoints import warm
from hikube_local.userdata.anew import anew

MIME = """\
Content-Type: multipart/mixed; boundary="b"
MIME-Version: 1.0

--b
Content-Type: text/cloud-config

packages: [nginx]
--b
Content-Type: text/x-include-url

http://config.example/user-data
--b--
"""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", ""),
        ("#!/bin/sh\necho hi\n", ""),
        ("#cloud-config\npackages: [nginx]\nruncmd: [date]\n", ""),
        ("#cloud-config\npackage_update: true\npackage_upgrade: false\n", ""),
        ("#cloud-config\npackage_upgrade: true\n", "package_upgrade"),
        ("#cloud-config\napt_upgrade: true\n", "apt_upgrade"),
        ("#cloud-config\nphone_home: {url: http://x.example}\n", "phone_home"),
        ("#cloud-config\nrandom_seed: {data: abc}\n", "random_seed"),
        ("#cloud-config\nssh_import_id: [gh:somebody]\n", "ssh_import_id"),
        ("#cloud-config\nusers: [default, {name: a, ssh_import_id: [gh:a]}]\n", "ssh_import_id"),
        ("#cloud-config\nusers: [default, {name: a, ssh-import-id: gh:a}]\n", "ssh_import_id"),
        ("#cloud-config\nchpasswd: {users: [{name: a, type: RANDOM}]}\n", "random password"),
        ('#cloud-config\nchpasswd: {list: "a:secret\\nb:RANDOM"}\n', "random password"),
        ("#cloud-config\nchpasswd: {list: [a:secret, b:R]}\n", "random password"),
        ("#cloud-config\nchpasswd: {users: [{name: a, password: x}], list: 'a:Rather'}\n", ""),
        ("#cloud-config\nwrite_files: [{path: /a, source: {uri: http://x.example/a}}]\n", "write_files"),
        ("#cloud-config\nwrite_files: [{path: /a, content: b}]\n", ""),
        ("#include\nhttp://config.example/user-data\n", "#include"),
        (MIME, "#include"),
        ("#cloud-config-archive\n- {type: text/x-include-url, content: 'http://x.example'}\n", "#include"),
        ("#cloud-config\nuser: {name: a, ssh_import_id: [gh:a]}\n", "ssh_import_id"),
        ("#cloud-config\nusers: {bob: {ssh_import_id: [gh:bob]}}\n", "ssh_import_id"),
        ("#cloud-config\npackage_upgrade: 'true'\n", "package_upgrade"),
        ("#cloud-config\npackage_upgrade: 1\n", "package_upgrade"),
        ("#cloud-config\npackage_reboot_if_required: true\n", ""),
        ("#cloud-config\nansible: {pull: {url: https://x.example/p.git}}\n", "ansible"),
        ("#cloud-config\nreporting: {hook: {type: webhook, endpoint: http://x.example}}\n", "reporting"),
        ("## template: jinja\n#cloud-config\nhostname: {{ v1.local_hostname }}\n", ""),
        ("## template: jinja\n#cloud-config\n{% if x %}\nphone_home: {}\n{% endif %}\n", "branches"),
        ("#cloud-config\nusers: 3\nchpasswd: x\nwrite_files: 5\n", ""),
        ("#cloud-config\n- a\n", ""),
    ],
)
def test_what_is_to_be_new_at_each_first_boot(text: str, why: str):
    found = anew(text)
    assert (why in found) if why else found == "", found


def test_of_the_kept_states_the_oldest_go_by_number_room_and_age():
    day, now = 86400.0, 1e9
    many = [(f"s{n}", now - n, 1 << 20) for n in range(warm.MOST + 3)]
    assert warm.too_many(reversed(many), now) == [f"s{n}" for n in range(warm.MOST, warm.MOST + 3)]
    large = [("a", now - 1, warm.LARGEST // 2), ("b", now - 2, warm.LARGEST), ("c", now - 3, warm.LARGEST // 4)]
    assert warm.too_many(large, now) == ["b"], "a smaller one that is older has room"
    assert warm.too_many([("new", now - day, 1), ("old", now - 31 * day, 1)], now) == ["old"]
