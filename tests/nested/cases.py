"""What is tried on the nested host, in this order. A case raises AssertionError; what it returns is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.nested.host import Nested

CHECKOUT = "hikube-local"
H = f"{CHECKOUT}/.venv/bin/hikube-local"
TINY = """cat > tiny.yaml <<'EOF'
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata: {name: sys}
spec: {storage: 1Gi, source: {image: {name: tiny}}}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {name: web}
spec: {external: true, externalPorts: [80, 8080], instanceType: u1.nano, instanceProfile: alpine, disks: [sys]}
EOF
"""


@dataclass(frozen=True)
class Case:
    """`short`: in `make test-all` too; `needed`: the others make no sense without it."""

    name: str
    run: Callable[[Nested], str | None]
    short: bool = False
    needed: bool = False


CASES: list[Case] = []


def case(short: bool = False, needed: bool = False) -> Callable[[Callable[[Nested], str | None]], None]:
    def add(run: Callable[[Nested], str | None]) -> None:
        CASES.append(Case(run.__name__.replace("_", " "), run, short, needed))

    return add


def _json(host: Nested, words: str, user: str = "dev") -> dict:
    home = "" if user == "dev" else "/home/dev/"
    return json.loads(host.ssh(f"{home}{H} {words} -o json", user=user).stdout)


def _domain_type(host: Nested, user: str = "dev") -> str:
    home = "" if user == "dev" else "/home/dev/"
    return re.findall(
        r"<domain type='(\w+)'", host.ssh(f"{home}{H} virsh dumpxml default_vm-instance-web", user=user).stdout
    )[0]


def _page(host: Nested, user: str = "dev", port: int = 8080) -> str:
    row = next(a for a in _json(host, "get vm web", user)["status"]["access"] if a["port"] == port)
    return host.ssh(
        f"curl -sf -m 60 --retry 5 --retry-all-errors http://{row['address']}:{row['hostPort']}/", user=user
    ).stdout


@case(short=True, needed=True)
def a_fresh_clone_sets_itself_up(host: Nested) -> None:
    host.ssh(
        f"git -c init.defaultBranch=main -c advice.detachedHead=false clone -q /payload/checkout.bundle {CHECKOUT} && cd {CHECKOUT} && make .venv/.ready",
        timeout=900,
    )


@case(short=True)
def doctor_finds_kvm_and_measures_it(host: Nested) -> str:
    said = host.ssh(f"{H} doctor -o json", check=False).stdout
    checks = {c["name"]: c for c in json.loads(said)["checks"]}
    assert checks["accelerator"]["ok"], checks["accelerator"]
    return checks["accelerator"]["detail"]


@case(short=True)
def a_user_has_a_tiny_guest_under_kvm(host: Nested) -> str:
    host.ssh(f"{H} images import /payload/tiny.qcow2 --name tiny && {TINY}\n{H} up tiny.yaml", timeout=900)
    assert _domain_type(host) == "kvm"
    assert "hello from" in _page(host)
    assert _json(host, "get vm web")["status"]["accelerator"] == "kvm"
    opened = host.ssh("ls -l /proc/$(pgrep -f guest=default)/fd", user="root").stdout
    return "its lease came through vhost-net" if "vhost-net" in opened else "without vhost-net"


@case(short=True)
def a_checkpoint_with_memory_is_taken_and_gone_back_to(host: Nested) -> None:
    host.ssh(f"{H} snapshot create web point && {H} snapshot restore web point --yes", timeout=600)
    assert "hello from" in _page(host)


@case(short=True)
def one_machine_is_emulated_when_it_is_asked_for(host: Nested) -> None:
    host.ssh(f"{H} up tiny.yaml --accelerator tcg --restart --no-wait", timeout=900)
    assert _domain_type(host) == "qemu"
    status = _json(host, "get vm web")["status"]
    assert (status["accelerator"], status["acceleratorSetBy"]) == ("tcg", "--accelerator"), status
    assert "tcg (--accelerator)" in host.ssh(f"{H} get vm -o wide").stdout
    host.ssh(f"{H} up tiny.yaml --accelerator auto --restart", timeout=900)
    assert _domain_type(host) == "kvm"


@case()
def bench_rows_under_kvm(host: Nested) -> str:
    """Ratios, as `make bench` has them without KVM."""
    said = host.ssh(f"{CHECKOUT}/.venv/bin/python {CHECKOUT}/tests/nested/bench_kvm.py {H}", timeout=2400).stdout
    return said.strip().replace("\n", "; ")


@case()
def a_device_of_another_group_is_used_or_told(host: Nested) -> None:
    host.ssh(f"{H} down -A", timeout=300)
    host.ssh("groupadd -g 2345 odd; chgrp odd /dev/kvm; chmod 0660 /dev/kvm", user="root")
    try:
        said = json.loads(host.ssh(f"{H} doctor -o json", check=False).stdout)
        row = next(c for c in said["checks"] if c["name"] == "accelerator")
        assert not row["ok"] and "usermod -aG odd" in row["fix"], row
        host.ssh(
            f"{TINY}\n/home/dev/{H} images import /payload/tiny.qcow2 --name tiny; /home/dev/{H} up tiny.yaml",
            user="root",
            timeout=900,
        )
        assert _domain_type(host, "root") == "kvm"
        host.ssh(f"/home/dev/{H} down -A --disks --yes", user="root", timeout=300)
    finally:
        host.ssh("chgrp kvm /dev/kvm", user="root")


@case()
def after_a_reboot_of_the_host_it_says_so_and_up_brings_it_back(host: Nested) -> None:
    host.ssh(f"{H} up tiny.yaml", timeout=900)
    host.reboot()
    status = _json(host, "get vm web")["status"]
    assert status["printableStatus"] == "Stopped", status
    assert any("restarted" in c.get("message", "") for c in status["conditions"]), status["conditions"]
    host.ssh(f"{H} up tiny.yaml", timeout=900)
    assert "hello from" in _page(host)


@case()
def autostart_brings_machines_up_with_the_host(host: Nested) -> None:
    host.ssh("loginctl enable-linger dev", user="root")
    shown = host.ssh(f"{H} autostart enable --yes").stdout
    assert "ExecStart=" in shown and "WantedBy=default.target" in shown, shown
    host.reboot()
    host.ssh(f"for i in $(seq 120); do {H} get vm web | grep -q Running && break; sleep 2; done", timeout=600)
    assert "hello from" in host.ssh(f"{H} wait vm/web --for=condition=Ready --timeout=10m >&2; true").stdout + _page(
        host
    )
    host.ssh(f"{H} autostart disable --yes; {H} down -A", timeout=300)


@case()
def the_quickstart_as_a_user_with_sudo(host: Nested) -> None:
    host.ssh(f"{H} images import /payload/debian-12.qcow2 --name debian-12")
    host.ssh(f"cd {CHECKOUT} && make up", timeout=1800)
    assert "kvm" in host.ssh(f"{H} ssh demo@quickstart -- systemd-detect-virt").stdout
    host.ssh(f"{H} reset quickstart --yes && {H} ssh demo@quickstart -- true", timeout=600)


@case()
def after_the_host_slept_clocks_and_ways_in_are_right(host: Nested) -> str:
    """A minute of sleep, as the kernel tests it (power/basic-pm-debugging.rst): devices and timekeeping stop, and go on by
    themselves; no firmware and no alarm takes part. With the machine of the case before, or anew."""
    host.ssh(f"{H} images import /payload/debian-12.qcow2 --name debian-12; cd {CHECKOUT} && make up", timeout=1800)
    begin = int(host.ssh("date +%s").stdout)
    sleeps = "echo deep > /sys/power/mem_sleep; echo core > /sys/power/pm_test; echo 60 > /sys/module/suspend/parameters/pm_test_delay\n"
    host.ssh(f"{sleeps}echo mem > /sys/power/state; echo none > /sys/power/pm_test", "root", timeout=300)
    slept = int(host.ssh("date +%s").stdout) - begin
    assert slept >= 55, f"the host did not sleep: {slept} s"
    host.ssh(f"{H} get vm", timeout=300)
    offset = host.ssh(f'guest=$({H} ssh demo@quickstart -- date +%s); echo "$(date +%s) $guest"', timeout=300).stdout
    here, there = map(int, offset.split())
    assert 0 <= here - there <= 5, offset
    host.ssh(f"{H} down -A --disks --yes", timeout=600)
    return f"{slept} s, then its clock was {here - there} s behind"


@case()
def the_suite_that_needs_hardware_virtualisation(host: Nested) -> str:
    kept = "/var/cache/hikube-local"
    host.ssh(
        f"mkdir -p {kept} && cp -r --no-preserve=mode /payload/kept/. {kept} && chmod -R u=rwX,go=rX {kept}", "root"
    )
    done = host.ssh(f"cd {CHECKOUT} && make test-kvm", timeout=3000)
    return done.stdout.strip().splitlines()[-1]


# The rules of Ubuntu's profile that matter here, in words of our own: what it lets swtpm reach, and nothing else.
SWTPM = """abi <abi/3.0>,
include <tunables/global>
profile swtpm /usr/bin/swtpm {
  include <abstractions/base>
  include <abstractions/openssl>
  capability chown,
  capability dac_override,
  capability dac_read_search,
  capability fowner,
  capability fsetid,
  capability setgid,
  capability setuid,
  network inet stream,
  network inet6 stream,
  unix (send) type=dgram addr=none peer=(addr=none),
  unix (send, receive) type=stream addr=none peer=(label=libvirt-*),
  /usr/bin/swtpm rm,
  /tmp/** rwk,
  owner @{HOME}/** rwk,
  owner /var/lib/libvirt/swtpm/** rwk,
  /run/libvirt/qemu/swtpm/*.sock rwk,
  owner /var/log/swtpm/libvirt/qemu/*.log rwk,
  owner /run/libvirt/qemu/swtpm/*.pid rwk,
  include if exists <local/usr.bin.swtpm>
}
"""
TPM = TINY.replace(
    "instanceType: u1.nano, instanceProfile: alpine",
    "resources: {cpu: 1, sockets: 2, memory: 4Gi}, instanceProfile: windows.2k22, firmware: {bootloader: bios}",
)


@case()
def a_tpm_starts_under_ubuntus_profile_for_swtpm(host: Nested) -> None:
    host.ssh(f"{H} down -A --disks --yes; {H} purge -A --yes", check=False, timeout=300)
    host.ssh(
        f"cat > /etc/apparmor.d/usr.bin.swtpm <<'EOF'\n{SWTPM}EOF\napparmor_parser -r /etc/apparmor.d/usr.bin.swtpm",
        "root",
    )
    try:
        images = "images import /payload/tiny.qcow2 --name tiny"
        refused = host.ssh(f"{H} {images}; {TPM}\n{H} up tiny.yaml --no-wait", check=False, timeout=900)
        remedy = re.search(r"(echo 'owner.*?usr\.bin\.swtpm)(?:;|$)", refused.stdout + refused.stderr, re.M)
        assert refused.returncode and remedy, refused.stderr
        host.ssh(remedy[1], timeout=300)  # what it says is right
        for user, home in (("dev", ""), ("root", "/home/dev/")):
            host.ssh(f"{home}{H} {images}; {TPM}\n{home}{H} up tiny.yaml --no-wait", user, timeout=900)
            pid = host.ssh("pidof swtpm", user="root").stdout.split()[0]
            assert "swtpm (enforce)" in host.ssh(f"cat /proc/{pid}/attr/current", user="root").stdout
            host.ssh(f"{home}{H} down -A --disks --yes", user, timeout=300)
    finally:
        host.ssh(
            "apparmor_parser -R /etc/apparmor.d/usr.bin.swtpm; rm /etc/apparmor.d/usr.bin.swtpm", "root", check=False
        )


# As Ubuntu 24.04 has it, as far as Debian's kernel can show it: what a person starts may do anything but make user namespaces;
# rootlesskit has a profile that may.
NO_USERNS = """abi <abi/4.0>,
profile no_userns flags=(attach_disconnected) {
  capability,
  network,
  mount,
  remount,
  umount,
  pivot_root,
  ptrace,
  signal,
  unix,
  dbus,
  mqueue,
  io_uring,
  / rw,
  /** mrwlkpix,
  deny userns,
}
profile rootlesskit /usr/bin/rootlesskit flags=(unconfined) {
  userns,
}
"""


@case()
def where_apparmor_forbids_user_namespaces_rootlesskit_makes_them(host: Nested) -> None:
    host.ssh(f"{H} down -A --disks --yes; {H} purge -A --yes", check=False, timeout=300)
    profile = "/etc/apparmor.d/no_userns"
    host.ssh(f"cat > {profile} <<'EOF'\n{NO_USERNS}EOF\napparmor_parser -r {profile}", "root")
    confined = f"rm -rf .cache/hikube-local/namespace.json; aa-exec -p no_userns -- {H}"

    def network() -> dict:
        said = json.loads(host.ssh(f"{confined} doctor -o json", check=False).stdout)
        return next(c for c in said["checks"] if c["name"] == "network namespace")

    try:
        host.ssh("chmod 0644 /usr/bin/rootlesskit", "root")
        assert (network()["ok"], network()["fix"]) == (False, "sudo apt-get install rootlesskit uidmap"), network()
        host.ssh("chmod 0755 /usr/bin/rootlesskit", "root")
        assert network()["ok"] and "through rootlesskit" in network()["detail"], network()
        host.ssh(f"{H} images import /payload/tiny.qcow2 --name tiny; {TINY}\n{confined} up tiny.yaml", timeout=900)
        assert "hello from" in _page(host)
        host.ssh(f"{H} down -A --disks --yes; {H} purge -A --yes", check=False, timeout=300)
        # The kernel's own switch: what doctor says opens it.
        host.ssh("sysctl -q kernel.unprivileged_userns_clone=0", "root")
        row = network()
        assert not row["ok"] and row["fix"] == "sudo sysctl kernel.unprivileged_userns_clone=1", row
        host.ssh(row["fix"])
        assert json.loads(host.ssh(f"{H} doctor -o json", check=False).stdout)["checks"]
        assert network()["ok"]
    finally:
        host.ssh(
            f"chmod 0755 /usr/bin/rootlesskit; sysctl -q kernel.unprivileged_userns_clone=1; "
            f"apparmor_parser -R {profile}; rm {profile}",
            "root",
            check=False,
        )
