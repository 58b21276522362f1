"""Reading consoles: stages, causes, ends; also of a guest that lies or floods."""

from __future__ import annotations

import pytest

from hikube_local.readiness import cloudinit
from hikube_local.readiness.console import Console, final_message
from hikube_local.readiness.stages import Stage

BOOT = [
    (b"GRUB loading.\r\nWelcome to GRUB!\r\n", Stage.BOOTLOADER),
    (b"[    0.000000] Linux version 6.1.0\r\n", Stage.KERNEL),
    (b"[    3.1] systemd[1]: systemd 252 running in system mode\r\n", Stage.INIT),
    (b"[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mnetwork.target\x1b[0m - Network.\r\n", Stage.NETWORK),
    (b"[   23.1] cloud-init[281]: Cloud-init v. 22.4.2 running 'init-local' at Tue\r\n", Stage.CLOUD_INIT_LOCAL),
    (b"[   33.1] cloud-init[381]: Cloud-init v. 22.4.2 running 'init' at Tue\r\n", Stage.CLOUD_INIT),
    (b"[   43.1] cloud-init[481]: Cloud-init v. 22.4.2 running 'modules:config' at Tue\r\n", Stage.CLOUD_CONFIG),
    (b"[   53.1] cloud-init[581]: Cloud-init v. 22.4.2 running 'modules:final' at Tue\r\n", Stage.CLOUD_FINAL),
    (b"[   63.1] cloud-init[581]: Cloud-init v. 22.4.2 finished at Tue, Up 63 seconds\r\n", Stage.DONE),
]


def test_a_boot_goes_through_its_stages():
    console = Console()
    for raw, stage in BOOT:
        console.feed(raw)
        assert console.progress.stage is stage
    assert console.finished
    assert console.trouble is None


def test_a_boot_fed_byte_by_byte_ends_the_same():
    console = Console()
    for byte in b"".join(raw for raw, _ in BOOT):
        console.feed(bytes([byte]))
    assert console.finished and console.progress.stage is Stage.DONE


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\n", "HK903"),
        (b"You are in emergency mode. After logging in, type\n", "HK904"),
        (b"(initramfs) ", "HK904"),
        (b"grub> ", "HK902"),
        (b"grub rescue> ", "HK902"),
        (b"error: file `/boot/grub/i386-pc/normal.mod' not found.\n", "HK902"),
        (b"[   99.9] Out of memory: Killed process 4711 (python3)\n", "HK905"),
    ],
)
def test_causes_are_recognised_with_their_lines(text, code):
    console = Console()
    console.feed(b"a line before\n" + text)
    assert console.trouble and console.trouble.code == code
    assert console.trouble.lines and console.trouble.remedy


def test_the_firmware_says_that_nothing_boots():
    console = Console()
    console.feed(b"Booting from Hard Disk...\nBoot failed: not a bootable disk\n\nNo bootable device.\n", firmware=True)
    assert console.trouble and console.trouble.code == "HK901"


def test_the_firmware_is_heard_wherever_its_log_is_cut():
    """It is read while it is written: a word may come in two halves."""
    text = b"\nenter handle_18:\n  NULL\nNo bootable device.\n"
    for cut in range(len(text)):
        console = Console()
        console.feed(text[:cut], firmware=True)
        console.feed(text[cut:], firmware=True)
        assert console.trouble and console.trouble.code == "HK901", cut


def test_a_login_prompt_is_seen_without_a_newline():
    console = Console()
    console.feed(b"\nDebian GNU/Linux 12 vm-instance-web ttyS0\n\nvm-instance-web login: ")
    assert console.login


def test_an_own_final_message_is_the_end():
    pattern = final_message('#cloud-config\nfinal_message: "the box is up after $UPTIME seconds"\n')
    console = Console(pattern)
    console.feed(b"[   69.0] cloud-init[527]: the box is up after 69.02 seconds\n")
    assert console.finished


def test_final_messages_that_would_fit_anything_are_not_taken():
    assert final_message('#cloud-config\nfinal_message: "$UPTIME"\n') is None
    assert final_message("#!/bin/sh\n") is None


def test_failures_of_cloud_init_are_kept():
    console = Console()
    console.feed(
        b"[   63.1] cloud-init[581]: 2026 - cc_scripts_user.py[WARNING]: Failed to run module scripts-user\n"
        b"[   63.1] cloud-init[581]: Failed running /var/lib/cloud/instance/scripts/runcmd [1]\n"
    )
    assert len(console.failures) == 1


def test_a_flood_without_a_newline_stays_small():
    console = Console()
    for _ in range(200):
        console.feed(b"x" * 100_000)
    assert len(console._rest) <= 4096


def test_an_escape_sequence_cut_between_two_blocks_leaves_nothing():
    console = Console()
    console.feed(b"[  OK  ] Reached target \x1b")
    console.feed(b"[0;1mnetwork.target\x1b[0m \xe2\x80")
    console.feed(b"\xa6 Network.\n")
    assert list(console.lines) == ["[  OK  ] Reached target network.target \u2026 Network."]


def test_a_reboot_begins_anew():
    console = Console()
    for raw, _ in BOOT:
        console.feed(raw)
    console.feed(b"GRUB loading.\n")
    assert console.progress.stage is Stage.BOOTLOADER and not console.finished


STATUS = (
    b'{"v1": {"datasource": "DataSourceNoCloud", "stage": null, "init-local": {"errors": [], "finished": 1.0}, "init": {"errors": [], "finished": 2.0},'
    b'"modules-config": {"errors": [], "finished": 3.0}, "modules-final": {"errors": %s, "finished": %s}}}'
)


def test_status_json_says_done_failed_or_still_busy():
    done = cloudinit.read(STATUS % (b"[]", b"4.0"))
    assert done and done.done and done.ok
    failed = cloudinit.read(STATUS % (b"[\"('scripts-user', RuntimeError('Runparts: 1 failures'))\"]", b"4.0"))
    assert failed and failed.done and not failed.ok
    assert "runcmd" in cloudinit.trouble(failed, []).remedy or "scripts" in cloudinit.trouble(failed, []).message
    busy = cloudinit.read((STATUS % (b"[]", b"null")).replace(b'"stage": null', b'"stage": "modules-final"'))
    assert busy and not busy.done


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"v1": 3}', b"\xff", b"[" * 5000, b'{"v1": {"modules-final": {"errors": 7}}}']
)
def test_nonsense_from_the_guest_is_survived(raw):
    cloudinit.read(raw)


def test_one_device_that_does_not_boot_is_not_all_of_them():
    """An installer's ISO stands behind an empty system disk: the firmware goes on to it."""
    console = Console()
    console.feed(
        b"Booting from Hard Disk...\nBoot failed: not a bootable disk\n\nBooting from DVD/CD...\n", firmware=True
    )
    assert console.trouble is None


def test_what_systemd_waits_for_is_named_while_its_line_is_drawn_anew():
    console = Console()
    console.feed(b"[    1.0] Linux version 6.1\n[  OK  ] Reached target Network.\n")
    console.feed(b"\r[*     ] A start job is running for Wait for Network to be Configured (6s / no limit)\r")
    console.feed(b"\x1b[K[ **   ] A start job is running for /dev/disk/by-label/none (7s / 1min 30s)\r")
    assert console.progress.detail == "waits for /dev/disk/by-label/none (1min 30s)"
    # Debian 12 is built with the other words.
    console.feed(b"[ ***  ] Job systemd-networkd-wait-online.service/start running (18s / no limit)\r")
    assert console.progress.detail == "waits for systemd-networkd-wait-online.service (no limit)"
    console.feed(b"\n[  OK  ] Started x.\n")
    assert console.progress.detail == "Started x"


def test_the_module_that_runs_is_named_by_the_log():
    log = b"x - handlers.py[DEBUG]: start: init-network/config-growpart: running\n" * 2
    log += b"x - handlers.py[DEBUG]: finish: init-network/config-growpart: SUCCESS\n"
    assert cloudinit.module(log) == "growpart" and cloudinit.module(b"\xff" * 100) == ""
    log += b"x - handlers.py[DEBUG]: start: modules-final/config-scripts-user: running config-scripts-user\n"
    assert cloudinit.module(log) == "scripts_user"


def test_the_command_that_cloud_init_waits_for_is_the_youngest_childs_youngest():
    table = """\
    PID    PPID ELAPSED COMMAND
      1       0     300 /sbin/init
    700       1     120 /usr/bin/python3 /usr/bin/cloud-init modules --mode=final
    701     700     119 tee -a /var/log/cloud-init-output.log
    710     700      60 /bin/sh /var/lib/cloud/instance/scripts/runcmd
    711     710      50 apt-get -y install nginx
    712     711      45 /usr/bin/dpkg --configure -a
    900       1       5 sleep 100
    """
    assert cloudinit.busy_with(table) == "`/usr/bin/dpkg --configure -a` for 45 s"
    pipe = "7 1 99 /usr/bin/cloud-init init\n8 7 98 tee -a /var/log/cloud-init-output.log\n"
    assert cloudinit.busy_with(pipe) == ""
    assert cloudinit.busy_with("") == cloudinit.busy_with("x y\n1 1 1 /usr/bin/cloud-init init\n") == ""
    circle = "1 2 3 a\n2 1 3 /usr/bin/cloud-init\n"
    assert cloudinit.busy_with(circle * 50).startswith("`a`")
