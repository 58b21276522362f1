"""The Kubernetes endpoint over the simulator: requests as clients send them, and the command line beside it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

from tests.conftest import EXAMPLES, Program
from tests.endpoint import BASE, MERGE, TABLE, Endpoint, disk, machine, named, works
from tests.growth import patience


def test_nobody_without_the_token_and_no_page_and_no_other_name(endpoint: Endpoint):
    plain = {"verify": endpoint.http.verify, "timeout": patience(20)}
    for path in ("/livez", "/readyz", "/version"):
        assert requests.get(endpoint.url + path, **plain).status_code == 200
    for path in ("/api", "/apis", f"{BASE}/vminstances", "/openapi/v3"):
        refused = requests.get(endpoint.url + path, **plain)
        assert (refused.status_code, refused.json()["reason"]) == (401, "Unauthorized"), path
    for headers, code in (({"Origin": "https://evil.example"}, 403), ({"Host": f"evil.example:{endpoint.port}"}, 421)):
        assert endpoint("GET", "/apis", headers=headers).status_code == code
    with pytest.raises(requests.RequestException):  # no plain http
        requests.get(f"http://127.0.0.1:{endpoint.port}/livez", timeout=patience(5)).raise_for_status()
    listening = Path("/proc/net/tcp").read_text()
    assert f"0100007F:{endpoint.port:04X}" in listening and f"00000000:{endpoint.port:04X}" not in listening
    for name in ("token", "server.key", "ca.key"):
        assert (endpoint.folder / name).stat().st_mode & 0o777 == 0o600


def test_a_life_by_the_api(endpoint: Endpoint):
    made = endpoint("POST", f"{BASE}/vmdisks", disk("d"))
    assert made.status_code == 201 and made.json()["metadata"]["uid"], made.text
    again = endpoint("POST", f"{BASE}/vmdisks", disk("d"))
    assert (again.status_code, again.json()["reason"]) == (409, "AlreadyExists")
    assert endpoint("POST", f"{BASE}/vminstances", machine("web", "d")).status_code == 201
    up = endpoint.until(f"{BASE}/vminstances/web", lambda a: works(a.json()), "the machine")
    assert [c["type"] for c in up["status"]["conditions"][:3]] == ["Ready", "Released", "WorkloadsReady"]
    halted = endpoint("PATCH", f"{BASE}/vminstances/web", {"spec": {"runStrategy": "Halted"}}, headers=MERGE)
    assert halted.status_code == 200 and halted.json()["metadata"]["generation"] == 2
    endpoint.until(f"{BASE}/vminstances/web", lambda a: a.json()["status"]["printableStatus"] == "Stopped", "stopped")
    operations = [{"op": "remove", "path": "/spec/runStrategy"}]
    patch = {"Content-Type": "application/json-patch+json"}
    assert endpoint("PATCH", f"{BASE}/vminstances/web", operations, headers=patch).status_code == 200
    endpoint.until(f"{BASE}/vminstances/web", lambda a: works(a.json()), "it runs again")
    # A disk that a machine has waits until the machine is gone.
    assert endpoint("DELETE", f"{BASE}/vmdisks/d").status_code == 200
    assert endpoint("GET", f"{BASE}/vmdisks/d").json()["metadata"]["deletionTimestamp"]
    assert endpoint("DELETE", f"{BASE}/vminstances/web", {"propagationPolicy": "Background"}).status_code == 200
    for path in ("vminstances/web", "vmdisks/d"):
        endpoint.until(f"{BASE}/{path}", lambda a: a.status_code == 404, path)
    gone = endpoint("GET", f"{BASE}/vminstances/web").json()
    assert gone["message"] == 'vminstances.apps.cozystack.io "web" not found' and gone["reason"] == "NotFound"


def test_what_is_refused_has_a_cause_a_field_and_differences_are_warnings(endpoint: Endpoint):
    refused = endpoint("POST", f"{BASE}/vminstances", machine("web", instanceType="huge", externalMethod="No"))
    assert refused.status_code == 422
    causes = {c["field"]: c["message"] for c in refused.json()["details"]["causes"]}
    assert {"spec.instanceType", "spec.externalMethod"} <= set(causes), causes
    assert "[HK302]" in causes["spec.instanceType"]
    assert endpoint("GET", f"{BASE}/vminstances").json()["items"] == []
    told = endpoint("POST", f"{BASE}/vmdisks", disk("d", storageClass="replicated"))
    assert told.status_code == 201 and "HK504" in told.headers["Warning"]
    strict = {"fieldValidation": "Strict"}
    typo = endpoint("POST", f"{BASE}/vmdisks", disk("e", storag="1Gi"), params=strict)
    assert typo.status_code == 422 and "storag" in typo.text
    assert endpoint("POST", f"{BASE}/vmdisks", disk("e", storag="1Gi")).status_code == 201


def test_a_dry_run_and_a_precondition_change_nothing(endpoint: Endpoint):
    dry = endpoint("POST", f"{BASE}/vmdisks", disk("d"), params={"dryRun": "All"})
    assert dry.status_code == 201 and endpoint("GET", f"{BASE}/vmdisks/d").status_code == 404
    first = endpoint("POST", f"{BASE}/vmdisks", disk("d")).json()
    grown = endpoint(
        "PATCH", f"{BASE}/vmdisks/d", {"spec": {"storage": "2Gi"}}, headers=MERGE, params={"dryRun": "All"}
    )
    assert grown.json()["spec"]["storage"] == "2Gi"
    assert endpoint("GET", f"{BASE}/vmdisks/d").json()["spec"]["storage"] == "1Gi"
    old = {**first, "metadata": {**first["metadata"], "resourceVersion": "1"}, "spec": {"storage": "3Gi"}}
    stale = endpoint("PUT", f"{BASE}/vmdisks/d", old)
    assert stale.status_code == 409 and "has been modified" in stale.json()["message"]
    other = endpoint("DELETE", f"{BASE}/vmdisks/d", {"preconditions": {"uid": "another"}})
    assert other.status_code == 409 and endpoint("GET", f"{BASE}/vmdisks/d").status_code == 200


def test_kubectls_forms(endpoint: Endpoint):
    endpoint("POST", f"{BASE}/vmdisks", disk("d") | {"metadata": {"name": "d", "labels": {"a": "b"}}})
    shown = endpoint("GET", f"{BASE}/vmdisks", headers=TABLE).json()
    assert [c["name"] for c in shown["columnDefinitions"] if not c["priority"]] == ["Name", "Ready", "Age", "Version"]
    assert shown["rows"][0]["cells"][:2] == ["d", "True"]
    assert shown["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    for selector, found in (("a=b", 1), ("a!=b", 0), ("a in (b,c)", 1), ("!a", 0)):
        items = endpoint("GET", f"{BASE}/vmdisks", params={"labelSelector": selector}).json()["items"]
        assert len(items) == found, selector
    assert endpoint("GET", f"{BASE}/vmdisks", params={"fieldSelector": "metadata.name=x"}).json()["items"] == []
    strategic = {"Content-Type": "application/strategic-merge-patch+json"}
    refused = endpoint("PATCH", f"{BASE}/vmdisks/d", {}, headers=strategic)
    assert refused.status_code == 415 and "accepted media types include: application/apply-patch+yaml" in refused.text
    aggregated = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"}
    both = endpoint("GET", "/apis", headers=aggregated)
    assert "as=APIGroupDiscoveryList" in both.headers["Content-Type"]
    own = next(g for g in both.json()["items"] if g["metadata"]["name"] == "apps.cozystack.io")
    assert [r["resource"] for r in own["versions"][0]["resources"]] == ["vminstances", "vmdisks"]
    schema = endpoint("GET", "/openapi/v3/apis/apps.cozystack.io/v1alpha1").json()
    assert "anyOf" not in json.dumps(schema["components"]), "clients want structural schemas"
    assert endpoint("GET", "/apis/cluster.x-k8s.io/v1beta1/clusters").status_code == 404


def test_a_watch_sees_each_change_once_whoever_makes_it(endpoint: Endpoint):
    all_of_it = endpoint.watch(f"{BASE}/vmdisks", sendInitialEvents="true", allowWatchBookmarks="true")
    first = all_of_it.until(lambda e: e, "the bookmark")[0]
    assert first["type"] == "BOOKMARK"
    assert first["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
    labelled = endpoint.watch(f"{BASE}/vmdisks", labelSelector="a=b")
    endpoint("POST", f"{BASE}/vmdisks", disk("by-api") | {"metadata": {"name": "by-api", "labels": {"a": "b"}}})
    path = endpoint.program.file("m.yaml", json.dumps(disk("by-cli")))
    assert endpoint.program("up", path, "--backend", "simulator").code == 0
    all_of_it.until(lambda e: {"by-api", "by-cli"} <= {named(x) for x in e}, "both")
    labelled.until(lambda e: [named(x) for x in e][:1] == ["by-api"], "the labelled one")
    endpoint("PATCH", f"{BASE}/vmdisks/by-api", {"metadata": {"labels": {"a": None}}}, headers=MERGE)
    labelled.until(lambda e: e[-1]["type"] == "DELETED", "one that does not match any more")
    assert endpoint.program("delete", "vmdisk/by-cli", "--yes").code == 0
    events = all_of_it.until(lambda e: any(x["type"] == "DELETED" for x in e), "the deletion by the command line")
    versions = [x["object"]["metadata"]["resourceVersion"] for x in events]
    assert len(versions) == len(set(versions)), versions
    assert next(x["type"] for x in events if named(x) == "by-cli") == "ADDED"
    # From a revision on: what is newer, and nothing else; one that the log does not reach is gone.
    since = endpoint.watch(f"{BASE}/vmdisks", resourceVersion=versions[1])
    since.until(lambda e: any((x["type"], named(x)) == ("MODIFIED", "by-api") for x in e), "the rest")
    assert "by-cli" not in map(named, since.events)  # it came and went: who lists now never saw it
    assert versions[1] not in [x["object"]["metadata"]["resourceVersion"] for x in since.events]
    assert endpoint.watch(f"{BASE}/vmdisks", resourceVersion="1").answer.status_code == 410


def test_the_command_line_sees_what_the_api_made_and_the_keeper_brings_back_what_crashed(endpoint: Endpoint):
    endpoint("POST", f"{BASE}/vmdisks", disk("d"))
    endpoint("POST", f"{BASE}/vminstances", machine("web", "d"))
    endpoint.until(f"{BASE}/vminstances/web", lambda a: works(a.json()), "the machine")
    row = endpoint.program("get", "vm", "web", "-o", "json").json
    assert row["status"]["printableStatus"] == "Running"
    assert endpoint.program("stop", "web").code == 0
    endpoint.until(f"{BASE}/vminstances/web", lambda a: a.json()["status"]["printableStatus"] == "Stopped", "stopped")
    started = endpoint(
        "PUT", "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/vm-instance-web/start", {}
    )
    assert started.status_code == 202
    endpoint.until(f"{BASE}/vminstances/web", lambda a: works(a.json()), "started by virtctl's request")
    events = endpoint("GET", "/api/v1/namespaces/default/events", params={"fieldSelector": "involvedObject.name=web"})
    assert any(e["message"] == "started" for e in events.json()["items"])


def test_there_is_one_for_a_state_root_and_it_says_where(endpoint: Endpoint):
    second = endpoint.program("serve", "--port", "1")
    assert (
        second.code == 1 and f"on port {endpoint.port}" in second.err and f"kill {endpoint.process.pid}" in second.err
    )
    printed = endpoint.program("kubeconfig").out
    assert f"https://127.0.0.1:{endpoint.port}" in printed
    mine = endpoint.program.folder / "kubeconfig"
    mine.write_text("apiVersion: v1\nkind: Config\ncontexts: [{name: work, context: {}}]\ncurrent-context: work\n")
    assert endpoint.program("kubeconfig", "--merge", env={"KUBECONFIG": str(mine)}).code == 0
    text = mine.read_text()
    assert "current-context: work" in text and "name: hikube-local" in text and mine.stat().st_mode & 0o777 == 0o600


def test_it_ends_with_open_watches_and_a_kill_loses_nothing(endpoint: Endpoint):
    watches = [endpoint.watch(f"{BASE}/vmdisks") for _ in range(10)]
    assert endpoint("POST", f"{BASE}/vmdisks", disk("kept")).status_code == 201
    watches[0].until(lambda e: e, "the first event")
    endpoint.process.send_signal(signal.SIGKILL)
    endpoint.process.wait()
    assert endpoint.program("get", "vmdisk", "kept").code == 0
    again = Endpoint(endpoint.program)
    more = [again.watch(f"{BASE}/vmdisks") for _ in range(10)]
    more[0].until(lambda e: {named(x) for x in e} == {"kept"}, "what was accepted before the kill")
    begin = time.monotonic()
    again.process.terminate()
    assert again.process.wait(patience(10)) == 0
    assert time.monotonic() - begin < patience(3)


def test_a_watch_takes_little_memory(endpoint: Endpoint):
    """Two hundred of them are to fit beside two thousand objects in 200 MB (measured in `make bench`)."""

    def resident() -> int:
        status = Path(f"/proc/{endpoint.process.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))

    def watch() -> requests.Response:
        own = requests.Session()
        own.verify, own.trust_env, own.headers = endpoint.http.verify, False, endpoint.http.headers
        answer = own.get(f"{endpoint.url}{BASE}/vmdisks?watch=true", stream=True, timeout=patience(60))
        assert answer.status_code == 200
        return answer

    held = [watch() for _ in range(10)]
    before = resident()
    held += [watch() for _ in range(80)]
    each = (resident() - before) / 80
    for answer in held:
        answer.close()
    assert each < 150 << 10, f"{each / 1024:.0f} KiB each"


def test_it_ends_when_nobody_comes(hikube: Program):
    made = Endpoint(hikube, "--exit-when-idle", "1s")
    assert made.process.wait(patience(20)) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"metadata": 1}',
        b'{"spec": []}',
        b'{"metadata": {"name": []}}',
        b"[" * 100_000,
    ],
)
def test_a_hostile_body_is_refused_and_the_endpoint_goes_on(endpoint: Endpoint, body: bytes):
    for verb, path, kind in (
        ("POST", f"{BASE}/vminstances", "application/json"),
        ("PUT", f"{BASE}/vminstances/x", "application/json"),
        ("PATCH", f"{BASE}/vminstances/x", "application/json-patch+json"),
    ):
        answer = endpoint.http.request(
            verb, endpoint.url + path, data=body, headers={"Content-Type": kind}, timeout=patience(30)
        )
        assert 400 <= answer.status_code < 500 and answer.json()["kind"] == "Status", (
            verb,
            body[:20],
            answer.text[:200],
        )
    too_large = endpoint.http.post(f"{endpoint.url}{BASE}/vmdisks", data=b" " * (4 << 20), timeout=patience(30))
    assert too_large.status_code == 413
    assert endpoint("GET", "/livez").text == "ok" and "Traceback" not in endpoint.log.read_text()


def test_copies_of_copies_do_not_fill_the_memory(endpoint: Endpoint):
    endpoint("POST", f"{BASE}/vmdisks", disk("d"))
    bomb = [{"op": "add", "path": "/metadata/labels", "value": {"a": "x" * 60}}]
    bomb += [{"op": "copy", "from": "/metadata", "path": f"/metadata/labels/c{n}"} for n in range(60)]
    patch = {"Content-Type": "application/json-patch+json"}
    assert endpoint("PATCH", f"{BASE}/vmdisks/d", bomb, headers=patch).status_code == 413


APPLY = {"Content-Type": "application/apply-patch+yaml"}


def applied(endpoint: Endpoint, value: dict, manager: str, **query: str) -> requests.Response:
    path = f"{BASE}/{value['kind'].lower()}s/{value['metadata']['name']}"
    return endpoint("PATCH", path, value, headers=APPLY, params={"fieldManager": manager, **query})


def test_server_side_apply_knows_who_owns_what(endpoint: Endpoint):
    made = applied(endpoint, disk("d"), "one")
    assert made.status_code == 201, made.text
    now = endpoint.until(f"{BASE}/vmdisks/d", lambda a: works(a.json()), "the disk")
    rows = made.json()["metadata"]["managedFields"]
    assert [(r["manager"], r["operation"]) for r in rows] == [("one", "Apply")]
    assert "f:storage" in rows[0]["fieldsV1"]["f:spec"]
    again = applied(endpoint, disk("d"), "one").json()["metadata"]
    assert again["resourceVersion"] == now["metadata"]["resourceVersion"]  # nothing changed
    clash = applied(endpoint, disk("d", storage="2Gi"), "two")
    assert clash.status_code == 409 and 'conflict with "one"' in clash.json()["message"]
    assert [c["field"] for c in clash.json()["details"]["causes"]] == [".spec.storage"]
    forced = applied(endpoint, disk("d", storage="2Gi"), "two", force="true")
    assert forced.status_code == 200 and forced.json()["spec"]["storage"] == "2Gi"
    # An update takes what it changes, and tells who did.
    patched = endpoint(
        "PATCH",
        f"{BASE}/vmdisks/d",
        {"metadata": {"labels": {"a": "b"}}},
        headers=MERGE,
        params={"fieldManager": "hand"},
    )
    owners = {(r["manager"], r["operation"]) for r in patched.json()["metadata"]["managedFields"]}
    assert ("hand", "Update") in owners and ("two", "Apply") in owners
    assert applied(endpoint, disk("d"), "").status_code == 400
    # What the command line made belongs to nobody of the API's: a change needs force.
    path = endpoint.program.file("m.yaml", json.dumps(disk("by-cli")))
    assert endpoint.program("up", path, "--backend", "simulator").code == 0
    early = applied(endpoint, disk("by-cli", storage="2Gi"), "one")
    assert early.status_code == 409 and "before-first-apply" in early.json()["message"]


def test_patches_side_by_side_lose_nothing(endpoint: Endpoint):
    endpoint("POST", f"{BASE}/vmdisks", disk("d"))
    codes: list[int] = []

    def label(n: int) -> None:
        patch = json.dumps({"metadata": {"labels": {f"l{n}": "x"}}})
        head = {**endpoint.http.headers, **MERGE}
        answer = requests.patch(
            f"{endpoint.url}{BASE}/vmdisks/d",
            data=patch,
            headers=head,
            verify=endpoint.http.verify,
            timeout=patience(60),
        )
        codes.append(answer.status_code)

    threads = [threading.Thread(target=label, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    labels = endpoint("GET", f"{BASE}/vmdisks/d").json()["metadata"].get("labels", {})
    assert len(labels) == codes.count(200) >= 1, (codes, labels)  # what was accepted is there


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubectls_own_commands(endpoint: Endpoint, tmp_path: Path):
    line = endpoint.program("kubeconfig", "--env").out
    env = {
        **os.environ,
        "KUBECONFIG": line.split("=", 1)[1].strip(),
        "HOME": str(tmp_path),
        "KUBECACHEDIR": str(tmp_path),
    }

    def kubectl(*words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(["kubectl", *words], env=env, capture_output=True, text=True, timeout=patience(60))
        print(f"$ kubectl {' '.join(words)}\n{done.stdout}{done.stderr}[{done.returncode}]")
        return done

    file = str(EXAMPLES / "quickstart.yaml")
    applied = kubectl("apply", "-f", file)
    assert applied.returncode == 0 and "vminstance.apps.cozystack.io/quickstart created" in applied.stdout
    assert "HK504" in applied.stderr
    assert kubectl("wait", "vminstance/quickstart", "--for=condition=WorkloadsReady", "--timeout=60s").returncode == 0
    again = kubectl("apply", "-f", file)
    assert again.stdout.count("unchanged") == 3, again.stdout
    assert kubectl("diff", "-f", file).returncode == 0  # nothing differs after an apply
    assert "quickstart" in kubectl("get", "vminstances").stdout
    assert "IMAGE" in kubectl("get", "vmdisk", "-o", "wide").stdout
    assert "started" in kubectl("describe", "vminstance", "quickstart").stdout
    assert "instanceType" in kubectl("explain", "vminstance.spec").stdout
    assert (
        kubectl("patch", "vminstance", "quickstart", "--type=merge", "-p", '{"spec":{"running":false}}').returncode == 0
    )
    assert kubectl("label", "vminstance", "quickstart", "tier=front").returncode == 0
    assert "quickstart" in kubectl("get", "vminstance", "-l", "tier=front", "-o", "name").stdout
    refused = kubectl("patch", "vminstance", "quickstart", "--type=merge", "-p", '{"spec":{"instanceType":"huge"}}')
    assert refused.returncode == 1 and "spec.instanceType" in refused.stderr
    assert "default" in kubectl("get", "ns").stdout
    mine = kubectl("apply", "-f", file, "--server-side", "--force-conflicts")
    assert mine.returncode == 0 and mine.stdout.count("serverside-applied") == 3, mine.stderr
    again = kubectl("apply", "-f", file, "--server-side")
    assert again.returncode == 0, again.stderr
    assert kubectl("delete", "-f", file, "--timeout=60s").returncode == 0
    assert "No resources found" in kubectl("get", "vminstances,vmdisks").stderr


def test_virtctl_learns_a_version_and_a_backend_without_a_console_says_so(endpoint: Endpoint):
    assert endpoint("GET", "/apis/subresources.kubevirt.io").json()["kind"] == "APIGroup"
    assert endpoint("GET", "/apis/subresources.kubevirt.io/v1/version").json()["gitVersion"].startswith("v1.")
    endpoint("POST", f"{BASE}/vmdisks", disk("d"))
    endpoint("POST", f"{BASE}/vminstances", machine("web", "d"))
    one = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/web"
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "x" * 22 + "==",
    }
    refused = endpoint("GET", f"{one}/console", headers=upgrade)
    assert refused.status_code == 422 and "HK510" in refused.text
    assert endpoint("GET", f"{one}/portforward/80/udp", headers=upgrade).status_code == 400
    assert endpoint("PUT", f"{one}/explode", {}).status_code == 404


def test_a_write_that_leaves_the_spec_as_it_is_starts_nothing(endpoint: Endpoint):
    endpoint("POST", f"{BASE}/vmdisks", disk("d"))
    endpoint("POST", f"{BASE}/vminstances", machine("web", "d"))
    endpoint.until(f"{BASE}/vminstances/web", lambda a: works(a.json()), "the machine")
    assert endpoint.program("stop", "web").code == 0
    labelled = endpoint("PATCH", f"{BASE}/vminstances/web", {"metadata": {"labels": {"a": "b"}}}, headers=MERGE)
    assert labelled.status_code == 200
    time.sleep(3)
    assert endpoint.program("get", "vm", "web", "-o", "json").json["status"]["printableStatus"] == "Stopped"
    changed = endpoint("PATCH", f"{BASE}/vminstances/web", {"spec": {"external": True}}, headers=MERGE)
    assert changed.status_code == 200
    endpoint.until(f"{BASE}/vminstances/web", lambda a: works(a.json()), "a new spec that says it runs")


@pytest.mark.parametrize("text", ['{"spec": "x"}', "[" * 50_000, '{"spec": {"storage": []}}', "null"])
def test_an_annotation_of_anybodys_harms_no_list(endpoint: Endpoint, text: str):
    endpoint("POST", f"{BASE}/vmdisks", disk("d"))
    note = {"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": text}}}
    assert endpoint("PATCH", f"{BASE}/vmdisks/d", note, headers=MERGE).status_code == 200
    assert endpoint("GET", f"{BASE}/vmdisks").json()["items"][0]["spec"]["storage"] == "1Gi"
    huge = {"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x" * 300_000}}}
    assert endpoint("PATCH", f"{BASE}/vmdisks/d", huge, headers=MERGE).status_code == 422
    assert endpoint("PATCH", f"{BASE}/vmdisks/d", {"metadata": {"annotations": "x"}}, headers=MERGE).status_code == 422


def test_an_apply_that_only_shares_a_field_is_seen_and_not_forgotten(endpoint: Endpoint):
    applied(endpoint, disk("d"), "one")
    applied(endpoint, disk("d"), "two")
    patched = endpoint("PATCH", f"{BASE}/vmdisks/d", {"metadata": {"labels": {"a": "b"}}}, headers=MERGE)
    owners = {r["manager"] for r in patched.json()["metadata"]["managedFields"]}
    assert {"one", "two"} <= owners
    # A client that takes the revision out of its patch loses nobody's write either.
    blind = endpoint(
        "PATCH", f"{BASE}/vmdisks/d", {"metadata": {"resourceVersion": None, "labels": {"c": "d"}}}, headers=MERGE
    )
    assert blind.status_code == 200 and blind.json()["metadata"]["labels"] == {"a": "b", "c": "d"}
    # YAML is read within the bounds of manifests, and what JSON escapes is JSON.
    yaml = "metadata: {name: d, labels: {e: '1'}}\n"
    head = {**APPLY}
    path, who = f"{endpoint.url}{BASE}/vmdisks/d", {"fieldManager": "three"}
    said = endpoint.http.patch(path, data=yaml, headers=head, params=who, timeout=patience(30))
    assert said.status_code == 200, said.text
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert endpoint.http.patch(path, data=bomb, headers=head, params=who, timeout=patience(30)).status_code == 400
    smile = endpoint("PATCH", f"{BASE}/vmdisks/d", {"metadata": {"annotations": {"x": "\U0001f600"}}}, headers=MERGE)
    assert smile.json()["metadata"]["annotations"]["x"] == "\U0001f600"


def test_the_endpoint_answers_before_what_judges_manifests_is_loaded():
    """What judges manifests is a quarter of a start, and no look needs it."""
    code = "import sys, hikube_local.cli.serve, hikube_local.kube.server; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "aiohttp" in done.stdout.split() and "pydantic_core" not in done.stdout.split()


def test_the_certificates_are_taken_by_strict_clients(hikube: Program):
    """Python 3.13 verifies as X.509 has it: a CA says what its key is for. One of an earlier version is renewed under its key, so
    that a kubeconfig that holds it goes on."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    from hikube_local.kube import credentials
    from hikube_local.paths import layout

    places = layout({"HIKUBE_LOCAL_HOME": str(hikube.home)}).make()

    def strict(ca: Path, leaf: Path) -> str:
        words = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ca, leaf]
        return subprocess.run(words, capture_output=True, text=True).stdout

    made = credentials.ensure(places)
    assert strict(made.ca, made.certificate).endswith("OK\n")
    good = x509.load_pem_x509_certificate(made.ca.read_bytes())
    key = serialization.load_pem_private_key((made.ca.parent / "ca.key").read_bytes(), None)
    bare = x509.CertificateBuilder().subject_name(good.subject).issuer_name(good.issuer).public_key(good.public_key())
    bare = bare.serial_number(7).not_valid_before(good.not_valid_before_utc).not_valid_after(good.not_valid_after_utc)
    for e in good.extensions:
        if not isinstance(e.value, x509.KeyUsage):
            bare = bare.add_extension(e.value, e.critical)
    old = bare.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    made.ca.write_bytes(old)
    again = credentials.ensure(places)
    assert again.token == made.token and again.ca.read_bytes() != old
    assert strict(again.ca, again.certificate).endswith("OK\n")
    (hikube.home / "old.crt").write_bytes(old)
    words = ["openssl", "verify", "-CAfile", hikube.home / "old.crt", again.certificate]
    assert subprocess.run(words, capture_output=True, text=True).stdout.endswith("OK\n"), (
        "a kubeconfig of before goes on"
    )
