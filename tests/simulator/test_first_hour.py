"""The first hour of a new user, and kubectl's and virtctl's habits: on the simulator."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest

from tests.conftest import PAIR, ROOT, Program, disk, instance

SIM = ("--backend", "simulator")


@pytest.mark.parametrize(
    "first",
    [
        "doctor",
        "plan FILE",
        "up --dry-run FILE",
        "render --host --to out FILE",
        "images prune --dry-run",
        "get",
        "ports",
    ],
)
def test_what_is_made_does_not_depend_on_the_first_command(hikube: Program, pair, first):
    """QEMU's user must pass through root's folders, whichever command made them (U1)."""
    hikube(*first.replace("FILE", str(pair)).split())
    hikube("up", pair, *SIM)
    hikube("images", "import", hikube.file("x.raw", "x" * 4096), "--name", "x")
    wanted = 0o711 if os.geteuid() == 0 else 0o700
    for folder in ("state", "cache"):
        assert stat.S_IMODE((hikube.home / folder).stat().st_mode) == wanted, folder


@pytest.mark.skipif(os.geteuid() != 0, reason="a user's folders are nobody else's")
def test_folders_that_an_earlier_version_shut_are_opened_and_doctor_names_them(hikube: Program, pair):
    hikube("up", pair, *SIM)
    cache = hikube.home / "cache"
    cache.mkdir(exist_ok=True)
    cache.chmod(0o700)
    checks = {c["name"]: c for c in hikube("doctor", "-o", "json").json["checks"]}
    assert (
        not checks["folders"]["ok"]
        and str(cache) in checks["folders"]["detail"]
        and "chmod" in checks["folders"]["fix"]
    )
    hikube("up", pair)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o711


@pytest.mark.skipif(os.geteuid() != 0, reason="needs folders of another user's")
@pytest.mark.parametrize("part", ["", "state", "cache"])
@pytest.mark.parametrize("how", ["owner", "mode"])
def test_a_root_of_strangers_is_not_taken(hikube: Program, pair, part, how):
    for name in ("state", "cache"):
        (hikube.home / name).mkdir(parents=True)
    folder = hikube.home / part if part else hikube.home
    os.chown(folder, 65534, 65534) if how == "owner" else folder.chmod(0o777)
    result = hikube("up", pair, *SIM)
    assert result.code == 1 and "HK608" in result.err and str(folder) in result.err


def test_a_folder_that_became_a_link_is_neither_followed_nor_removed(hikube: Program, pair, tmp_path):
    """A9: what lies behind a link in the state root is not ours."""
    from hikube_local import files
    from hikube_local.errors import HikubeError

    outside = tmp_path / "outside" / "victim"
    outside.mkdir(parents=True)
    (outside / "precious").write_text("data")
    disks = hikube.home / "state" / "disks"
    disks.mkdir(parents=True)
    (disks / "default").symlink_to(tmp_path / "outside")
    for action in (files.remove_folder, files.remove_object):
        with pytest.raises(HikubeError, match="link"):
            action(disks / "default" / "victim", hikube.home / "state")
    assert (outside / "precious").read_text() == "data"


@pytest.mark.parametrize(
    "target",
    [
        "web",
        "vm/web",
        "vmi/web",
        "vm-instance-web",
        "vmi/vm-instance-web",
        "vminstance.apps.cozystack.io/web",
        "vmi/web/team-a",
        "vmi/web.team-a",
        "web.team-a",
        "web.team-a.hikube",
        "vm/web/team-a",
    ],
)
def test_every_form_of_a_target_is_understood(hikube: Program, pair, target):
    hikube("-n", "team-a", "up", pair, *SIM)
    words = () if "team-a" in target else ("-n", "team-a")
    result = hikube("ssh", f"admin@{target}", *words, "--", "id")
    # Found, and simulated: nobody answers there.
    assert result.code == 255 and "HK510" in result.err
    assert hikube("pause", target, *words).out == "VM web was paused\n"


def test_a_target_that_contradicts_the_namespace_is_refused(hikube: Program, pair):
    hikube("-n", "team-a", "up", pair, *SIM)
    result = hikube("pause", "web.team-a", "-n", "team-b")
    assert result.code == 2 and "HK406" in result.err


@pytest.mark.parametrize(
    "words",
    [
        ("ssh", "web", "-n", "team-a", "--", "id"),
        ("ssh", "web", "--namespace", "team-a", "--command=id"),
        ("ssh", "web", "--namespace=team-a", "--local-ssh-opts=-v", "-l", "me"),
        ("ssh", "web", "-n", "team-a", "-c", "whoami"),
        ("ssh", "-t", "-v", "web", "-n", "team-a"),
        ("console", "web", "-n", "team-a"),
        ("port-forward", "web", "22", "-n", "team-a"),
        ("logs", "web", "-n", "team-a"),
    ],
)
def test_our_options_may_stand_behind_the_name(hikube: Program, pair, words):
    hikube("-n", "team-a", "up", pair, *SIM)
    result = hikube(*words)
    assert "HK510" in result.err, "the machine was found in the namespace that stands behind its name"


def test_an_unknown_long_option_is_not_handed_to_ssh(hikube: Program, pair):
    hikube("up", pair, *SIM)
    result = hikube("ssh", "web", "--nonsense")
    assert result.code == 2 and "no such option: --nonsense" in result.err


def test_every_name_that_is_printed_is_taken(hikube: Program, pair):
    """C25: get -o name | xargs."""
    hikube("up", pair, *SIM)
    machine, disk_name = hikube("get", "-o", "name").out.split()
    for words in (("get",), ("describe",), ("wait", "--for=create")):
        assert hikube(words[0], machine, *words[1:]).code == 0
        assert hikube(words[0], disk_name, *words[1:]).code == 0
    assert hikube("delete", machine, disk_name, "--dry-run=client").code == 0
    for words in (("stop",), ("start",), ("restart",), ("pause",), ("unpause",), ("events", "--for"), ("events",)):
        assert hikube(*words, machine).code == 0, words
    assert hikube("down", machine).code == 0


def test_kubectls_options_of_get(hikube: Program, pair):
    hikube("up", pair, *SIM)
    assert hikube("get", "web").out.split("\n")[1].startswith("web ")
    assert hikube("get", "sys").out.split("\n")[1].startswith("sys ")
    assert not hikube("get", "vm", "--no-headers").out.startswith("NAME")
    assert hikube("get", "vm", "--show-labels").out.split()[-1] == "app=web"
    assert hikube("get", "vm", "-L", "app").out.split("\n")[0].endswith("APP")
    assert hikube("get", "-f", pair, "-o", "name").out.count("\n") == 2
    assert hikube("get", "vm", "--field-selector", "metadata.name=web", "-o", "name").out
    assert hikube("get", "vm", "--field-selector", "metadata.name!=web", "-o", "name").out.strip() == ""
    assert hikube("get", "vm", "nothere", "--ignore-not-found").code == 0
    out = hikube("get", "-A", "-o", "custom-columns=NAME:.metadata.name,KIND:.kind,NONE:.status.nothing").out
    assert out.split() == ["NAME", "KIND", "NONE", "web", "VMInstance", "<none>", "sys", "VMDisk", "<none>"]
    hikube("up", hikube.file("two.yaml", PAIR.replace("web", "app").replace("sys", "sys2")), *SIM)
    names = hikube("get", "vm", "--sort-by", ".metadata.name", "-o", "name").out.split()
    assert [n.rpartition("/")[2] for n in names] == ["app", "web"]
    assert hikube("get", "events").code == 2


def test_kubectls_options_of_wait_delete_and_apply(hikube: Program, pair):
    assert hikube("apply", "-f", pair, *SIM, "--dry-run=client", "--server-side").code == 0
    assert hikube("get", "vm", "-o", "name").out.strip() == ""
    hikube("apply", "-f", pair, *SIM)
    assert hikube("wait", "vm", "-l", "app=web", "--for=condition=Ready").code == 0
    assert hikube("wait", "web", "--for=condition=Ready").code == 0
    assert hikube("wait", "vm", "--all", "--for=condition=Ready").code == 0
    assert hikube("wait", "--for=condition=Ready").code == 2
    assert "deleted (dry run)" in hikube("delete", "vm", "-l", "app=web", "--dry-run=client").out
    assert hikube("get", "vm/web").code == 0
    assert hikube("delete", "vm", "-l", "app=web", "--now", "--cascade=foreground").code == 0
    assert hikube("get", "vm/web").code == 1
    hikube("apply", "-f", pair, *SIM)
    assert hikube("stop", "--all").out == "VM web was stopped\n"
    assert hikube("stop", "--all").out == "VM web is already stopped\n"
    assert hikube("start", "--all").out == "VM web was scheduled to start\n"
    assert hikube("start", "web").out == "VM web is already running\n"
    assert hikube("unpause", "web").out == "VM web is not paused\n"


def test_ready_means_that_the_guest_is_up(hikube: Program, pair):
    """F1: the condition, the column and `up` say the same, and the table tells the phase before."""
    hikube("apply", "-f", pair, *SIM, "--pace", "60")
    row = hikube("get", "vm").out.split("\n")[1].split()
    assert row[1] == "Booting:" and "False" in row
    timed_out = hikube("wait", "vm/web", "--for=condition=Ready", "--timeout=0.1s")
    assert timed_out.code == 3 and "Ready=False (Booting" in timed_out.err
    up = hikube("apply", "-f", pair)
    assert "log in" not in up.out and "wait vm/web --for=condition=Ready" in up.out


def test_a_failed_import_says_so_and_why(hikube: Program):
    """F11."""
    bad = PAIR.replace(
        "name: sys\n", 'name: sys\n  annotations: {hikube.local/simulate: "stage=import,outcome=fail"}\n', 1
    )
    assert hikube("up", hikube.file("bad.yaml", bad), *SIM).code == 1
    assert hikube("get", "vmdisk").out.split("\n")[1].split()[1] == "ImportFailed"
    condition = hikube("get", "vmdisk", "sys", "-o", "json").json["status"]["conditions"][0]
    assert (condition["status"], condition["reason"]) == ("False", "ImportFailed") and "import failed" in condition[
        "message"
    ]
    assert "import failed" in hikube("describe", "vmdisk", "sys").out
    assert "import failed" in hikube("wait", "vmdisk/sys", "--for=condition=Ready", "--timeout=0.1s").err
    hikube("up", hikube.file("good.yaml", PAIR))
    assert hikube("get", "vmdisk").out.split("\n")[1].split()[1] == "Ready"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("shutdown", "stop"),
        ("launch", "up"),
        ("reboot", "restart"),
        ("edit", "up"),
        ("suspend", "pause"),
        ("validat", "validate"),
    ],
)
def test_a_word_of_another_tool_is_answered_with_ours(hikube: Program, typed, meant):
    assert f"Did you mean '{meant}'?" in hikube(typed, "web").err


@pytest.mark.parametrize("typed", ["dwon", "delet", "purg", "rest", "rset", "remove", "destroy", "downn", "deletee"])
def test_no_word_is_taken_for_one_that_removes(hikube: Program, typed):
    """C26."""
    err = hikube(typed, "web").err
    assert not any(f"'{word}'?" in err for word in ("down", "delete", "purge", "reset", "rm"))


@pytest.mark.parametrize(
    "words",
    [
        ("ls",),
        ("list",),
        ("status",),
        ("info", "web"),
        ("help",),
        ("help", "up"),
        ("help", "images", "pull"),
        ("-V",),
        (),
    ],
)
def test_words_that_fingers_type(hikube: Program, pair, words):
    hikube("up", pair, *SIM)
    result = hikube(*words)
    assert result.code == 0 and result.out


def test_help_has_sections_and_examples(hikube: Program):
    text = hikube("--help").out
    for section in ("Machines:", "Look:", "Access:", "Manifests:", "Lab:", "Images:", "Host:"):
        assert f"\n{section}\n" in text
    assert "hikube-local up vm.yaml" in hikube("up", "--help").out
    assert "hikube-local apply -f vm.yaml" in hikube("apply", "--help").out


def test_a_verb_has_one_row_and_no_word_means_two_things():
    from hikube_local.cli import verbs

    words = [w for verb in verbs.VERBS.values() for w in (verb.name, *verb.also, *verb.meant)]
    assert len(words) == len(set(words)) and set(verbs.EXAMPLES) <= set(verbs.ALIASES)
    assert not any(verb.removes for verb in verbs.MEANT.values())
    for verb in verbs.VERBS.values():
        assert all(shown.split()[0] == verb.name for shown in verb.examples), verb.name


def test_nothing_is_done_in_silence(hikube: Program, pair):
    """F12: what cannot be done is said, with a code that scripts see."""
    assert hikube("convert", "nothere.yaml").code == 2
    assert hikube("convert", pair).code == 2
    hikube("up", pair, *SIM)
    for words in (("screenshot", "web", "/nonexist/x.png"), ("screenshot", "web", "x.jpg")):
        assert hikube(*words).code == 2
    assert not os.path.exists("/nonexist")


def test_render_can_be_piped(hikube: Program, pair):
    """F13."""
    import yaml

    documents = list(yaml.safe_load_all(hikube("render", pair, "--as", "kubevirt").out))
    assert {"DataVolume", "VirtualMachine", "Service"} <= {d["kind"] for d in documents}
    assert hikube("render", pair, "--as", "kubevirt", "--to", "-").out == hikube("render", pair, "--as", "kubevirt").out
    assert "<domain" in hikube("render", pair, "--to", "-").out and not (hikube.folder / "-").exists()
    assert hikube("render", pair).code == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("99999:80", "port 99999 is"),
        ("80:99999", "port 99999 is"),
        ("x:80", "'x' is not a port"),
        ("udp/53:53", "UDP is not forwarded"),
    ],
)
def test_port_forward_blames_the_right_word(hikube: Program, given, says):
    """F14."""
    from hikube_local.cli.ports import _pair
    from hikube_local.errors import UsageError

    with pytest.raises(UsageError, match=says):
        _pair(given)
    assert (_pair("tcp/18081:80"), _pair("8080:80"), _pair(":80"), _pair("80")) == (
        (18081, 80),
        (8080, 80),
        (0, 80),
        (80, 80),
    )


def test_validate_tells_every_problem_of_an_object_at_once(hikube: Program):
    """F17: an unknown key hides neither a wrong type nor a wrong value."""
    text = instance(externl=True, instanceType="s1.medum", running="yes", sshKeys=["ssh-rsa nonsense"])
    text += "\n---\n" + disk(source={"image": {"name": "debain-12"}}, storge="5Gi")
    found = hikube("validate", "-", "-o", "json", input=text).json
    assert {"HK204", "HK302", "HK205", "HK313", "HK312"} <= {f["code"] for f in found}
    image = next(f for f in found if f["code"] == "HK312")
    assert "did you mean debian-12" in image["help"]


def test_validate_judges_no_value_that_was_told_already(hikube: Program):
    """What is dropped for its type begins no findings of its own."""
    found = hikube(
        "validate", "-", "-o", "json", input=instance(instanceType=5, sshKeys=["k"], resources={"cpu": True})
    ).json
    assert {f["code"] for f in found if f["severity"] == "error"} == {"HK205"}


def test_errors_hold_no_numbers_of_errno(hikube: Program, pair):
    """F21."""
    for words in (("test", pair, "--checks", "nothere.yml"), ("validate", "nothere.yml"), ("images", "import", "/")):
        result = hikube(*words)
        assert result.code in (1, 2) and "Errno" not in result.err + result.out and "HK999" not in result.err


def test_images_have_names_and_one_dialect(hikube: Program, tmp_path):
    """F19, F20: the name first, a default name, and JSON in camelCase with times as Kubernetes writes them."""
    raw = tmp_path / "My Golden_Image.raw"
    raw.write_bytes(b"\0" * 510 + b"\x55\xaa" + b"x" * 65536)
    assert hikube("images", "import", raw).code == 0
    assert hikube("images", "list").out.split("\n")[1].startswith("my-golden-image ")
    row = hikube("images", "list", "-o", "json").json[0]
    assert row["name"] == "my-golden-image" and {"virtualSize", "usedBy", "digest"} <= set(row)
    assert row["fetched"].endswith("Z") and "_" not in "".join(row)
    # Imported by hand: nobody else has it.
    assert hikube("images", "prune", "--yes").err == "nothing to remove\n"
    assert "did you mean my-golden-image" in hikube("images", "pull", "my-goldn-image").err
    assert hikube("images", "rm", "my-golden-image", "--yes").code == 0
    assert hikube("images", "list", "-o", "json").json == []


def test_the_link_of_dotfiles_is_written_through(hikube: Program, tmp_path):
    """A13, U4: ~/.ssh/config may be a link; purge takes the line out again."""
    home = tmp_path / "user"
    (home / ".ssh").mkdir(parents=True)
    real = tmp_path / "dotfiles"
    real.write_text("Host x\n  User y\n")
    (home / ".ssh" / "config").symlink_to(real)
    env = {"HOME": str(home)}
    assert hikube("ssh-config", "--install", env=env).code == 0
    assert (
        (home / ".ssh" / "config").is_symlink()
        and real.read_text().startswith('Include "')
        and "Host x" in real.read_text()
    )
    assert hikube("ssh-config", "--install", env=env).code == 0
    assert real.read_text().count("Include") == 1
    assert hikube("purge", "-A", "--disks", "--yes", env=env).code == 0
    assert real.read_text() == "Host x\n  User y\n" and (home / ".ssh" / "config").is_symlink()


def test_no_code_of_the_working_folder_is_run(hikube: Program, pair, tmp_path):
    """A1: ssh runs our ProxyCommand in the folder where the user stands."""
    from hikube_local.access.ssh import program

    for name in ("click.py", "yaml.py", "hikube_local.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\n")
    done = subprocess.run([*program(), "version"], cwd=tmp_path, env=hikube.env, capture_output=True, text=True)
    assert done.returncode == 0 and not (tmp_path / "pwned").exists(), done.stderr


@pytest.mark.parametrize("home", ['/tmp/a"b', "/tmp/a\nb", "/tmp/a\\b"])
def test_a_home_that_would_become_lines_of_other_files_is_refused(hikube: Program, home):
    """A17, A24."""
    result = hikube("get", env={"HIKUBE_LOCAL_HOME": home})
    assert result.code == 2 and "HIKUBE_LOCAL_HOME" in result.err and "HK999" not in result.err


def test_a_home_that_is_not_utf_8_is_refused(hikube: Program):
    env = {**os.environ, "HIKUBE_LOCAL_HOME": "X", "PYTHONPATH": str(ROOT)}
    raw = {os.fsencode(k): os.fsencode(v) for k, v in env.items()} | {b"HIKUBE_LOCAL_HOME": b"/tmp/\xff"}
    done = subprocess.run([sys.executable, "-m", "hikube_local", "get"], env=raw, capture_output=True, text=True)
    assert done.returncode == 2 and "HK999" not in done.stderr


def test_a_machine_whose_clock_was_set_back_ends(hikube: Program, pair):
    """A14."""
    import sqlite3

    hikube("apply", "-f", pair, *SIM, "--pace", "1")
    with sqlite3.connect(hikube.home / "state" / "store.sqlite") as store:
        name, body = store.execute("SELECT scope, body FROM allocations WHERE scope LIKE '%/web'").fetchone()
        row = json.loads(body)
        row["sim"]["started"] += 10**6
        store.execute("UPDATE allocations SET body=? WHERE scope=?", (json.dumps(row), name))
    assert hikube("get", "vm").code == 0
    assert hikube("up", pair, "--timeout", "1s").code == 3


def test_a_machine_that_is_stopped_while_somebody_looks_is_no_bug(hikube: Program, pair):
    """A15."""
    from hikube_local.api.objects import Object, VMInstanceSpec
    from hikube_local.backends.simulator import Simulator
    from hikube_local.paths import layout
    from hikube_local.store.db import Store

    world = Simulator(Store(layout({"HIKUBE_LOCAL_HOME": str(hikube.home)})))
    obj = Object(kind="VMInstance", namespace="default", name="web", spec=VMInstanceSpec())
    assert world.moment(obj).outcome == "exit"


def test_global_options_may_stand_before_each_group_of_verbs():
    import click

    from hikube_local.cli import main, verbs

    context = click.Context(main.cli)
    assert main.reorder(["-n", "x", "help"]) == ["help"] and main.reorder(["-n", "x", "get"]) == ["get", "-n", "x"]
    for name, verb in verbs.VERBS.items():
        assert isinstance(main.cli.get_command(context, name), click.Group) == verb.group, name


@pytest.mark.parametrize("output", ["name", "jsonpath={.items[*].metadata.name}"])
def test_nothing_is_printed_of_nothing(hikube: Program, output: str):
    """As kubectl: a script that counts lines counts none."""
    done = hikube("get", "vm", "-o", output)
    assert (done.code, done.out) == (0, "")
