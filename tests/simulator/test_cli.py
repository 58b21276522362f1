"""The command line's forms on the simulator: what scripts rely on."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from tests.conftest import PAIR, ROOT, Program, disk, instance
from tests.growth import patience

SIM = ("--backend", "simulator")


def test_up_get_down(hikube: Program, pair):
    up = hikube("up", pair, *SIM)
    assert up.code == 0, up.err
    assert re.search(r"^web +Running +True +u1.medium ", hikube("get", "vm").out, re.M)
    assert re.search(r"^sys +Ready +5Gi +local ", hikube("get", "vmdisk").out, re.M)
    again = hikube("up", pair)
    assert again.code == 0 and "nothing changed" in again.err
    down = hikube("down")
    assert down.code == 0 and "vminstance.apps.cozystack.io/web deleted" in down.out
    assert hikube("get", "vm", "-o", "json").json["items"] == []
    assert [i["metadata"]["name"] for i in hikube("get", "vmdisk", "-o", "json").json["items"]] == ["sys"]


def test_up_json_is_one_object_a_line_and_ends_with_the_result(hikube, pair):
    lines = hikube("up", pair, *SIM, "-o", "json").lines
    assert all({"type", "time"} <= set(line) for line in lines)
    assert lines[-1]["type"] == "result" and lines[-1]["ok"] is True
    assert {(i["kind"], i["name"]) for i in lines[-1]["items"]} == {("VMDisk", "sys"), ("VMInstance", "web")}
    assert [line["stage"] for line in lines if line["type"] == "ready"] == ["done"]


def test_get_json_is_kubernetes(hikube, pair):
    hikube("up", pair, *SIM)
    one = hikube("get", "vminstance", "web", "-o", "json").json
    assert (one["apiVersion"], one["kind"], one["metadata"]["namespace"]) == (
        "apps.cozystack.io/v1alpha1",
        "VMInstance",
        "default",
    )
    status = one["status"]
    assert status["printableStatus"] == "Running" and status["backend"] == "simulator"
    conditions = {c["type"]: c for c in status["conditions"]}
    assert {"Ready", "DisksReady", "CloudInitSucceeded"} <= set(conditions)
    assert all({"status", "reason", "message", "lastTransitionTime"} <= set(c) for c in conditions.values())
    assert status["access"][0] == {
        "port": 22,
        "protocol": "TCP",
        "address": status["access"][0]["address"],
        "hostPort": 22,
    }
    assert status["differences"][0]["code"] == "HK510"
    assert hikube("get", "vm", "-o", "json").json["kind"] == "List"
    assert hikube("get", "vm/web", "-o", "jsonpath={.status.printableStatus}").out.strip() == "Running"
    assert hikube("get", "vm", "-o", 'jsonpath={range .items[*]}{.metadata.name}{"\\n"}{end}').out == "web\n"
    assert hikube("get", "-o", "name").out.split() == [
        "vminstance.apps.cozystack.io/web",
        "vmdisk.apps.cozystack.io/sys",
    ]
    assert "kind: VMDisk" in hikube("get", "dv", "sys", "-o", "yaml").out


def test_get_yaml_can_be_applied_again(hikube, pair):
    hikube("up", pair, *SIM)
    text = hikube("get", "-o", "yaml").out
    assert "nothing changed" in hikube("up", "-", input=text).err


def test_selectors_and_namespaces(hikube, pair):
    hikube("up", pair, *SIM)
    hikube("-n", "team", "up", pair, *SIM)
    assert hikube("get", "vm", "-l", "app=web", "-o", "name").out.count("web") == 1
    assert hikube("get", "vm", "-l", "app!=web").out == ""
    assert hikube("get", "-A", "vm", "-o", "json").json["items"][1]["metadata"]["namespace"] == "team"
    assert hikube("get", "vm", "-n", "team", "-o", "name").code == 0
    assert hikube("get", "vm", "web", env={"HIKUBE_LOCAL_NAMESPACE": "team"}).code == 0
    missing = hikube("-n", "nowhere", "get", "vm", "web")
    assert missing.code == 1 and "HK804" in missing.err


def test_the_namespace_may_not_be_contradicted(hikube):
    path = hikube.file("a.yaml", PAIR.replace("name: sys\nspec", "name: sys\n  namespace: own\nspec"))
    result = hikube("up", path, *SIM, "-n", "other")
    assert result.code == 2 and "HK406" in result.err
    assert hikube("get", "-A").out == ""


def test_invalid_manifests_change_nothing(hikube, pair):
    bad = hikube.file("bad.yaml", PAIR.replace("u1.medium", "u1.tiny").replace("5Gi", "5GB"))
    result = hikube("up", bad, *SIM)
    assert result.code == 2
    assert "HK302" in result.err and "HK308" in result.err and "bad.yaml:21:17" in result.err
    assert hikube("get", "-A").out == ""


def test_validate(hikube, pair):
    assert hikube("validate", pair).code == 0
    warned = hikube.file("w.yaml", instance(sshKeys=["ssh-rsa AAAA... me"]))
    assert hikube("validate", warned).code == 0
    assert hikube("validate", "--strict", warned).code == 2
    found = hikube("validate", "-o", "json", warned).json
    assert {"code", "severity", "file", "line", "column", "object", "path", "message", "help"} == set(found[0])
    broken = hikube.file("b.yaml", "a: [\n")
    result = hikube("validate", "-o", "json", broken)
    assert result.code == 2 and result.json[0]["code"] == "HK102"
    assert hikube("validate", "nowhere.yaml", "-o", "json").json[0]["code"] == "HK101"


def test_plan_and_its_exit_code(hikube, pair):
    before = hikube("plan", pair, *SIM, "--detailed-exitcode", "-o", "json")
    assert before.code == 4
    assert [r["action"] for r in before.json] == ["create", "create"]
    assert hikube("get", "-A").out == ""
    hikube("up", pair, *SIM)
    after = hikube("diff", pair, "--detailed-exitcode", "-o", "json")
    assert after.code == 0 and [r["action"] for r in after.json] == ["none", "none"]
    changed = hikube.file("c.yaml", PAIR.replace("[22, 80]", "[22, 443]").replace("u1.medium", "u1.4xlarge"))
    rows = {r["name"]: r for r in hikube("plan", changed, "-o", "json").json}
    assert rows["web"]["action"] == "restart"
    assert {(c["path"], c["live"]) for c in rows["web"]["changes"]} == {
        ("spec.externalPorts", True),
        ("spec.instanceType", False),
    }


def test_what_needs_no_restart_is_not_said_to_need_one(hikube, pair):
    """A machine that is off takes all of it at its next start."""
    hikube("up", pair, *SIM)
    assert hikube("stop", "web").code == 0
    changed = hikube.file("c.yaml", PAIR.replace("u1.medium", "u1.large"))
    row = next(r for r in hikube("plan", changed, "-o", "json").json if r["name"] == "web")
    assert row["action"] == "update" and [c["live"] for c in row["changes"]] == [True]
    assert "after a restart" not in hikube("plan", changed).out


def test_a_new_seed_says_what_runs_again(hikube):
    """C7: a new cloudInitSeed makes cloud-init begin again, formatting included."""
    text = "#cloud-config\nruncmd: [ls]\ngrowpart: {mode: auto}\nbootcmd: [ls]\nfs_setup:\n- {device: /dev/vdc, filesystem: ext4}\n"
    machine = {"instanceType": "u1.medium", "disks": ["sys"], "cloudInit": text}
    docs = PAIR.split("---")[0] + "---\n" + instance(**machine)
    first = hikube.file("a.yaml", docs)
    assert hikube("up", first, *SIM).code == 0
    assert [r["notes"] for r in hikube("plan", first, "-o", "json").json] == [[], []]
    second = hikube.file("b.yaml", docs.replace(instance(**machine), instance(**machine, cloudInitSeed="2")))
    planned = hikube("plan", second)
    assert "runs again: runcmd, fs_setup" in planned.out and "bootcmd" not in planned.out
    assert "/dev/vdc may be formatted again" in planned.out
    done = hikube("up", second, *SIM)
    assert done.code == 0 and "runs again: runcmd, fs_setup" in done.err and "/dev/vdc" in done.err
    assert "runs again" not in hikube("up", second, *SIM).err


def test_changes_that_need_a_restart(hikube, pair):
    hikube("up", pair, *SIM)
    changed = hikube.file("c.yaml", PAIR.replace("u1.medium", "u1.large"))
    live = hikube("up", changed)
    assert live.code == 0 and "restart" not in live.err and "2 vCPUs, 8Gi of memory" in live.err
    assert "RestartRequired" not in str(hikube("get", "vm", "web", "-o", "json").json["status"]["conditions"])
    # More than four times what it was started with.
    changed = hikube.file("c.yaml", PAIR.replace("u1.medium", "u1.4xlarge"))
    assert "reach the running machine, up to four times" in hikube("plan", changed).out
    result = hikube("up", changed)
    assert result.code == 0 and "restart" in result.err
    status = hikube("get", "vm", "web", "-o", "json").json["status"]
    assert {c["type"]: c["status"] for c in status["conditions"]}["RestartRequired"] == "True"
    assert hikube("up", changed, "--restart").code == 0
    status = hikube("get", "vm", "web", "-o", "json").json["status"]
    assert "RestartRequired" not in {c["type"] for c in status["conditions"]}


def test_stop_is_a_recorded_wish(hikube, pair):
    hikube("up", pair, *SIM)
    assert hikube("stop", "web").code == 0
    assert hikube("get", "vm", "web", "-o", "jsonpath={.status.printableStatus}").out.strip() == "Stopped"
    assert hikube("start", "vm-instance-web").code == 0
    assert hikube("pause", "web").code == 0
    assert hikube("get", "vm", "web", "-o", "jsonpath={.status.printableStatus}").out.strip() == "Paused"
    assert hikube("unpause", "web").code == 0
    assert hikube("restart", "web").code == 0
    hikube("stop", "web")
    assert hikube("up", pair).code == 0
    assert hikube("get", "vm", "web", "-o", "jsonpath={.status.printableStatus}").out.strip() == "Running"


FAILURES = {
    ("web", "stage=kernel,outcome=panic"): (1, "HK903"),
    ("web", "stage=firmware,outcome=fail"): (1, "HK901"),
    ("web", "stage=cloud-final,outcome=fail"): (1, "HK906"),
    ("web", "stage=init,outcome=exit"): (1, "HK910"),
    ("web", "stage=network,outcome=hang"): (3, "HK907"),
    ("web", "stage=cloud-config,outcome=slow,after=0.2"): (0, ""),
    ("sys", "stage=import,outcome=fail"): (1, "HK701"),
}


@pytest.mark.parametrize(("name", "text"), FAILURES)
def test_simulated_failures(hikube, name, text):
    code, word = FAILURES[(name, text)]
    path = hikube.file(
        "f.yaml",
        PAIR.replace(f"name: {name}\n", f'name: {name}\n  annotations: {{hikube.local/simulate: "{text}"}}\n', 1),
    )
    result = hikube("up", path, *SIM, "-o", "json", "--timeout", "1s")
    assert result.code == code, result.err
    assert result.lines[-1]["ok"] is (code == 0)
    assert word in result.out


def test_a_failed_cloud_init_leaves_the_machine_running(hikube):
    path = hikube.file(
        "f.yaml",
        PAIR.replace(
            "name: web\n", 'name: web\n  annotations: {hikube.local/simulate: "stage=cloud-final,outcome=fail"}\n', 1
        ),
    )
    assert hikube("up", path, *SIM).code == 1
    status = hikube("get", "vm", "web", "-o", "json").json["status"]
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert (conditions["Ready"], conditions["CloudInitSucceeded"]) == ("True", "False")


def test_state_moves_while_nothing_runs(hikube, pair):
    hikube("apply", "-f", pair, *SIM, "--pace", str(patience(6)))
    end = time.monotonic() + patience(30)
    assert hikube("get", "vm", "web", "-o", "jsonpath={.status.phase}").out.strip() != "done"
    while hikube("get", "vm", "web", "-o", "jsonpath={.status.phase}").out.strip() != "done":
        assert time.monotonic() < end


def test_wait(hikube, pair):
    hikube("apply", "-f", pair, *SIM)
    assert hikube("wait", "vm/web", "--for=condition=Ready").code == 0
    assert hikube("wait", "vmdisk/sys", "--for=jsonpath={.status.phase}=Succeeded").code == 0
    assert hikube("wait", "vm/web", "--for=delete", "--timeout", "0.3s").code == 3
    hikube("delete", "vm/web")
    assert hikube("wait", "vm/web", "--for=delete").code == 0


def test_disks_are_deleted_only_when_asked(hikube, pair):
    hikube("up", pair, *SIM)
    asked = hikube("down", "--disks")
    assert asked.code == 2 and "--yes" in asked.err and "sys" in asked.err
    assert hikube("delete", "vmdisk/sys").code == 1  # in use
    assert hikube("down", "--disks", "--yes").code == 0
    assert hikube("get", "-A").out == ""


def test_prune(hikube, pair):
    hikube("up", pair, *SIM)
    other = hikube.file("o.yaml", instance(sshKeys=["k"]).replace('"web"', '"other"'))
    assert hikube("up", other, *SIM).code == 0
    assert hikube("get", "vm", "-o", "name").out.count("web") == 1
    assert hikube("up", other, "--prune").code == 2
    assert hikube("up", other, "--prune", "--yes").code == 0
    assert hikube("get", "vm", "-o", "name").out.split() == ["vminstance.apps.cozystack.io/other"]


def test_the_backend_cannot_be_switched(hikube, pair):
    hikube("up", pair, *SIM)
    assert hikube("up", pair, "--backend", "qemu").code in (1, 2)
    assert "HK807" in hikube("up", pair, "--backend", "qemu").err


def test_two_ups_at_once_wait_for_one_another(hikube, pair):
    slow = hikube.file("s.yaml", PAIR)
    env = {**hikube.env}
    argv = [sys.executable, "-m", "hikube_local", "up", str(slow), *SIM]
    processes = [
        subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=hikube.folder)
        for _ in range(4)
    ]
    outs = [p.communicate(timeout=patience(60)) for p in processes]
    assert [p.returncode for p in processes] == [0, 0, 0, 0], outs
    steps = [e for e in hikube("events", "-o", "json").json if e.get("step") == "start"]
    assert len(steps) == 1


def test_render_is_the_same_everywhere(hikube, pair):
    hikube("render", pair, "--to", hikube.folder / "out")
    folder = hikube.folder / "out" / "default" / "web"
    assert sorted(os.listdir(folder)) == ["domain.xml", "meta-data", "user-data"]
    assert (folder / "user-data").read_text() == "#cloud-config\nhostname: web\n"
    assert 'type="kvm"' in (folder / "domain.xml").read_text()
    assert not (hikube.home / "state").exists()


def test_words_that_are_off_are_exit_2(hikube):
    for words in (
        ("frobnicate",),
        ("get", "pods"),
        ("up",),
        ("up", "--backend", "vmware", "x"),
        ("get", "-o", "xml", "vm"),
        ("wait", "vm/x", "--for=luck"),
        ("scp", "a"),
    ):
        assert hikube(*words).code == 2, words


def test_unknown_verbs_get_a_suggestion(hikube):
    assert "describe" in hikube("descirbe").err


def test_options_come_from_flag_variable_and_file(hikube, pair):
    config = hikube.file("config.yaml", "namespace: fromfile\noptions: {backend: simulator}\n")
    assert hikube("up", pair, "--config", config).code == 0
    assert hikube("get", "vm", "-n", "fromfile", "-o", "name").out.strip()
    shown = hikube("config", "view", "--show-origin", "--config", config, env={"HIKUBE_LOCAL_NAMESPACE": "fromenv"}).out
    assert "namespace: fromenv    # HIKUBE_LOCAL_NAMESPACE" in shown
    assert hikube("get", "--config", hikube.file("bad.yaml", "nonsense: 1\n")).code == 2


def test_own_images_of_the_configuration_are_known(hikube):
    config = hikube.file("config.yaml", "images: {golden: {url: 'https://mirror.example/golden.qcow2', user: admin}}\n")
    path = hikube.file("d.yaml", PAIR.replace("debian-12", "golden"))
    assert hikube("validate", path).code == 2
    assert hikube("validate", path, "--config", config).code == 0


def test_tables_are_never_cut(hikube):
    ports = list(range(1000, 1040))
    path = hikube.file("p.yaml", instance(external=True, externalPorts=ports, sshKeys=["k"]))
    hikube("up", path, *SIM)
    out = hikube("get", "vm", "-o", "wide", env={"COLUMNS": "40"}).out
    assert ",1039 " in out and "\x1b" not in out
    # The usual table shows the first ones and how many there are more.
    assert "1000,1001,1002,1003,1004,+35" in hikube("get", "vm").out


def test_describe_events_and_catalogue(hikube, pair):
    hikube("up", pair, *SIM)
    text = hikube("describe", "web").out
    for word in ("Instance ID:", "1. sys", "virtio (profile)", "CloudInitSucceeded", "HK510"):
        assert word in text
    assert "starting" in hikube("events", "--for", "vm/web").out
    assert hikube("catalog", "instancetypes", "-o", "json").json[0]["name"] == "s1.small"
    assert "windows.2k22" in hikube("catalog", "profiles").out
    assert {"debian-12", "ubuntu-2404", "ubuntu-24.04", "cloudlinux-9"} <= set(
        hikube("catalog", "images", "-o", "name").out.split()
    )
    assert json.loads(hikube("version", "-o", "json").out)["hikubeLocal"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(hikube, shell):
    assert "_HIKUBE_LOCAL_COMPLETE" in hikube("completion", shell).out


def test_every_verb_has_help(hikube):
    from hikube_local.cli.verbs import WORDS

    for verb in WORDS:
        if verb == "virsh":
            continue
        result = hikube(verb, "--help")
        assert result.code == 0 and "Usage:" in result.out, verb


def test_a_simulated_machine_is_never_taken_for_a_real_one(hikube, pair):
    hikube("up", pair, *SIM)
    for words in (
        ("ssh", "web"),
        ("console", "web"),
        ("logs", "web"),
        ("port-forward", "web", "80"),
        ("screenshot", "web", "x.png"),
    ):
        result = hikube(*words)
        assert result.code == (255 if words[0] == "ssh" else 1) and "HK510" in result.err, words


def test_all_documents_of_the_reference_validate(hikube):
    folder = ROOT / "examples" / "hikube-docs"
    result = hikube("validate", *sorted(folder.glob("*.yaml")), "-o", "json")
    assert [f for f in result.json if f["severity"] == "error" and f["code"] not in ("HK401",)] == []


def test_completion_knows_the_names(hikube, pair):
    hikube("up", pair, *SIM)

    def complete(*words: str) -> list[str]:
        env = {
            "_HIKUBE_LOCAL_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("hikube-local", *words)),
            "COMP_CWORD": str(len(words)),
        }
        return [line.split(",", 1)[1] for line in hikube(env=env).out.splitlines()]

    assert complete("ssh", "w") == ["web"]
    assert complete("ssh", "root@w") == ["root@web"]
    assert complete("get", "vmd") == ["vmdisks"]
    assert complete("get", "vmdisk", "s") == ["sys"]
    assert complete("delete", "vm/w") == ["vm/web"]
    assert "describe" in complete("desc")


def test_a_disk_goes_only_after_its_machine(hikube, pair):
    hikube("up", pair, *SIM)
    story = hikube("down", "--disks", "--yes").err
    assert story.index("vminstance/web: deleting") < story.index("vmdisk/sys: deleting")


def test_a_machine_on_disks_of_another_world_is_refused(hikube, pair):
    hikube("up", pair, *SIM)
    hikube("down")
    result = hikube("up", pair)
    assert result.code == 2 and "HK807" in result.err
    assert hikube("get", "vm").out == ""


def test_an_interrupt_is_told_and_leaves_nothing_half_done(hikube, pair):
    argv = [sys.executable, "-m", "hikube_local", "up", str(pair), *SIM, "--pace", "60"]
    up = subprocess.Popen(argv, env=hikube.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + patience(30)
        while "Booting" not in hikube("get", "vm").out:
            assert time.monotonic() < deadline
        time.sleep(0.3)
        up.send_signal(signal.SIGINT)
        _, err = up.communicate(timeout=patience(20))
    finally:
        up.kill()
    assert up.returncode == 130 and "interrupted" in err and "Traceback" not in err
    assert hikube("up", pair, "--no-wait").code == 0


def test_a_restart_that_was_killed_between_its_halves_is_finished_by_the_next_up(hikube, pair):
    hikube("up", pair, *SIM)
    before = hikube("get", "vm/web", "-o", "json").json
    assert hikube("restart", "web").out == "VM web was restarted\n"
    events = [e["step"] for e in hikube("events", "-o", "json").json if e.get("step")]
    assert events[-4:].count("stop") == 1 and "start" in events[-3:]
    # The wish alone, as a kill right after it leaves it.
    layout = f"{hikube.home}/state/store.sqlite"
    with sqlite3.connect(layout) as store:
        name, body = store.execute("SELECT scope, body FROM allocations WHERE scope LIKE '%/web'").fetchone()
        row = json.loads(body)
        row |= {"power": "start", "end_boot": row["sim"]["started"]}
        store.execute("UPDATE allocations SET body=? WHERE scope=?", (json.dumps(row), name))
    assert hikube("up", pair).code == 0
    with sqlite3.connect(layout) as store:
        (after,) = store.execute("SELECT body FROM allocations WHERE scope=?", (name,)).fetchone()
    assert json.loads(after)["sim"]["started"] > row["end_boot"]
    assert hikube("get", "vm/web", "-o", "json").json["metadata"]["generation"] == before["metadata"]["generation"]
    assert "nothing changed" in hikube("up", pair).err


def test_dry_run_shows_what_prune_would_remove(hikube, pair):
    hikube("up", pair, *SIM)
    only = hikube.file("only.yaml", PAIR.split("---")[0])
    shown = hikube("up", only, "--prune", "--dry-run")
    assert shown.code == 0 and "- delete  vminstance/web" in shown.out
    rows = hikube("up", only, "--prune", "--dry-run", "-o", "json").lines[-1]["items"]
    assert ("delete", "web") in {(r["action"], r["name"]) for r in rows}
    assert "web" in hikube("get", "vm").out


def test_up_json_ends_with_a_result_whatever_happens(hikube, pair):
    bad = hikube.file("bad.yaml", PAIR.replace("u1.medium", "u1.tiny"))
    result = hikube("up", bad, *SIM, "-o", "json")
    assert result.code == 2 and result.lines[-1]["ok"] is False
    assert "HK302" in {f["code"] for f in result.lines[-1]["findings"]}
    hikube("up", pair, *SIM)
    switched = hikube("up", pair, "--backend", "qemu", "-o", "json")
    assert switched.code == 2 and switched.lines[-1]["code"] == "HK807"


@pytest.mark.parametrize("verb", ["get", "events", "validate", "up", "plan", "top", "ports", "doctor", "version"])
def test_an_unknown_output_format_is_refused_everywhere(hikube, pair, verb):
    words = [pair] if verb in ("validate", "up", "plan") else []
    result = hikube(verb, *words, "-o", "bogus")
    assert result.code == 2 and "HK810" in result.err and "json" in result.err


def test_set_based_selectors_and_lists_of_kinds(hikube, pair):
    hikube("up", pair, *SIM)
    assert "web" in hikube("get", "vm", "-l", "app in (web, db),!other").out
    assert hikube("get", "vm", "-l", "app notin (web)").out == ""
    assert hikube("get", "vm", "-l", "app in web").code == 2
    described = hikube("describe", "vm,dv").out
    assert "VMInstance" in described and "VMDisk" in described


def test_a_folder_called_like_a_machine_does_not_hide_it(hikube, pair):
    hikube("up", pair, *SIM)
    (hikube.folder / "web").mkdir()
    assert "web deleted" in hikube("down", "web").out


def test_delete_all_in_every_namespace(hikube, pair):
    hikube("up", pair, *SIM)
    hikube("up", pair, *SIM, "-n", "team")
    assert hikube("delete", "vm/web", "-A").code == 2
    assert hikube("delete", "vm", "--all", "-A").out.count("web deleted") == 2


def test_jsonpath_as_kubectl_has_it(hikube, pair):
    hikube("up", pair, *SIM)

    def path(template: str) -> str:
        return hikube("get", "vm", "-o", f"jsonpath={template}").out.rstrip("\n")

    assert path("{..name}").split()[0] == "web"
    assert path("{.items[0].metadata.name}{'\\t'}x") == "web\tx"
    assert path("{.items[*].metadata.name.*}") == ""
    wrong = hikube("get", "vm", "-o", 'jsonpath={"\\q"}')
    assert wrong.code == 2 and "HK810" in wrong.err


def test_the_configuration_is_checked_for_its_types(hikube):
    for text in ("options: [a]\n", "options:\n  timeout: {a: 1}\n", "namespace: [a]\n", "bridge: {}\n"):
        (hikube.home / "config.yaml").write_text(text)
        path = hikube.file("c.yaml", text)
        result = hikube("--config", path, "get")
        assert result.code == 2 and "HK606" in result.err, text


def test_ssh_options_may_stand_before_and_behind_the_name(hikube, pair):
    from hikube_local.cli.ssh import split

    assert split(["-vL", "1:h:2", "-N", "uname", "-i"]) == (["-vL", "1:h:2", "-N"], ["uname", "-i"])
    assert split(["--", "-x"]) == ([], ["--", "-x"])
    hikube("up", pair, *SIM)
    # A simulated machine is found behind ssh's options; nobody answers there, which is ssh's own failure.
    result = hikube("ssh", "-v", "-L", "8080:localhost:80", "web", "--", "true")
    assert result.code == 255 and "HK510" in result.err
    assert hikube("ssh", "-L").code == 2


def test_global_flags_do_not_reach_virsh(hikube):
    result = hikube("-n", "dev", "virsh", "list")
    assert "HK805" in result.err or "HK605" in result.err


def test_simulated_machines_are_named_by_top(hikube, pair):
    hikube("up", pair, *SIM)
    assert "its backend is the simulator" in hikube("top").err


def test_schema_explain_and_convert(hikube):
    assert json.loads(hikube("schema").out)["oneOf"][0]["title"] == "VMInstance"
    told = hikube("explain", "vminstance.spec.externalMethod").out
    assert "On Hikube:" in told and "Here:" in told
    wrong = hikube("explain", "vm.spec.externalMethd")
    assert wrong.code == 2 and "externalMethod" in wrong.err
    old = hikube.file(
        "old.yaml",
        """\
        # a comment
        apiVersion: apps.cozystack.io/v1alpha1
        kind: VirtualMachine
        metadata: {name: old}
        spec: {external: true, externalPorts: [22], sshKeys: ["ssh-ed25519 AAAA me"], systemDisk: {image: fedora}}
        """,
    )
    refused = hikube("validate", old)
    assert refused.code == 2 and "hikube-local convert" in refused.out
    made = hikube("convert", old)
    assert made.code == 0 and "comments" in made.err
    assert hikube("validate", hikube.file("new.yaml", made.out)).code == 0


def test_render_as_kubevirt_writes_one_object_a_file(hikube, pair):
    result = hikube("render", pair, "--as", "kubevirt", "--to", "out")
    assert result.code == 0, result.err
    found = sorted(p.name for p in (hikube.folder / "out" / "default").iterdir())
    assert found == [
        "DataVolume-vm-disk-sys.yaml",
        "Secret-vm-instance-web-cloud-init.yaml",
        "Service-vm-instance-web.yaml",
        "VirtualMachine-vm-instance-web.yaml",
    ]
    assert (hikube.folder / "out/default/Secret-vm-instance-web-cloud-init.yaml").stat().st_mode & 0o077 == 0


def test_a_trap_of_the_user_data_is_told_once_and_at_its_line(hikube):
    """By `test`, which asks validate's rules and `cloudinit check` both; an error elsewhere ends it before anything boots."""
    text = (
        PAIR
        + "    password: hunter2\n    users: [{name: a}]\n"
        + "---\n"
        + PAIR.replace("kind: VMDisk", "kind: VMDisc")
    )
    path = hikube.file("traps.yaml", text)
    result = hikube("test", path)
    assert result.code == 2
    assert result.err.count("[HK330]") == 1
    line = text.splitlines().index("    password: hunter2") + 1
    assert f"traps.yaml:{line}:" in result.err


def test_wrong_checks_are_told_at_once_at_their_lines_before_anything_boots(hikube):
    """Of a file, and of an annotation at the manifest's lines."""
    notes = "  annotations:\n    hikube.local/checks: |\n      - run: {command: ls}\n      - file: {path: x}\n"
    text = PAIR.replace("  labels:\n    app: web\n", notes)
    path = hikube.file("m.yaml", text)
    rows = hikube.file("c.yaml", "- port: {port: ssh}\n- machine: nobody\n  run: {command: ls}\n")
    result = hikube("test", path, "--checks", rows)
    assert result.code == 2 and result.err.count("error[HK331]") == 3, result.err
    line = text.splitlines().index("      - file: {path: x}") + 1
    for where in (f"m.yaml:{line}:22: ", "c.yaml:1:16: ", "c.yaml:2:3: "):
        assert where in result.err


def test_a_disk_that_another_machine_uses_stays_when_its_own_goes(hikube: Program):
    """A CD-ROM of two machines: `down --disks` of one leaves the other one's, and says so."""
    cd = disk(storage="4Gi", optical=True, source={"image": {"name": "debian-12"}}).replace('"sys"', '"cd"')
    machines = [instance(disks=["cd"]).replace('"web"', f'"{name}"') for name in ("a", "b")]
    paths = [hikube.file(f"{name}.yaml", text) for name, text in zip(("cd", "a", "b"), (cd, *machines), strict=True)]
    assert hikube("up", "--backend", "simulator", *paths).code == 0
    gone = hikube("down", "a", "--disks", "--yes")
    assert gone.code == 0 and "vmdisk/cd is kept: used by b" in gone.err
    assert {i["metadata"]["name"] for i in hikube("get", "-A", "-o", "json").json["items"]} == {"cd", "b"}
    refused = hikube("delete", "vmdisk/cd", "--yes")
    assert refused.code == 1 and "the disk cd is attached to b" in refused.err
    assert hikube("down", "b", "--disks", "--yes").code == 0
    assert hikube("get", "-A", "-o", "json").json["items"] == []


def test_a_watch_sees_what_another_command_does(hikube: Program, pair):
    """A line at each change, whoever made it; a machine that is gone ends the watch of it."""
    assert hikube("up", "--backend", "simulator", pair).code == 0
    words = [sys.executable, "-m", "hikube_local", "get", "vm", "web", "-w", "--no-headers"]
    watch = subprocess.Popen(words, env=hikube.env, cwd=hikube.folder, stdout=subprocess.PIPE, text=True)

    def until(status: str) -> None:
        """A machine may be seen on its way."""
        while (line := watch.stdout.readline().split())[:2] != ["web", status]:
            assert line[:1] == ["web"], line

    try:
        until("Running")
        assert hikube("stop", "web").code == 0
        until("Stopped")
        assert hikube("start", "web").code == 0
        until("Running")
        assert hikube("down", "web").code == 0
        watch.stdout.read()
        assert watch.wait(patience(30)) == 0
    finally:
        watch.kill()
        watch.wait()
