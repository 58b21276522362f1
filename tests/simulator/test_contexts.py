"""Commands that act elsewhere: a tenant behind an API, which is our own endpoint over the simulator here."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.conftest import Program
from tests.endpoint import BASE, MERGE, Endpoint, disk
from tests.growth import patience
from tests.tenant import MANIFEST, Elsewhere


def test_a_life_in_a_tenant(elsewhere: Elsewhere):
    path = elsewhere.here.file("m.yaml", MANIFEST)
    plan = elsewhere("plan", path, "-o", "json").json
    assert [(row["action"], row["name"]) for row in plan] == [("create", "sys"), ("create", "web")]
    assert elsewhere.endpoint("GET", f"{BASE}/vminstances").json()["items"] == []  # a plan sends nothing
    up = elsewhere("up", path)
    assert up.code == 0 and up.err.splitlines()[0].startswith("note") is False
    where = f"context prod: {elsewhere.endpoint.url}, namespace default"
    assert where in up.err and up.err.index(where) < up.err.index("created")
    assert "vminstance/web: ready" in up.err and "HK504" not in up.err  # there it is replicated
    again = elsewhere("up", path)
    assert again.code == 0 and "nothing changed" in again.err and where not in again.err  # nothing was written
    row = elsewhere("get", "vm").out.splitlines()[1].split()
    assert row[:4] == ["web", "Running", "True", "u1.nano"] and row[5] == "80"
    assert elsewhere("get", "vm", "-l", "team=a", "-o", "name").out == "vminstance.apps.cozystack.io/web\n"
    assert elsewhere("wait", "vm/web", "--for=condition=Ready", "--timeout=20s").code == 0
    told = elsewhere("describe", "web").out
    assert "Status:         Running" in told and "hikube-local ssh --context prod web" in told
    assert any(e["object"] == "vminstance/web" for e in elsewhere("events", "-o", "json").json)
    assert "80/TCP" in elsewhere("ports").out
    stop = elsewhere("stop", "web")
    assert stop.code == 0 and stop.out == "VM web was stopped\n" and where in stop.err
    assert elsewhere("get", "vm").out.splitlines()[1].split()[1] == "Stopped"
    assert elsewhere("start", "web", "--wait").code == 0
    assert elsewhere("pause", "web").code == 0 and elsewhere("unpause", "web").code == 0
    assert elsewhere("restart", "web", "--wait").code == 0
    refused = elsewhere("delete", "vmdisk/sys", "--yes")
    assert refused.code == 1 and "attached to web" in refused.err
    everything = elsewhere("down", "--yes")
    assert everything.code == 2 and "are named" in everything.err
    # A stop ends where the manifest says that it runs.
    assert elsewhere("stop", "web").code == 0
    again = elsewhere("up", path)
    assert again.code == 0 and "asked to start" in again.err and "ready" in again.err, again.err
    down = elsewhere("down", path, "--disks", "--yes")
    assert down.code == 0 and "vmdisk/sys: deleted" in down.err, down.err
    assert elsewhere("get").out == ""
    # Nothing of it was made on this machine.
    assert elsewhere.here("get").out == "" and not (elsewhere.here.home / "state" / "machines").exists()


def test_a_change_is_what_the_manifest_changed_and_nothing_of_anybody_elses(elsewhere: Elsewhere):
    path = elsewhere.here.file("m.yaml", MANIFEST)
    assert elsewhere("up", path).code == 0
    theirs = {"metadata": {"annotations": {"their/own": "kept"}}, "spec": {"externalMethod": "WholeIP"}}
    assert elsewhere.endpoint("PATCH", f"{BASE}/vminstances/web", theirs, headers=MERGE).status_code == 200
    elsewhere.here.file("m.yaml", MANIFEST.replace("[80]", "[80, 443]").replace(", external: true", ""))
    plan = elsewhere("plan", path).out
    assert "~ " in plan and "externalPorts" in plan
    assert elsewhere("up", path).code == 0
    now = elsewhere.endpoint("GET", f"{BASE}/vminstances/web").json()
    assert now["spec"]["externalPorts"] == [80, 443] and now["spec"]["externalMethod"] == "WholeIP"
    assert now["spec"]["external"] is False  # taken away, as the manifest does not say it any more
    assert now["metadata"]["annotations"]["their/own"] == "kept"


def test_what_was_not_made_from_here_stays_as_it_is(elsewhere: Elsewhere):
    assert elsewhere.endpoint("POST", f"{BASE}/vmdisks", disk("theirs")).status_code == 201
    manifest = disk("theirs", storage="2Gi")
    path = elsewhere.here.file("m.json", json.dumps(manifest))
    mine = elsewhere.here.file("mine.json", json.dumps(disk("mine")))
    for words in (("up", path, mine), ("delete", "vmdisk/theirs", "--yes")):
        refused = elsewhere(*words)
        assert refused.code == 2 and "HK824" in refused.err and "--adopt" in refused.err, refused.err
    # All of it is told before anything is changed.
    assert [d["metadata"]["name"] for d in elsewhere.endpoint("GET", f"{BASE}/vmdisks").json()["items"]] == ["theirs"]
    assert elsewhere("up", path, "--adopt").code == 0
    assert elsewhere.endpoint("GET", f"{BASE}/vmdisks/theirs").json()["spec"]["storage"] == "2Gi"
    assert elsewhere("delete", "vmdisk/theirs", "--yes").code == 0  # it is ours now


@pytest.mark.parametrize("change", ["server", "ca", "namespace", "gone"])
def test_a_context_that_leads_elsewhere_now_is_refused(elsewhere: Elsewhere, change: str):
    """A login to another cluster replaces the kubeconfig under the same names."""
    if change == "server":
        elsewhere.write(server="https://127.0.0.1:1")
    elif change == "ca":
        elsewhere.write(**{"certificate-authority": None, "certificate-authority-data": "LS0tLS1CRUdJTg=="})
    elif change == "namespace":
        elsewhere.kubeconfig.write_text(
            elsewhere.kubeconfig.read_text().replace("namespace: default", "namespace: tenant-b")
        )
    else:
        elsewhere.kubeconfig.unlink()
    refused = elsewhere("get")
    assert refused.code == 2 and "HK820" in refused.err, refused.err
    if change != "gone":
        assert "leads elsewhere" in refused.err and "context rm prod" in refused.err


def test_the_current_context_is_never_used(elsewhere: Elsewhere, here: Program):
    """Another terminal chose it. Of several contexts one must be named; of one there is no choice."""
    several = here("context", "create", "a", "--kubeconfig", elsewhere.kubeconfig)
    assert several.code == 2 and "--kube-context" in several.err and "production" in several.err
    env = {"KUBECONFIG": str(elsewhere.kubeconfig)}
    assert here("get", env=env).out == ""  # local, whatever KUBECONFIG says
    assert here("context", "create", "b", "--kube-context", "tenant", env=env).code == 0
    assert here("context", "show", "b", "-o", "json").json["namespace"] == "default"


def test_which_context_counts(elsewhere: Elsewhere, here: Program):
    assert here("context", "ls", "-o", "name").out == "local\nprod\n"
    assert elsewhere("up", here.file("d.json", json.dumps(disk("d")))).code == 0
    assert here("get", "vmdisk").out == ""
    assert here("get", "vmdisk", env={"HIKUBE_LOCAL_CONTEXT": "prod"}).out.splitlines()[1].split()[0] == "d"
    assert here("context", "use", "prod").code == 0
    assert here("get", "vmdisk", "-o", "name").out == "vmdisk.apps.cozystack.io/d\n"
    assert here("get", "vmdisk", "--context", "local").out == ""
    assert "*" in here("context", "ls").out.splitlines()[2]
    assert here("context", "rm", "prod").code == 0
    assert here("get", "vmdisk").out == ""  # local again
    nothing = here("--context", "prd", "get")
    assert nothing.code == 1 and "HK820" in nothing.err
    for name in ("local", "A b", "", "x" * 60):
        assert here("context", "create", name, "--ssh", "me@box").code == 2
    for host in ("-oProxyCommand=x", "me@box; rm", "a b", "http://box", ""):
        assert here("context", "create", "c", "--ssh", host).code == 2, host


def test_what_was_typed_counts_before_the_environment(elsewhere: Elsewhere, here: Program):
    env = {"HIKUBE_LOCAL_HOST": "ssh://me@box", "HIKUBE_LOCAL_CONTEXT": "prod", "HIKUBE_LOCAL_ADOPT": "true"}
    assert here("--context", "local", "context", "show", env=env).out.startswith("name:        local")
    both = here("--context", "local", "--host", "ssh://me@box", "get")
    assert both.code == 2 and "exclude each other" in both.err
    assert elsewhere.endpoint("POST", f"{BASE}/vmdisks", disk("theirs")).status_code == 201
    kept = here("--context", "prod", "delete", "vmdisk/theirs", "--yes", env={"HIKUBE_LOCAL_ADOPT": "true"})
    assert kept.code == 2 and "HK824" in kept.err
    # One that is wrong is mended with the verb that is about contexts.
    assert here("context", "ls", "-o", "name", env={"HIKUBE_LOCAL_CONTEXT": "nope"}).code == 0
    assert here("get", env={"HIKUBE_LOCAL_CONTEXT": "nope"}).code == 1


def test_a_child_of_ours_acts_where_its_parent_did(elsewhere: Elsewhere, here: Program):
    """ssh's ProxyCommand is a command of its own: `context use` after it, or before, changes nothing of it."""
    made = here("up", here.file("m.yaml", MANIFEST), "--backend", "simulator")
    assert made.code == 0 and here("context", "use", "prod").code == 0
    config = here("--context", "local", "ssh-config")
    from hikube_local.access.ssh import proxy_command
    from hikube_local.engine.session import Session

    assert (
        config.code == 0
        and Session.flags == ("--context", "local")
        and "session.flags" in __import__("inspect").getsource(proxy_command)
    )


@pytest.mark.parametrize("name", ["y\n  ProxyCommand touch x\n#", "* x", "../../x", "-oX", "A", ""])
def test_names_that_are_none_come_into_no_file(name: str):
    from hikube_local.backends.remote.api import _sound

    assert not _sound({"metadata": {"name": name, "namespace": "a"}}) and not _sound(
        {"metadata": {"name": "a", "namespace": name}}
    )
    assert _sound({"metadata": {"name": "web.1-x", "namespace": "tenant-a"}})


def test_hosts_that_look_alike_share_nothing():
    from hikube_local.contexts import _NAME, of_host

    hosts = [
        "web.prod",
        "web-prod",
        "me@box",
        "me-box",
        "[::]",
        "deploy@compute-node-in-datacenter-eu-west-1a.example",
        "deploy@compute-node-in-datacenter-eu-west-1b.example",
    ]
    folders = [of_host(h).folder for h in hosts]
    assert len(set(folders)) == len(hosts) and not any(_NAME.fullmatch(f) for f in folders)


def test_a_damaged_list_of_contexts_is_no_reason_to_act_here(elsewhere: Elsewhere, here: Program):
    assert here("context", "use", "prod").code == 0
    (here.home / "contexts.json").write_text("{")
    refused = here("get")
    assert refused.code == 2 and "HK820" in refused.err and "damaged" in refused.err


def test_another_namespace_than_the_contexts_is_refused(elsewhere: Elsewhere):
    for words in (("console", "web.tenant-b"), ("port-forward", "vmi/web/tenant-b", "80"), ("ssh", "web.tenant-b")):
        dotted = elsewhere(*words)
        assert "HK406" in dotted.err, (words, dotted.err)
    refused = elsewhere("get", "-n", "other")
    assert refused.code == 2 and "HK406" in refused.err
    path = elsewhere.here.file("m.json", json.dumps(disk("d") | {"metadata": {"name": "d", "namespace": "other"}}))
    refused = elsewhere("up", path)
    assert refused.code == 2 and "another namespace" in refused.err


def test_what_no_tenant_has_is_told_and_what_acts_on_nothing_is_the_same(elsewhere: Elsewhere):
    for words in (("snapshot", "list"), ("images", "list"), ("top",), ("doctor",), ("purge", "--yes")):
        refused = elsewhere(*words)
        assert refused.code == 2 and "HK825" in refused.err, words
    for words in (("explain", "vmdisk"), ("catalog", "images"), ("version",), ("schema",)):
        assert elsewhere(*words).code == 0, words


def test_a_role_that_may_not_write_is_told_so(hikube: Program, here: Program):
    endpoint = Endpoint(hikube, "--role", "view")
    try:
        elsewhere = Elsewhere(endpoint, here)
        check = elsewhere("context", "check", "prod")
        assert check.code == 0 and "read machines and disks: allowed" in check.out
        assert "make and delete machines and disks: not allowed" in check.out
        refused = elsewhere("up", here.file("d.json", json.dumps(disk("d"))))
        assert refused.code == 1 and "HK822" in refused.err and "cannot create" in refused.err, refused.err
        assert elsewhere("get").code == 0
    finally:
        endpoint.close()


PLUGIN = """\
import json, os, sys, time
given = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
with open(sys.argv[1], "a") as log:
    log.write(json.dumps([given["spec"], os.environ["GREETING"]]) + "\\n")
runs = len(open(sys.argv[1]).readlines())
print("log in at https://login.example/", file=sys.stderr)
token = open(sys.argv[2]).read() if runs > int(sys.argv[3]) else "expired"
ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + float(sys.argv[4])))
answer = {"apiVersion": given["apiVersion"], "kind": "ExecCredential", "status": {"token": token, "expirationTimestamp": ends}}
print(json.dumps(answer))
"""


def plugin(elsewhere: Elsewhere, bad: int, lasts: float = 3600, **more: object) -> Path:
    """`bad`: how many of the first tokens are not taken; `lasts`: seconds."""
    folder = elsewhere.here.folder
    (folder / "plugin.py").write_text(PLUGIN)
    words = [str(folder / "plugin.py"), str(folder / "runs"), str(elsewhere.endpoint.folder / "token"), str(bad)]
    words.append(str(lasts))
    row = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": sys.executable,
        "args": words,
        "env": [{"name": "GREETING", "value": "hello"}],
        "provideClusterInfo": True,
    }
    elsewhere.write({"exec": row | more})
    return folder / "runs"


def test_a_plugin_logs_in_and_is_asked_again_when_its_token_is_not_taken_any_more(elsewhere: Elsewhere):
    runs = plugin(elsewhere, bad=1)
    done = elsewhere("get")
    assert done.code == 0 and "login.example" in done.err  # what it says to the person goes through
    rows = [json.loads(line) for line in runs.read_text().splitlines()]
    assert len(rows) == 2 and rows[0][1] == "hello"  # the first token had expired
    assert rows[0][0]["interactive"] is False and rows[0][0]["cluster"]["server"] == elsewhere.endpoint.url
    runs.unlink()
    path = elsewhere.here.file("d.json", json.dumps(disk("d")))
    assert elsewhere("up", path).code == 0
    assert len(runs.read_text().splitlines()) == 2  # once for the command, once more for the 401
    runs.unlink()
    plugin(elsewhere, bad=9)
    refused = elsewhere("get")
    assert refused.code == 1 and "HK823" in refused.err and len(runs.read_text().splitlines()) == 2


def test_a_token_that_ends_in_the_middle_is_renewed_once_for_all_who_had_it(elsewhere: Elsewhere, tmp_path: Path):
    """Watches and the command itself ask side by side; a plugin may open a browser each time."""
    from hikube_local.kubeclient.kubeconfig import Login, Plugin, Target
    from hikube_local.kubeclient.login import Logins

    runs = plugin(elsewhere, bad=0)
    words = (sys.executable, *yaml.safe_load(elsewhere.kubeconfig.read_text())["users"][0]["user"]["exec"]["args"])
    asked = Plugin(words, "client.authentication.k8s.io/v1beta1", {"GREETING": "hello"})
    logins = Logins(Target("c", elsewhere.endpoint.url, login=Login(plugin=asked)), tmp_path)
    first = logins.proof()
    with ThreadPoolExecutor(8) as pool:
        others = list(pool.map(lambda _: logins.proof(first), range(8)))
    assert len(runs.read_text().splitlines()) == 2 and all(o is others[0] for o in others)
    # A test in the tenant, whose tokens are renewed ten seconds before their end: each serves for two.
    runs = plugin(elsewhere, bad=0, lasts=12)
    runs.unlink(missing_ok=True)
    done = elsewhere("test", elsewhere.here.file("m.yaml", MANIFEST), "--timeout", "8s")
    assert done.code == 1 and "nobody could log in" in done.out, done.err
    assert len(runs.read_text().splitlines()) > 3
    assert elsewhere.endpoint("GET", f"{BASE}/vminstances").json()["items"] == []


def test_certificates_and_keys_that_are_renewed_side_by_side_never_mix(tmp_path: Path):
    from hikube_local.kubeclient.kubeconfig import Login, Target
    from hikube_local.kubeclient.login import Logins, Proof

    logins = Logins(Target("c", "https://127.0.0.1:1", login=Login()), tmp_path / "own")
    proofs = [Proof(certificate=b"cert %d" % n, key=b"key %d" % n) for n in range(4)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: (n % 4, logins.files(proofs[n % 4])), range(64)))
    for n, paths in found:
        assert paths is not None and [Path(p).read_bytes() for p in paths] == [b"cert %d" % n, b"key %d" % n]
        assert all(stat.S_IMODE(os.stat(p).st_mode) == 0o600 for p in paths)
    for path in (tmp_path / "own").iterdir():
        os.utime(path, (1, 1))
    logins.files(Proof(certificate=b"new", key=b"new"))
    assert len(list((tmp_path / "own").iterdir())) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"command": "no-such-plugin", "installHint": "install it"}, "install it"),
        ({"command": "false"}, "nobody is logged in"),
        ({"command": "true"}, "ExecCredential"),
        ({"interactiveMode": "Always"}, "wants a terminal"),
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "v1beta1"),
    ],
)
def test_a_plugin_that_does_not_log_in(elsewhere: Elsewhere, change: dict, told: str):
    plugin(elsewhere, bad=0, **change)
    refused = elsewhere("get")
    assert refused.code in (1, 2) and told in refused.err and "Traceback" not in refused.err, refused.err


def test_tokens_are_nowhere_that_others_read(elsewhere: Elsewhere):
    token = (elsewhere.endpoint.folder / "token").read_text()
    done = elsewhere("get", "--debug")
    assert token not in done.out + done.err
    for path in elsewhere.here.home.rglob("*"):
        if path.is_file() and path != elsewhere.kubeconfig:
            assert token.encode() not in path.read_bytes(), path
    login = elsewhere.here.home / "state" / "contexts" / "prod" / "login"
    assert stat.S_IMODE(login.stat().st_mode) == 0o700


@pytest.mark.parametrize("day", ["cut", 503, 429])
def test_a_look_is_tried_again(odd, day):
    elsewhere, days = odd
    days += [day, day]
    assert elsewhere("get").code == 0


def test_a_write_is_sent_once(odd):
    """Its answer is lost: whether it was done is for a look to say, and nothing is sent a second time."""
    elsewhere, days = odd
    path = elsewhere.here.file("d.json", json.dumps(disk("d")))
    elsewhere.asked.clear()
    days += [None] * 2 + ["lost"] * 9
    done = elsewhere("up", path)
    posts = [a for a in elsewhere.asked if a[0] == "POST"]
    assert done.code == 1 and len(posts) <= 1, (done.err, elsewhere.asked)
    days.clear()
    assert elsewhere("up", path).code == 0
    assert elsewhere.endpoint("GET", f"{BASE}/vmdisks/d").status_code == 200


def test_what_a_server_refuses_is_told_in_its_words_and_the_others_go_on(odd):
    elsewhere, _ = odd
    elsewhere.refused = [b'"name": "sys"']
    path = elsewhere.here.file("m.yaml", MANIFEST + "---\n" + yaml.safe_dump(disk("other")))
    done = elsewhere("up", path, "--no-wait")
    assert done.code == 1 and "no room for it" in done.err and "failed: vmdisk/sys" in done.err, done.err
    assert elsewhere.endpoint("GET", f"{BASE}/vmdisks/other").status_code == 200


def test_a_manifest_is_judged_by_what_there_is_in_the_tenant(elsewhere: Elsewhere):
    assert elsewhere.endpoint("POST", f"{BASE}/vmdisks", disk("sys", storage="9Gi")).status_code == 201
    path = elsewhere.here.file("m.yaml", MANIFEST)
    for words in (("up", path, "--adopt"), ("validate", path)):
        done = elsewhere(*words)
        assert done.code == 2 and "storage cannot shrink" in done.err + done.out, words
    assert elsewhere.here("validate", path).code == 0


@pytest.mark.usefixtures("odd")
def test_a_manifest_is_judged_by_what_the_tenant_offers(elsewhere: Elsewhere):
    image = "images: {golden: {url: 'https://images.example.org/g.qcow2'}}\n"
    (elsewhere.here.home / "config.yaml").write_text(image)
    path = elsewhere.here.file("m.yaml", MANIFEST.replace("debian-12", "golden"))
    assert elsewhere.here("validate", path).code == 0
    refused = elsewhere("validate", path)
    assert refused.code == 2 and ":4:" in refused.out and "[HK408]: the tenant has no image 'golden'" in refused.out
    assert "not compared with the tenant's quotas" in refused.out  # our endpoint has none
    up = elsewhere("up", path)
    assert up.code == 2 and "HK408" in up.err and elsewhere.endpoint("GET", f"{BASE}/vmdisks").json()["items"] == []
    elsewhere.quotas = [{"metadata": {"name": "q"}, "status": {"hard": {"requests.storage": "1Gi"}}}]
    small = elsewhere("validate", elsewhere.here.file("n.yaml", MANIFEST))
    assert small.code == 2 and "[HK409]: the tenant's quota leaves 1Gi of requests.storage" in small.out, small.out
    elsewhere.hidden = "options"
    asked = elsewhere("validate", elsewhere.here.file("n.yaml", MANIFEST))
    assert "not compared with what the tenant offers" in asked.out, (asked.out, elsewhere.asked)


def test_nobody_there_and_a_stranger_there_are_told(elsewhere: Elsewhere, here: Program):
    elsewhere.endpoint.close()
    gone = elsewhere("get")
    assert gone.code == 1 and "HK821" in gone.err and "cannot be reached" in gone.err and "Traceback" not in gone.err
    check = elsewhere("context", "check")
    assert check.code == 1 and "FAILED" in check.out


@contextlib.contextmanager
def followed(elsewhere: Elsewhere, *words: str) -> Iterator[Callable[[str], None]]:
    """A command that goes on; what is given waits until a line begins so."""
    argv = [sys.executable, "-m", "hikube_local", "--context", "prod", *words]
    running = subprocess.Popen(
        argv, env=elsewhere.here.env, stdout=subprocess.PIPE, text=True, cwd=elsewhere.here.folder
    )
    seen: list[str] = []
    threading.Thread(target=lambda: seen.extend(iter(running.stdout.readline, "")), daemon=True).start()

    def says(begin: str) -> None:
        end = time.monotonic() + patience(20)
        while not any(line.startswith(begin) for line in seen):
            assert time.monotonic() < end and running.poll() is None, (seen, elsewhere.asked[-12:])
            time.sleep(0.02)

    try:
        yield says
    finally:
        running.terminate()
        running.wait()


def watched(elsewhere: Elsewhere) -> int:
    return sum("watch=true" in path for _, path in elsewhere.asked)


@pytest.mark.parametrize("day", ["as usual", "cut", 410, 500, 403])
def test_get_watches_a_tenant(odd, day):
    """Told by the server; where a watch is cut it goes on, and where it cannot be had it is looked again."""
    elsewhere, _ = odd
    make = partial(elsewhere.endpoint, "POST", f"{BASE}/vmdisks")
    assert make(disk("first")).status_code == 201
    if day == "cut":
        elsewhere.watches = 1
    elif day != "as usual":
        elsewhere.of_watches += [day] * 2
    with followed(elsewhere, "get", "vmdisk", "-w") as says:
        says("first")
        for name in ("late", "later", "latest"):
            assert make(disk(name)).status_code == 201
            says(name)
    assert watched(elsewhere) >= (3 if day == "cut" else 1)


def test_while_nothing_changes_there_nothing_is_asked(odd):
    elsewhere, _ = odd
    assert elsewhere.endpoint("POST", f"{BASE}/vmdisks", disk("first")).status_code == 201
    with followed(elsewhere, "get", "vmdisk", "-w") as says:
        says("first")
        end = time.monotonic() + patience(20)
        while not watched(elsewhere):
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(1)
        before = len(elsewhere.asked)
        time.sleep(4)  # four looks, where it asked each second
        assert len(elsewhere.asked) <= before + 1, elsewhere.asked[before:]


def test_wait_hears_of_what_it_waits_for(odd):
    elsewhere, _ = odd
    elsewhere.asked.clear()
    with followed(elsewhere, "wait", "vmdisk/late", "--for=create", "--timeout=10m") as says:
        end = time.monotonic() + patience(20)
        while not watched(elsewhere):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert elsewhere.endpoint("POST", f"{BASE}/vmdisks", disk("late")).status_code == 201
        says("vmdisk.apps.cozystack.io/late condition met")


def test_a_write_that_meets_another_is_worked_out_anew(odd):
    """409 says that it was not carried out: tried again from what is there then, and told where it is so for ever."""
    elsewhere, _ = odd
    path = elsewhere.here.file("m.yaml", MANIFEST)
    assert elsewhere("up", path, "--no-wait").code == 0
    changed = elsewhere.here.file("changed.yaml", MANIFEST.replace("team: a", "team: b").replace("[80]", "[80, 443]"))
    elsewhere.conflicts = {"PATCH": 2}
    done = elsewhere("up", changed, "--no-wait")
    assert done.code == 0 and elsewhere.conflicts == {"PATCH": 0}, done.err
    assert elsewhere("get", "vm", "web", "-o", "json").json["spec"]["externalPorts"] == [80, 443]
    elsewhere.conflicts = {"PATCH": 9}
    done = elsewhere("up", path, "--no-wait")
    assert done.code == 1 and "the object has been modified" in done.err, done.err
    elsewhere.conflicts = {"DELETE": 2}
    done = elsewhere("down", path, "--disks", "--yes")
    assert done.code == 0 and elsewhere.conflicts == {"DELETE": 0}, done.err
    assert elsewhere("get", "-o", "json").json["items"] == []
