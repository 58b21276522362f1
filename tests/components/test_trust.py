"""Where trust changes sides: each promise of docs/security.md that needs no guest."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import threading
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from hikube_local.backends.qemu import owners
from hikube_local.backends.qemu.network.lan import Lan, believable
from hikube_local.cli.progress import ProgressPrinter
from hikube_local.errors import HikubeError
from hikube_local.events import Event, EventType
from hikube_local.host import network
from hikube_local.images import inspect, intake
from hikube_local.images.cache import Cache
from hikube_local.locks import locked
from hikube_local.render import domain, firewall
from hikube_local.render import machine as render
from hikube_local.render.machine import DiskDevice
from hikube_local.text import Cleaner, one_line, sanitize
from tests.components.server import serving
from tests.conftest import PAIR, Program, disk, instance
from tests.pure.test_network import PORTS, rules
from tests.pure.test_render import web

HOSTILE = "x\n::stop-commands::tok\nvminstance/web: ready after 1 s: cloud-init is done\u009b31m\u202e"


class _App:
    """What ProgressPrinter asks of an App."""

    def __init__(self, mode: str) -> None:
        self.progress_mode, self.no_differences, self.quiet = mode, False, False

    def color(self, stream: object) -> bool:
        return False


@pytest.mark.parametrize(
    "kind", [EventType.FAILED, EventType.WARNING, EventType.STAGE, EventType.HINT, EventType.READY]
)
def test_a_guests_line_break_begins_no_line_of_ours(kind, capsys, monkeypatch):
    """A5: neither a verdict of ours nor a command to GitHub Actions comes out of a guest's words."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    data = {"lines": [HOSTILE], "why": HOSTILE, "fix": HOSTILE}
    ProgressPrinter(_App("plain"))(Event(kind, HOSTILE, "vminstance/web", data=data))  # type: ignore[arg-type]
    err = capsys.readouterr().err
    for line in err.splitlines():
        assert not line.lstrip().startswith("::") and "\x9b" not in line and "\u202e" not in line
    assert not any(line.startswith("vminstance/web: ready") for line in err.splitlines())


def test_a_guests_log_gives_no_commands_to_ci(monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    cleaner, shown = Cleaner(), ""
    for block in (b"a\n:", b":add-mask::x\n  ::error::y\n##[group]z", b"\n"):
        shown += cleaner.feed(block)
    shown += cleaner.end()
    assert "add-mask" in shown and not any(line.lstrip(" ").startswith("::") for line in shown.splitlines())
    assert "##[" not in shown
    assert one_line("::a\n::b") and not sanitize("::a").startswith("::")


def test_control_characters_of_a_manifest_reach_no_output(hikube: Program):
    """A11: labels are refused as the API server refuses them; what may stand there is shown by its number."""
    text = instance(disks=[], sshKeys=["k"])
    for key, value in (("labels", "\u009b31m"), ("labels", "a b"), ("labels", "x" * 64)):
        bad = text.replace('"metadata": {', f'"metadata": {{"{key}": {{"app": {json.dumps(value)}}}, ')
        assert "HK320" in hikube("validate", "-", input=bad).out
    for name in ("\u202ea", "a b", "/x", "A.example_/b"):
        bad = text.replace('"metadata": {', f'"metadata": {{"annotations": {{{json.dumps(name)}: "v"}}, ')
        assert "HK320" in hikube("validate", "-", input=bad).out, name
    fine = text.replace('"metadata": {', '"metadata": {"annotations": {"a": "x\\u009b31m\\u202ey"}, ')
    assert hikube("up", "-", "--backend", "simulator", input=fine).code == 0
    for words in (
        ("get", "vm", "-o", "json"),
        ("get", "vm", "-o", "yaml"),
        ("describe", "web"),
        ("events", "-o", "json"),
    ):
        out = hikube(*words).out
        assert "\u009b" not in out and "\u202e" not in out, words
    assert hikube("get", "vm/web", "-o", "json").json["metadata"]["annotations"]["a"] == "x\u009b31m\u202ey"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8099/x",
        "http://localhost/x",
        "http://[::1]/x",
        "http://127.1/x",
        "http://0x7f000001/x",
        "http://a.localhost./x",
    ],
)
def test_a_manifest_fetches_nothing_from_this_host_unasked(hikube: Program, url):
    """A6."""
    text = disk(source={"http": {"url": url}})
    path = hikube.file("d.yaml", f"{text}\n---\n{text.replace('sys', 'too')}")
    env = {"HIKUBE_LOCAL_ALLOW_INNER": "false"}
    assert "HK319" in hikube("validate", path).out
    result = hikube("up", path, env=env)
    assert result.code == 2 and "--allow-inner" in result.err
    assert "vmdisk/too" in result.err and result.err.count("vmdisk/") == 2  # both at once
    assert not (hikube.home / "state" / "disks").exists()


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/meta-data", "http://[fe80::1]/x", "http://[::ffff:169.254.169.254]/"]
)
def test_where_credentials_are_handed_out_nothing_is_fetched_at_all(hikube: Program, url):
    result = hikube("validate", hikube.file("d.yaml", disk(source={"http": {"url": url}})))
    assert result.code == 2 and "link-local" in result.out


def test_text_that_came_instead_of_an_image_is_not_shown(tmp_path):
    path = tmp_path / "secret"
    path.write_text('{"AccessKeyId": "AKIA", "SecretAccessKey": "s3cret"}' * 20)
    with pytest.raises(HikubeError) as e:
        inspect.inspect(path)
    assert "JSON" in e.value.render() and "s3cret" not in e.value.render() and "AKIA" not in e.value.render()


def test_link_local_networks_are_closed_to_guests_and_can_be_opened():
    """A4."""
    text = rules(PORTS)
    forward = text.split("chain forward {")[1].split("}\n  chain")[0]
    assert forward.index("169.254.0.0/16 drop") < forward.index('oifname "tap0" accept')
    assert "fe80::/10 drop" in forward
    assert "169.254" not in firewall.ruleset([], link_local=True)


def test_the_switch_of_link_local_networks(hikube: Program):
    (hikube.home / "config.yaml").write_text("linkLocal: yes please\n")
    assert "HK606" in hikube("get").err
    (hikube.home / "config.yaml").write_text("linkLocal: true\n")
    assert "linkLocal: True" in hikube("config", "view").out


def test_addresses_of_the_host_its_routers_and_neighbours_are_not_believed(monkeypatch):
    """A3: a guest on a bridge of the host's may claim any address."""
    monkeypatch.setattr(network, "addresses", lambda: [("192.168.77.1", "br0"), ("10.0.0.5", "eth0")])
    monkeypatch.setattr(network, "gateways", lambda: {"10.0.0.1"})
    mine, other = "02:00:00:00:00:01", "02:00:00:00:00:02"
    monkeypatch.setattr(
        network, "neighbours", lambda i: [("192.168.77.9", mine), ("192.168.77.7", other), ("192.168.77.8", "")]
    )
    taken = Lan.taken(object.__new__(Lan), "br0", mine)
    assert taken == {"192.168.77.1", "10.0.0.5", "10.0.0.1", "192.168.77.7"}
    assert believable(["192.168.77.1", "10.0.0.1", "192.168.77.7", "192.168.77.9"], taken) == "192.168.77.9"


@pytest.fixture
def image(tmp_path) -> tuple[Cache, str]:
    cache = Cache(tmp_path / "images", 0o711)
    raw = tmp_path / "a.raw"
    raw.write_bytes(b"\0" * 510 + b"\x55\xaa" + os.urandom(1 << 20))
    return cache, intake.take(cache, raw, "name:a", "a", None).digest


def test_an_image_that_changed_is_seen_though_its_size_and_times_are_kept(image):
    """A7."""
    cache, digest = image
    path = cache.path(digest)
    assert cache.sound(digest) and cache.sound(digest)
    before = path.stat()
    os.chmod(path, 0o644)
    with open(path, "r+b") as f:
        f.seek(4096)
        f.write(b"evil")
    os.chmod(path, 0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert not cache.sound(digest)


def test_an_image_that_was_only_touched_is_read_again_and_is_sound(image):
    cache, digest = image
    assert cache.sound(digest)
    os.utime(cache.path(digest))
    assert cache.sound(digest)
    cache.path(digest).unlink()
    assert not cache.sound(digest)


@pytest.mark.skipif(os.geteuid() != 0, reason="as root QEMU is another user")
def test_an_image_that_was_given_to_qemus_user_is_taken_back(image):
    """A8: an earlier version let libvirt give it away."""
    cache, digest = image
    os.chown(cache.path(digest), 64055, 64055)
    os.chmod(cache.path(digest), 0o644)
    assert cache.sound(digest)
    st = cache.path(digest).stat()
    assert (st.st_uid, st.st_mode & 0o777) == (0, 0o444)


def test_libvirt_gives_shared_images_to_nobody():
    """A8: the image at the bottom keeps its owner; a machine's own layers do not, and a disk's digest says nothing of it."""
    chain = (("/cache/layer", "qcow2"), ("/cache/base", "qcow2"))
    for own in (False, True):
        element = ET.Element("disk")
        domain.source(element, DiskDevice("a", "/d", "qcow2", "virtio", backing=chain, own_base=own))
        sources = list(element.iter("source"))
        labels = [s.find("seclabel") for s in sources]
        assert labels[:2] == [None, None] and (labels[2] is None) is own
        if not own:
            assert labels[2] is not None and labels[2].attrib == {"model": "dac", "relabel": "no"}


def test_whoever_uses_the_images_is_named_to_prune_which_does_not_wait_for_ever(tmp_path, monkeypatch):
    """A16."""
    from hikube_local.images import cache as module

    monkeypatch.setattr(module, "PATIENCE", 0.3)
    cache = Cache(tmp_path / "images")
    held, done = threading.Event(), threading.Event()

    def use() -> None:
        with cache.in_use():
            held.set()
            done.wait(30)

    thread = threading.Thread(target=use)
    thread.start()
    held.wait(30)
    told: list[str] = []
    try:
        with pytest.raises(HikubeError) as e, cache.alone(told.append):
            pass
    finally:
        done.set()
        thread.join()
    assert e.value.code == "HK609" and str(os.getpid()) in told[0] and str(os.getpid()) in e.value.what


def test_a_lock_that_is_free_in_time_is_taken(tmp_path):
    with locked(tmp_path / "l", patience=0.1):
        pass
    with locked(tmp_path / "l", patience=0.1):
        pass


def test_folders_links_and_endless_files_are_no_images(tmp_path):
    """A18."""
    cache = Cache(tmp_path / "images")
    for path, word in ((tmp_path, "folder"), (Path("/dev/zero"), "not a regular file")):
        with pytest.raises(HikubeError, match="refused") as e:
            intake.take(cache, path, "k", "o", None)
        assert word in e.value.why
    sparse = tmp_path / "sparse"
    sparse.touch()
    try:
        os.truncate(sparse, 5 << 40)
    except OSError:
        pytest.skip("this file system holds no file of 5 TiB")
    with pytest.raises(HikubeError) as e:
        intake.take(cache, sparse, "k", "o", None)
    assert "at most" in e.value.why


def test_an_import_says_how_far_it_is(tmp_path, monkeypatch):
    from hikube_local.images import intake as module

    moments = iter(range(0, 10_000, 2))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(moments)))
    raw = tmp_path / "a.raw"
    raw.write_bytes(b"\0" * 510 + b"\x55\xaa" + bytes(4 << 20))
    told: list[tuple[str, dict]] = []
    intake.take(Cache(tmp_path / "images"), raw, "k", "o", None, say=lambda text, **data: told.append((text, data)))
    assert told and told[-1][1]["total"] == raw.stat().st_size and "%" in told[0][0]


@pytest.mark.parametrize("user", ["-oProxyCommand=x", "-l", "a\nb", "", "a b", "-", "$(id)"])
def test_a_user_that_would_be_an_option_of_sshs_is_refused(user):
    from hikube_local.access.ssh import _USER

    assert not _USER.fullmatch(user)
    for good in ("debian", "root", "first.last", "a_b-c", "DOMAIN+user", "a@b.example"):
        assert _USER.fullmatch(good)


def test_scps_words_come_behind_a_double_dash(hikube: Program, tmp_path, monkeypatch):
    """A21: a file that is named like an option is a file."""
    from hikube_local.access import ssh as access
    from hikube_local.cli import ssh as command
    from hikube_local.engine.session import Session

    seen: list[list[str]] = []

    class Stop(Exception):
        pass

    def execv(path: str, argv: list[str]) -> None:
        seen.append(list(argv))
        raise Stop

    monkeypatch.setattr(command.os, "execv", execv)
    monkeypatch.setattr(access, "prepare", lambda *a: ("me", ["-o", "X=y"], None))
    monkeypatch.setattr(Session, "require", lambda self, obj, capability: self.of(obj))
    hikube("up", "-", "--backend", "simulator", input=instance(disks=[], sshKeys=["k"]))
    monkeypatch.setenv("HIKUBE_LOCAL_HOME", str(hikube.home))
    with pytest.raises(Stop):
        command.scp.main(["--", "-S./evil.sh", "web:/tmp/"], standalone_mode=False)
    at = seen[0].index("--")
    assert seen[0][at + 1] == "-S./evil.sh" and "-S./evil.sh" not in seen[0][:at]


ARCHIVES = {
    "a Vagrant box": ({"metadata.json": b"{}", "Vagrantfile": b"", "box.img": b"x"}, "Vagrant box", "take box.img"),
    "a box with dots": ({"./metadata.json": b"{}", "./box.img": b"x"}, "Vagrant box", "take box.img"),
    "an OVA": ({"one.ovf": b"<Envelope/>", "disk1.vmdk": b"KDMV"}, "OVA", "take disk1.vmdk"),
    "GCE": ({"disk.raw": b"x"}, "Google Compute Engine", "take disk.raw"),
    "Incus": ({"metadata.yaml": b"", "rootfs/bin/sh": b""}, "Incus", "no disk image"),
    "sources": ({"src/README": b"hello"}, "a tar archive", "no disk image"),
}


@pytest.mark.parametrize("pack", ["", "gz", "xz", "bz2"])
@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_named_and_what_to_take_out_of_it(hikube: Program, tmp_path, name, pack):
    """C21, also by their URLs and from the cache's own unpacking."""
    members, kind, fix = ARCHIVES[name]
    path = tmp_path / f"x.tar{pack}"
    with tarfile.open(path, f"w:{pack}") as tar:
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    result = hikube("images", "import", path, "--name", "x")
    assert result.code == 1 and "HK702" in result.err and kind in result.err and fix in result.err


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"!<arch>\n", "Debian package"),
        (b"\xed\xab\xee\xdb", "RPM"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        (b"hsqs", "SquashFS"),
        (b"070701", "cpio"),
    ],
)
def test_packages_are_named(tmp_path, head, word):
    path = tmp_path / "x"
    path.write_bytes(head + os.urandom(2048))
    with pytest.raises(HikubeError) as e:
        inspect.inspect(path)
    assert word in e.value.why


def test_a_tar_of_many_members_is_looked_at_for_a_while_only(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for n in range(1000):
            tar.addfile(tarfile.TarInfo(f"f{n}"))
    with open(path, "rb") as f:
        assert len(inspect._members(f, path.stat().st_size)) <= inspect.MOST_MEMBERS


def test_no_program_of_ours_imports_from_the_folder_it_stands_in():
    """A1, the class: every Python that we start is told so."""
    found = subprocess.run(
        ["grep", "-rn", "sys.executable", "hikube_local"], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    rows = [line for line in found.stdout.splitlines() if line]
    assert rows and all('"-P"' in row or '"-I"' in row for row in rows), rows


def test_a_manifest_at_a_url_is_read_whole_and_within_bounds(hikube: Program):
    """F10, as kubectl takes it: named by the user, so wherever it is; what is wrong is told under its URL."""
    with serving() as served:
        served.files["/m.yaml"] = PAIR.encode()
        url = f"{served.url}/m.yaml"
        assert hikube("up", "-f", url, "--backend", "simulator").code == 0
        assert "web" in hikube("get", "-f", url).out
        assert "nothing to do" in hikube("plan", url).out
        assert hikube("plan", url, "--output", "json").json[0]["action"] == "none"
        refused = hikube("up", url, "--offline")
        assert refused.code == 2 and "--offline" in refused.err
        served.files["/bad.yaml"] = PAIR.replace("u1.medium", "u1.huge").encode()
        bad = hikube("validate", f"{served.url}/bad.yaml")
        assert bad.code == 2 and f"{served.url}/bad.yaml:" in bad.err + bad.out
        missing = hikube("up", f"{served.url}/none.yaml")
        assert missing.code == 2 and "HK101" in missing.err and "404" in missing.err
        served.files["/huge.yaml"] = b"a: b\n" * 4_000_000
        huge = hikube("validate", f"{served.url}/huge.yaml")
        assert huge.code == 2 and "Traceback" not in huge.err
        dead = hikube("validate", "http://127.0.0.1:1/m.yaml")
        assert dead.code == 2 and "could not be reached" in dead.err
        assert hikube("down", url).code == 0
        assert hikube("get", "vm").out == ""


def test_each_machine_has_a_user_of_its_own_where_this_root_has_ids_for_it(tmp_path):
    """A8: no account, service or container has those ids; in a container with 65,536 of them all machines share one."""
    a, b = (owners.of_machine("root", f"1b1cf0c4-0000-4000-8000-00000000000{n}", few=False) for n in "12")
    assert a[0] != b[0] and a[1] == b[1]
    assert all(1879048192 <= uid < 2147352576 and owners.is_ours(uid) for uid, _ in (a, b))
    assert owners.of_machine("root", "x", few=True) == owners.shared()
    assert owners.of_machine("other", "x", few=False) != owners.of_machine("root", "x", few=False)
    for text, few in (("0 0 4294967295\n", False), ("0 100000 65536\n", True), ("", True), ("what\n", True)):
        (tmp_path / "map").write_text(text)
        assert owners.few(str(tmp_path / "map")) is few
    machine = render.portable(web(disks=["sys"]), {})
    plain, own = (domain.domain(m) for m in (machine, replace(machine, owner=a)))
    assert owners.in_xml(own) == a and owners.in_xml(plain) is None
    assert domain.digest(own) == domain.digest(plain)  # a machine that runs since before the update is no other one
