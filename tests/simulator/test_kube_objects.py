"""What stands beside VMInstances and VMDisks at the endpoint: projections, clients' own objects, roles, figures, uploads."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest
import requests

from tests.conftest import ROOT, Program
from tests.endpoint import BASE, MERGE, TABLE, Endpoint, disk, machine, named, works
from tests.growth import patience

CORE = "/api/v1/namespaces/default"
VMI = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"
WEB = f"{BASE}/vminstances/web"


def with_web(endpoint: Endpoint, **spec: object) -> dict:
    endpoint("POST", f"{BASE}/vmdisks", disk("d"))
    endpoint("POST", f"{BASE}/vminstances", machine("web", "d", **spec))
    return endpoint.until(WEB, lambda a: works(a.json()), "the machine")


def items(endpoint: Endpoint, path: str, **query: str) -> list[dict]:
    return endpoint("GET", path, params=query).json()["items"]


# projections


def test_what_the_platform_makes_of_them(endpoint: Endpoint):
    with_web(endpoint, external=True, externalPorts=[80])
    (vm,) = items(endpoint, "/apis/kubevirt.io/v1/namespaces/default/virtualmachines")
    assert (vm["metadata"]["name"], vm["status"]["printableStatus"]) == ("vm-instance-web", "Running")
    assert vm["spec"]["template"]["spec"]["volumes"][0]["dataVolume"] == {"name": "vm-disk-d"}
    (vmi,) = items(endpoint, VMI)
    assert vmi["status"]["phase"] == "Running" and vmi["metadata"]["ownerReferences"][0]["kind"] == "VirtualMachine"
    (pod,) = items(endpoint, f"{CORE}/pods", labelSelector="vm.kubevirt.io/name=vm-instance-web")
    assert pod["metadata"]["name"].startswith("virt-launcher-vm-instance-web-") and pod["status"]["phase"] == "Running"
    assert items(endpoint, f"{CORE}/pods", fieldSelector="status.phase=Pending") == []
    (service,) = items(endpoint, f"{CORE}/services")
    assert service["spec"]["type"] == "LoadBalancer" and service["spec"]["ports"][0]["port"] == 80
    assert service["status"]["loadBalancer"]["ingress"][0]["ip"].startswith("127.")
    (volume,) = items(endpoint, "/apis/cdi.kubevirt.io/v1beta1/namespaces/default/datavolumes")
    (claim,) = items(endpoint, f"{CORE}/persistentvolumeclaims")
    assert (volume["status"]["phase"], claim["status"]["phase"]) == ("Succeeded", "Bound")
    (node,) = items(endpoint, "/api/v1/nodes")
    assert vmi["status"]["nodeName"] == pod["spec"]["nodeName"] == node["metadata"]["name"]
    types = "/apis/instancetype.kubevirt.io/v1beta1"
    known = {t["metadata"]["name"]: t for t in items(endpoint, f"{types}/virtualmachineclusterinstancetypes")}
    assert known["u1.medium"]["spec"] == {"cpu": {"guest": 1}, "memory": {"guest": "4096Mi"}}
    assert "ubuntu" in {p["metadata"]["name"] for p in items(endpoint, f"{types}/virtualmachineclusterpreferences")}
    shown = endpoint("GET", VMI, headers=TABLE).json()
    assert [c["name"] for c in shown["columnDefinitions"]][:3] == ["Name", "Age", "Phase"]
    # One by its name, in the platform's words alone; and nothing of it can be written.
    one = f"{CORE}/services/vm-instance-web"
    assert endpoint("GET", one).status_code == 200 and endpoint("GET", f"{CORE}/services/web").status_code == 404
    assert endpoint("DELETE", one).status_code == 405
    assert endpoint("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions").json()["items"] == []


def test_a_machine_that_is_off_has_no_pod_and_a_watch_sees_it_go_and_come(endpoint: Endpoint):
    with_web(endpoint)
    watch = endpoint.watch(f"{CORE}/pods")
    watch.until(lambda e: e, "the pod that there is")
    power = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/vm-instance-web"
    assert endpoint("PUT", f"{power}/stop", {}).status_code == 202
    watch.until(lambda e: e[-1]["type"] == "DELETED", "the pod to go")
    assert items(endpoint, VMI) == [] and items(endpoint, f"{CORE}/pods") == []
    assert endpoint("PUT", f"{power}/start", {}).status_code == 202
    watch.until(lambda e: e[-1]["type"] != "DELETED" and e[-1]["object"]["status"]["phase"] == "Running", "it to come")
    # What did not change is not told: the service's own objects are the same for each state of the machine.
    services = endpoint.watch(f"{CORE}/services")
    services.until(lambda e: e, "the service")
    endpoint("PUT", f"{power}/restart", {})
    endpoint.until(WEB, lambda a: works(a.json()), "the machine again")
    time.sleep(0.5)
    assert len(services.events) == 1


def test_soft_reboot_is_for_machines_that_run(endpoint: Endpoint):
    with_web(endpoint)
    one = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/vm-instance-web"
    assert endpoint("PUT", f"{one}/softreboot", {}).status_code == 202
    assert endpoint.program("stop", "web").code == 0
    assert endpoint("PUT", f"{one}/softreboot", {}).status_code == 409
    agent = endpoint("GET", f"{one}/guestosinfo")
    assert agent.status_code == 422 and "HK510" in agent.text


# reads of our own kinds


def test_defaults_are_shown_and_not_written(endpoint: Endpoint):
    shown = with_web(endpoint)
    assert shown["spec"]["runStrategy"] == "Always" and shown["spec"]["externalPorts"] == [22]
    stored = endpoint.program("get", "vm", "web", "-o", "json").json["spec"]
    assert set(stored) == {"instanceType", "instanceProfile", "disks"}
    for verb, body, more in (
        ("PUT", shown | {"metadata": {"name": "web", "labels": {"a": "b"}}}, {}),
        ("PATCH", {"metadata": {"labels": {"a": "c"}}}, {"headers": MERGE}),
        (
            "PATCH",
            [{"op": "test", "path": "/spec/runStrategy", "value": "Always"}],
            {"headers": {"Content-Type": "application/json-patch+json"}},
        ),
    ):
        assert endpoint(verb, WEB, body, **more).status_code == 200, verb
        again = endpoint.program("get", "vm", "web", "-o", "json").json
        assert set(again["spec"]) == set(stored) and again["metadata"]["generation"] == 1, verb
    set_by_hand = endpoint("PATCH", WEB, {"spec": {"runStrategy": "Manual"}}, headers=MERGE)
    assert set_by_hand.json()["spec"]["runStrategy"] == "Manual"


def test_a_watch_over_a_websocket(endpoint: Endpoint):
    async def watch() -> list[dict]:
        context = ssl.create_default_context(cafile=str(endpoint.folder / "ca.crt"))
        head = {"Authorization": endpoint.http.headers["Authorization"]}
        async with (
            aiohttp.ClientSession(headers=head, connector=aiohttp.TCPConnector(ssl=context)) as client,
            client.ws_connect(f"{endpoint.url}{BASE}/vmdisks?watch=true") as socket,
        ):
            await asyncio.to_thread(endpoint, "POST", f"{BASE}/vmdisks", disk("new"))
            return [json.loads(await socket.receive_str(timeout=patience(20)))]

    (event,) = asyncio.run(watch())
    assert event["type"] == "ADDED" and named(event) == "new"
    assert endpoint("GET", f"{BASE}/vmdisks?watch=true", headers={"Upgrade": "websocket"}).status_code == 400


def test_openapi_of_both_versions(endpoint: Endpoint):
    old = endpoint("GET", "/openapi/v2").json()
    assert "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" in old["definitions"]
    kind = old["definitions"]["io.cozystack.apps.v1alpha1.VMInstance"]
    assert kind["x-kubernetes-group-version-kind"] == [
        {"group": "apps.cozystack.io", "version": "v1alpha1", "kind": "VMInstance"}
    ]
    assert "#/components" not in json.dumps(old) and "instanceType" in kind["properties"]["spec"]["properties"]
    protobuf = {"Accept": "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}
    empty = endpoint("GET", "/openapi/v2", headers=protobuf)
    assert empty.content == b"" and "@" not in empty.headers["Content-Type"], "Go reads no @ in a media type"
    index = endpoint("GET", "/openapi/v3").json()["paths"]
    for path, row in index.items():
        assert endpoint("GET", row["serverRelativeURL"]).json()["openapi"] == "3.0.0", path


# clients' own objects


def test_secrets_and_configmaps_are_kept_for_their_owner_alone(endpoint: Endpoint):
    secrets, value = f"{CORE}/secrets", base64.b64encode(b"hush").decode()
    made = endpoint("POST", secrets, {"metadata": {"name": "s"}, "stringData": {"a": "hush"}})
    assert made.status_code == 201 and made.json()["data"] == {"a": value} and made.json()["type"] == "Opaque"
    assert endpoint("POST", secrets, {"metadata": {"name": "s"}}).json()["reason"] == "AlreadyExists"
    strategic = {"Content-Type": "application/strategic-merge-patch+json"}
    patch = {"data": {"b": value}, "metadata": {"$setElementOrder/finalizers": [], "labels": {"x": "y"}}}
    patched = endpoint("PATCH", f"{secrets}/s", patch, headers=strategic).json()
    assert set(patched["data"]) == {"a", "b"} and "$setElementOrder/finalizers" not in patched["metadata"]
    assert [named({"object": o}) for o in items(endpoint, secrets, labelSelector="x=y")] == ["s"]
    stale = endpoint("PUT", f"{secrets}/s", {"metadata": {"name": "s", "resourceVersion": "1"}})
    assert stale.status_code == 409
    for body, field in (
        ({"metadata": {"name": "S"}}, "metadata.name"),
        ({"metadata": {"name": "t"}, "data": {"a": "no base64!"}}, "data.a"),
        ({"metadata": {"name": "t", "labels": {"a": 1}}}, "metadata.labels"),
    ):
        refused = endpoint("POST", secrets, body)
        assert refused.status_code == 422 and refused.json()["details"]["causes"][0]["field"] == field, refused.text
    file = endpoint.folder / "documents.db"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(endpoint.folder.stat().st_mode) == 0o700
    assert "hush" not in endpoint.log.read_text()
    endpoint.process.kill()
    endpoint.process.wait()
    again = Endpoint(endpoint.program)
    try:
        assert again("GET", f"{secrets}/s").json()["data"]["a"] == value, "what was accepted is there after a kill"
        assert again("DELETE", f"{secrets}/s").json()["status"] == "Success"
    finally:
        again.close()


def test_a_watch_of_configmaps_and_a_dry_run(endpoint: Endpoint):
    maps = f"{CORE}/configmaps"
    dry = endpoint("POST", f"{maps}?dryRun=All", {"metadata": {"name": "c"}, "data": {"a": "1"}})
    assert dry.status_code == 201 and items(endpoint, maps) == []
    revision = endpoint("GET", maps).json()["metadata"]["resourceVersion"]
    endpoint("POST", maps, {"metadata": {"name": "c"}, "data": {"a": "1"}})
    endpoint("PUT", f"{maps}/c", {"metadata": {"name": "c"}, "data": {"a": "2"}})
    endpoint("PUT", f"{maps}/c", {"metadata": {"name": "c"}, "data": {"a": "2"}})  # nothing new: no revision
    endpoint("DELETE", f"{maps}/c")
    watch = endpoint.watch(maps, resourceVersion=revision)
    events = watch.until(lambda e: e and e[-1]["type"] == "DELETED", "its end")
    assert [e["type"] for e in events] == ["ADDED", "MODIFIED", "DELETED"]


def test_server_side_apply_of_a_configmap(endpoint: Endpoint):
    apply = {"Content-Type": "application/apply-patch+yaml"}
    one = f"{CORE}/configmaps/c"
    made = endpoint("PATCH", f"{one}?fieldManager=a", {"data": {"x": "1"}}, headers=apply)
    assert made.status_code == 201 and made.json()["metadata"]["name"] == "c"
    clash = endpoint("PATCH", f"{one}?fieldManager=b", {"data": {"x": "2"}}, headers=apply)
    assert clash.status_code == 409 and 'conflict with "a" using v1: .data.x' in clash.json()["message"]
    forced = endpoint("PATCH", f"{one}?fieldManager=b&force=true", {"data": {"x": "2"}}, headers=apply)
    assert forced.json()["data"] == {"x": "2"}


@pytest.mark.parametrize("muted", [False, True])
def test_an_apply_that_hikube_may_refuse_is_told(hikube: Program, muted: bool):
    """HK524: without managedFields every field is somebody else's. Forced, or with nothing to change, it is not."""
    served = Endpoint(hikube, *(["--no-differences"] if muted else []))
    apply = {"Content-Type": "application/apply-patch+yaml"}
    path = f"{BASE}/vmdisks/d?fieldManager=a"

    def warnings(size: str, more: str = "") -> str:
        answer = served("PATCH", path + more, disk("d", storage=size), headers=apply)
        assert answer.ok and answer.json()["spec"]["storage"] == size
        return answer.headers.get("Warning", "")

    try:
        assert "HK524" not in warnings("1Gi") and "HK524" not in warnings("1Gi")
        told = warnings("2Gi")
        assert ("[HK524]" in told and ".spec.storage" in told) != muted
        assert "HK524" not in warnings("3Gi", "&force=true")
        dry = served("PATCH", path + "&dryRun=All", disk("d", storage="4Gi"), headers=apply)
        assert ("HK522" in dry.headers.get("Warning", "")) != muted
    finally:
        served.close()


def test_namespaces_are_there_where_objects_are_and_go_only_empty(endpoint: Endpoint):
    assert endpoint("POST", "/api/v1/namespaces", {"metadata": {"name": "blue"}}).status_code == 201
    assert [named({"object": o}) for o in items(endpoint, "/api/v1/namespaces")] == ["blue", "default"]
    endpoint("POST", BASE.replace("default", "blue") + "/vmdisks", disk("d"))
    refused = endpoint("DELETE", "/api/v1/namespaces/blue")
    assert refused.status_code == 409 and "vmdisk/d" in refused.text
    assert endpoint("DELETE", "/api/v1/namespaces/default").status_code == 403


# who may


def test_a_tenants_roles(hikube: Program):
    served = Endpoint(hikube, "--role", "use")
    try:
        assert items(served, f"{BASE}/vminstances") == []
        refused = served("POST", f"{BASE}/vmdisks", disk("d"))
        words = 'vmdisks.apps.cozystack.io is forbidden: User "hikube-local:use" cannot create resource "vmdisks" in API group "apps.cozystack.io" in the namespace "default"'
        assert (refused.status_code, refused.json()["message"]) == (403, words)
        for path in (f"{CORE}/secrets", "/api/v1/namespaces", VMI, "/metrics", "/apis/metrics.k8s.io/v1beta1/nodes"):
            assert served("GET", path).status_code == 403, path
        assert served("GET", f"{CORE}/pods").status_code == 200
        review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

        def may(**asked: str) -> bool:
            return served("POST", review, {"spec": {"resourceAttributes": asked}}).json()["status"]["allowed"]

        assert may(verb="list", group="apps.cozystack.io", resource="vminstances", namespace="default")
        assert not may(verb="list", group="apps.cozystack.io", resource="vminstances")
        assert may(
            verb="get",
            namespace="default",
            group="subresources.kubevirt.io",
            resource="virtualmachineinstances",
            subresource="console",
        )
        assert not may(verb="delete", group="apps.cozystack.io", resource="vminstances", namespace="default")
        power = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/web"
        assert served("PUT", f"{power}/start", {}).status_code == 404, "he may, but it is not there"
        assert served("PUT", power.replace("machines/", "machineinstances/") + "/pause", {}).status_code == 403
    finally:
        served.close()


def test_what_no_tenant_may_is_told_to_the_operator(endpoint: Endpoint):
    assert "HK523" in endpoint("GET", f"{CORE}/secrets").headers["Warning"]
    assert "Warning" not in endpoint("GET", f"{BASE}/vminstances").headers
    with_web(endpoint)
    pod = items(endpoint, f"{CORE}/pods")[0]["metadata"]["name"]
    refused = endpoint("POST", f"{CORE}/pods/{pod}/exec")
    assert refused.status_code == 403 and "virtctl ssh" in refused.text


# bodies in protobuf


def field(number: int, *content: bytes) -> bytes:
    body = b"".join(content)
    return bytes([number << 3 | 2]) + _length(len(body)) + body


def _length(count: int) -> bytes:
    out = b""
    while count > 0x7F:
        out += bytes([count & 0x7F | 0x80])
        count >>= 7
    return out + bytes([count])


def protobuf(kind: str, *content: bytes, version: str = "v1") -> bytes:
    about = field(1, field(1, version.encode()), field(2, kind.encode()))
    return b"k8s\x00" + about + field(2, *content)


def test_protobuf_bodies_as_kubectl_and_helm_send_them(endpoint: Endpoint):
    head = {"Content-Type": "application/vnd.kubernetes.protobuf"}

    def post(path: str, body: bytes) -> requests.Response:
        return endpoint.http.post(endpoint.url + path, data=body, headers=head, timeout=patience(20))

    meta = field(1, field(1, b"s"), field(3, b""), field(11, field(1, b"owner"), field(2, b"helm")))
    made = post(f"{CORE}/secrets", protobuf("Secret", meta, field(2, field(1, b"k"), field(2, b"\x00\xff"))))
    assert made.status_code == 201 and made.json()["data"] == {"k": "AP8="}, made.text
    assert made.json()["metadata"]["labels"] == {"owner": "helm"}
    asked = field(2, field(1, field(2, b"list"), field(3, b"apps.cozystack.io"), field(5, b"vmdisks")))
    review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    said = post(review, protobuf("SelfSubjectAccessReview", asked, version="authorization.k8s.io/v1"))
    assert said.json()["status"]["allowed"] and said.json()["spec"]["resourceAttributes"]["resource"] == "vmdisks"
    for body in (b"k8s\x00\xff\xff", protobuf("Secret", b"\x0a\xff"), protobuf("Secret", b"\x0f"), b"k8s\x00" * 99):
        assert post(f"{CORE}/secrets", body).status_code in (400, 415, 422)
    assert post(f"{CORE}/secrets", protobuf("Pod", meta)).status_code == 415


# figures


def test_metrics_of_machines_and_of_the_host(endpoint: Endpoint):
    with_web(endpoint)
    text = endpoint("GET", "/metrics").text
    assert "# TYPE kubevirt_vm_info gauge" in text and 'name="vm-instance-web"' in text
    node = endpoint("GET", "/apis/metrics.k8s.io/v1beta1/nodes").json()["items"][0]
    assert node["usage"]["memory"].endswith("Ki") and node["usage"]["cpu"].endswith("m")
    assert endpoint("GET", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods").json()["items"] == []
    history = endpoint("GET", "/hikube/v1/namespaces/default/vminstances/web/history?since=10m").json()
    assert history["step"] == 5 and history["time"] == history["cpuMillis"] == []
    assert endpoint("GET", "/hikube/v1/namespaces/default/vminstances/no/history").status_code == 404
    assert endpoint("GET", "/hikube/v1/namespaces/default/vminstances/web/history?since=x").status_code == 400


# uploads


def test_an_upload_begins_with_a_disk_and_a_token_of_one_use(endpoint: Endpoint):
    volumes = "/apis/cdi.kubevirt.io/v1beta1/namespaces/default/datavolumes"
    spec = {"source": {"upload": {}}, "storage": {"resources": {"requests": {"storage": "1Gi"}}}}
    wrong = endpoint("POST", volumes, {"metadata": {"name": "x"}, "spec": spec | {"source": {"blank": {}}}})
    assert wrong.status_code == 422 and [c["field"] for c in wrong.json()["details"]["causes"]] == [
        "name",
        "spec.source",
    ]
    assert endpoint("POST", volumes, {"metadata": {"name": "vm-disk-up"}, "spec": spec}).status_code == 201
    assert endpoint("GET", f"{BASE}/vmdisks/up").json()["spec"]["source"] == {"upload": {}}
    assert endpoint("GET", f"{volumes}/vm-disk-up").json()["spec"]["source"] == {"upload": {}}
    address = endpoint("GET", "/apis/cdi.kubevirt.io/v1beta1/cdiconfigs/config").json()["status"]["uploadProxyURL"]
    assert address.startswith("http://127.0.0.1:")
    asked = {"metadata": {"name": "t"}, "spec": {"pvcName": "vm-disk-up"}}
    tokens = "/apis/upload.cdi.kubevirt.io/v1beta1/namespaces/default/uploadtokenrequests"
    token = endpoint("POST", tokens, asked).json()["status"]["token"]
    path, head = f"{address}/v1beta1/upload-async", {"Authorization": f"Bearer {token}"}
    assert requests.head(path, headers=head, timeout=patience(20)).status_code == 200
    assert requests.head(path, headers={"Authorization": "Bearer x"}, timeout=patience(20)).status_code == 401
    assert requests.head(path, headers=head | {"Origin": "http://x"}, timeout=patience(20)).status_code == 403
    assert requests.get(f"{address}/api", headers=head, timeout=patience(20)).status_code == 404
    sent = requests.post(path, data=b"x" * 512, headers=head, timeout=patience(20))
    assert sent.status_code == 400 and "HK510" in sent.text, "the simulator takes none"
    assert requests.head(path, headers=head, timeout=patience(20)).status_code == 401, "it was used"
    assert not list(endpoint.folder.glob("upload-*"))


# the command


def test_a_unit_a_socket_and_words_for_both(hikube: Program):
    unit = hikube("serve", "--unit", "--port", "4711").out
    assert "KillMode=process" in unit and '"serve" "--port" "4711"' in unit
    assert f"HIKUBE_LOCAL_HOME={hikube.env['HIKUBE_LOCAL_HOME']}" in unit
    path = hikube.folder / "api.sock"
    served = Endpoint(hikube, "--socket", str(path))
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        token = (served.folder / "token").read_text()
        script = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            "s.sendall(f'GET /apis HTTP/1.0\\r\\nHost: localhost\\r\\nAuthorization: Bearer {sys.argv[2]}\\r\\n\\r\\n'.encode());"
            "print(s.recv(100).decode())"
        )
        words = [sys.executable, "-I", "-c", script, str(path)]
        done = subprocess.run([*words, token], capture_output=True, text=True, timeout=patience(20))
        assert "200 OK" in done.stdout, done.stderr
        refused = subprocess.run([*words, "x"], capture_output=True, text=True, timeout=patience(20))
        assert "401" in refused.stdout
    finally:
        served.close()
    assert not path.exists()


def test_the_documentation_names_what_is_served():
    from hikube_local.kube import kinds

    page = (ROOT / "docs" / "kubernetes.md").read_text()
    for resource in kinds.ALL:
        assert resource.kind in page or resource.plural in page, resource.full
    assert Path(ROOT / "examples" / "monitoring").is_dir()


def test_faithful_accepts_what_hikube_accepts_and_fails_it_as_there(hikube: Program):
    plain = Endpoint(hikube)
    wrong = machine("web", "d", instanceType="huge")
    refused = plain("POST", f"{BASE}/vminstances", wrong)
    assert refused.status_code == 422 and "HK302" in refused.text
    plain.close()
    served = Endpoint(hikube, "--faithful")
    try:
        served("POST", f"{BASE}/vmdisks", disk("d"))
        made = served("POST", f"{BASE}/vminstances", wrong)
        assert made.status_code == 201 and "HK302" in made.headers["Warning"]
        (ready,) = [c for c in made.json()["status"]["conditions"] if c["type"] == "Ready"]
        assert (ready["status"], ready["reason"]) == ("False", "InstallFailed") and "huge" in ready["message"]
        assert served("GET", "/apis/kubevirt.io/v1/namespaces/default/virtualmachines").json()["items"] == []
        assert items(served, f"{CORE}/pods") == [], "nothing is made of it, so nothing of it is asked for its size"
        time.sleep(3)  # the keeper leaves it alone
        assert "could not be reconciled" not in served.log.read_text()
        assert hikube("get", "vm").code == 0 and "web" in hikube("describe", "vm", "web").out
        assert served("POST", f"{BASE}/vmdisks", disk("Bad")).status_code == 422, "names are refused there too"
        mended = served("PATCH", WEB, {"spec": {"instanceType": "u1.nano"}}, headers=MERGE)
        assert mended.status_code == 200
        served.until(WEB, lambda a: works(a.json()), "the machine that is right now")
        assert served("DELETE", WEB).status_code == 200
    finally:
        served.close()


# what a review found: each was otherwise once


def test_a_dry_run_of_a_subresource_and_of_an_upload_does_nothing(endpoint: Endpoint):
    with_web(endpoint)
    power = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/vm-instance-web"
    assert endpoint("PUT", f"{power}/stop", {"dryRun": ["All"]}).status_code == 202
    assert endpoint("PUT", f"{power}/start", {"paused": True}).status_code == 422
    time.sleep(1)
    assert works(endpoint("GET", WEB).json())
    spec = {"source": {"upload": {}}, "storage": {"resources": {"requests": {"storage": "1Gi"}}}}
    volumes = "/apis/cdi.kubevirt.io/v1beta1/namespaces/default/datavolumes"
    dry = endpoint("POST", f"{volumes}?dryRun=All", {"metadata": {"name": "vm-disk-x"}, "spec": spec})
    assert dry.status_code == 201 and endpoint("GET", f"{BASE}/vmdisks/x").status_code == 404
    assert (
        endpoint("POST", f"{volumes}?dryRun=Some", {"metadata": {"name": "vm-disk-x"}, "spec": spec}).status_code == 400
    )


def test_parameters_are_read_as_kubernetes_reads_them(endpoint: Endpoint):
    endpoint("POST", f"{BASE}/vmdisks", disk("d"))
    watch = endpoint.watch(f"{BASE}/vmdisks", watch="True", sendInitialEvents="TRUE", allowWatchBookmarks="1")
    watch.until(lambda e: [v["type"] for v in e][:2] == ["ADDED", "BOOKMARK"], "both")
    for query in ("resourceVersion=²", "resourceVersion=" + "9" * 30, "timeoutSeconds=²"):
        assert endpoint("GET", f"{BASE}/vmdisks?watch=1&resourceVersion=1&{query}").status_code in (400, 410), query
    assert endpoint("GET", f"{CORE}/events?watch=1&resourceVersion=99999999999999999999").status_code == 400
    assert (
        endpoint("POST", f"{BASE}/vmdisks", disk("e") | {"metadata": {"name": "e", "resourceVersion": "5"}}).status_code
        == 400
    )


def test_an_object_that_leaves_a_selector_is_deleted_to_who_watches_it(endpoint: Endpoint):
    labelled = disk("d") | {"metadata": {"name": "d", "labels": {"x": "1"}}}
    endpoint("POST", f"{BASE}/vmdisks", labelled)
    endpoint("POST", f"{BASE}/vmdisks", disk("other"))
    listed = endpoint("GET", f"{BASE}/vmdisks?labelSelector=x=1").json()
    watch = endpoint.watch(
        f"{BASE}/vmdisks", labelSelector="x=1", resourceVersion=listed["metadata"]["resourceVersion"]
    )
    endpoint("PATCH", f"{BASE}/vmdisks/other", {"metadata": {"labels": {"y": "1"}}}, headers=MERGE)
    endpoint("PATCH", f"{BASE}/vmdisks/d", {"metadata": {"labels": {"x": None}}}, headers=MERGE)
    events = watch.until(lambda e: any(v["type"] == "DELETED" and named(v) == "d" for v in e), "its end")
    so_far = len(events)
    endpoint("PATCH", f"{BASE}/vmdisks/d", {"metadata": {"labels": {"x": "1"}}}, headers=MERGE)
    watch.until(lambda e: ("ADDED", "d") in [(v["type"], named(v)) for v in e[so_far:]], "its return")
    assert sum(named(v) == "other" for v in events) <= 1


def test_a_pod_that_is_not_there_is_not_deleted_again_and_again(endpoint: Endpoint):
    with_web(endpoint)
    assert endpoint.program("stop", "web").code == 0
    endpoint.until(f"{CORE}/pods", lambda a: a.json()["items"] == [], "no pod")
    revision = endpoint("GET", f"{CORE}/pods").json()["metadata"]["resourceVersion"]
    watch = endpoint.watch(f"{CORE}/pods", resourceVersion=revision)
    for n in range(3):
        endpoint("PATCH", WEB, {"metadata": {"labels": {"n": str(n)}}}, headers=MERGE)
    assert endpoint.program("start", "web").code == 0
    watch.until(lambda e: e and e[-1]["type"] in ("ADDED", "MODIFIED"), "the pod")
    assert [e["type"] for e in watch.events].count("DELETED") <= 1 and watch.events[0]["type"] in ("ADDED", "DELETED")
    before = endpoint("GET", f"{VMI}/vm-instance-web").json()
    assert endpoint.program("stop", "web").code == 0
    time.sleep(1.1)
    assert endpoint.program("start", "web").code == 0
    endpoint.until(
        f"{VMI}/vm-instance-web",
        lambda a: a.status_code == 200 and a.json()["metadata"]["uid"] != before["metadata"]["uid"],
        "a new one",
    )


def test_text_that_is_none_breaks_no_watch(endpoint: Endpoint):
    watch = endpoint.watch(f"{CORE}/configmaps")
    headers = {"Content-Type": "application/json"}
    body = b'{"metadata":{"name":"c"},"data":{"k":"\\ud800"}}'
    made = endpoint.http.post(f"{endpoint.url}{CORE}/configmaps", data=body, headers=headers, timeout=patience(20))
    assert made.status_code == 201
    assert watch.until(lambda e: e, "it")[0]["object"]["data"] == {"k": "\ufffd"}


def test_an_empty_patch_changes_nothing_that_others_see(endpoint: Endpoint):
    endpoint("POST", f"{BASE}/vmdisks", disk("d"))
    patch = {"Content-Type": "application/json-patch+json"}
    assert endpoint("PATCH", f"{BASE}/vmdisks/d", [], headers=patch).status_code == 200
    assert endpoint("GET", f"{BASE}/vmdisks/d").json()["spec"]["optical"] is False


def test_namespaces_have_all_verbs_and_keep_what_is_in_them(endpoint: Endpoint):
    one = "/api/v1/namespaces/blue"
    made = endpoint("POST", "/api/v1/namespaces", {"metadata": {"name": "blue", "namespace": "default"}})
    assert made.status_code == 201 and "namespace" not in made.json()["metadata"]
    assert (
        endpoint("PATCH", one, {"metadata": {"labels": {"a": "b"}}}, headers=MERGE).json()["metadata"]["labels"]["a"]
        == "b"
    )
    endpoint("POST", f"{one}/secrets", {"metadata": {"name": "s"}})
    assert endpoint("DELETE", one).status_code == 409
    assert endpoint("DELETE", f"{one}/secrets/s").status_code == 200 and endpoint("DELETE", one).status_code == 200
    assert endpoint("POST", "/api/v1/secrets", {"metadata": {"name": "s"}}).status_code == 400
    assert endpoint("POST", "/api/v1/namespaces/Foo%20Bar/secrets", {"metadata": {"name": "s"}}).status_code == 400


def test_kept_objects_are_written_as_kubernetes_writes_them(endpoint: Endpoint):
    one = f"{CORE}/configmaps/c"
    endpoint("POST", f"{CORE}/configmaps", {"metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}})
    strategic = {"Content-Type": "application/strategic-merge-patch+json"}
    replaced = endpoint("PATCH", one, {"data": {"$patch": "replace", "c": "3"}}, headers=strategic)
    assert replaced.json()["data"] == {"c": "3"}
    apply = {"Content-Type": "application/apply-patch+yaml"}
    stale = endpoint("PATCH", f"{one}?fieldManager=a", {"metadata": {"resourceVersion": "1"}}, headers=apply)
    assert stale.status_code == 409
    endpoint("PATCH", one, {"immutable": True}, headers=MERGE)
    assert endpoint("PATCH", one, {"data": {"c": "4"}}, headers=MERGE).status_code == 422
    assert endpoint("DELETE", one, {"preconditions": {"resourceVersion": "1"}}).status_code == 409


def test_what_was_in_a_secret_goes_with_it(endpoint: Endpoint):
    endpoint("POST", f"{CORE}/secrets", {"metadata": {"name": "s"}, "stringData": {"a": "a-word-to-look-for"}})
    watch = endpoint.watch(f"{CORE}/secrets")
    watch.until(lambda e: e, "it")
    endpoint("DELETE", f"{CORE}/secrets/s")
    watch.until(lambda e: e[-1]["type"] == "DELETED", "its end")
    endpoint.close()
    coded = base64.b64encode(b"a-word-to-look-for")
    assert all(coded not in p.read_bytes() for p in endpoint.folder.glob("documents.db*"))


def test_roles_are_bound_in_namespaces(hikube: Program):
    served = Endpoint(hikube, "--role", "use")
    try:
        assert served("GET", "/apis/apps.cozystack.io/v1alpha1/vminstances").status_code == 403
        one = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/web"
        assert served("GET", f"{one}/vnc/screenshot").status_code == 403
        assert served("GET", f"{one}/portforward/22/tcp").status_code == 404  # he may; it is not there
    finally:
        served.close()


def test_odd_requests_are_refused_without_a_trace(endpoint: Endpoint):
    odd = {"Authorization": b"Bearer \xff"}
    assert (
        requests.get(endpoint.url + "/api", headers=odd, verify=endpoint.http.verify, timeout=patience(20)).status_code
        == 401
    )
    review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert endpoint("POST", review, {"spec": {"nonResourceAttributes": "x"}}).status_code == 201
    volumes = "/apis/cdi.kubevirt.io/v1beta1/namespaces/default/datavolumes"
    spec = {"source": {"upload": {}}, "storage": {"resources": None}}
    assert endpoint("POST", volumes, {"metadata": {"name": "vm-disk-x"}, "spec": spec}).status_code == 422
    many = endpoint("POST", f"{BASE}/vmdisks", disk("many", **{f"x{n}": n for n in range(200)}))
    assert many.status_code == 201 and "more" in many.headers["Warning"]
    assert endpoint("GET", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=((").status_code == 400
    assert "Traceback" not in endpoint.log.read_text()


def test_a_socket_takes_nobodys_file(hikube: Program):
    path = hikube.folder / "notes.txt"
    path.write_text("mine")
    refused = hikube("serve", "--socket", str(path), "--backend", "simulator")
    assert refused.code == 2 and "is not a socket" in refused.err and path.read_text() == "mine"


def test_connections_that_show_no_token_are_few_and_short(endpoint: Endpoint):
    context = ssl.create_default_context(cafile=str(endpoint.folder / "ca.crt"))
    watch = endpoint.watch(f"{BASE}/vmdisks")
    held = []
    for _ in range(130):
        raw = socket.create_connection(("127.0.0.1", endpoint.port), timeout=patience(20))
        held.append(context.wrap_socket(raw, server_hostname="127.0.0.1"))
    try:
        for one in held[:20] + held[-1:]:  # the first ones for their number, the last one for its time
            assert one.recv(1) == b"", "it was closed"
        assert endpoint("POST", f"{BASE}/vmdisks", disk("d")).status_code == 201
        watch.until(lambda e: e, "the watch, which goes on")
    finally:
        for one in held:
            one.close()


def test_each_kind_is_whole(endpoint: Endpoint):
    """A kind that was forgotten in one of the tables would be a 500, or plain columns, or a schema without its fields."""
    from hikube_local.kube import kinds, tables

    with_web(endpoint)
    endpoint("POST", f"{CORE}/secrets", {"metadata": {"name": "s"}})
    endpoint("POST", f"{CORE}/configmaps", {"metadata": {"name": "c"}})
    plain = {kinds.TYPES, kinds.PREFERENCES, kinds.DEFINITIONS, kinds.POD_METRICS, kinds.NODE_METRICS}
    for resource in kinds.ALL:
        if "list" not in resource.verbs:
            continue
        where = f"{resource.base}/namespaces/default" if resource.namespaced else resource.base
        answer = endpoint("GET", f"{where}/{resource.plural}")
        assert answer.status_code == 200, resource.full
        found = answer.json()["items"]
        assert found or resource in (kinds.DEFINITIONS, kinds.POD_METRICS), resource.full
        assert resource in tables.COLUMNS or resource in plain, f"{resource.full} has no columns of its own"
        schema = endpoint("GET", f"/openapi/v3{resource.base}").json()["components"]["schemas"]
        fields = next(s["properties"] for n, s in schema.items() if n.endswith(f".{resource.kind}"))
        for value in found:
            assert value["kind"] == resource.kind and value["apiVersion"] == resource.api_version
            assert set(value) <= set(fields), (resource.full, set(value) - set(fields))
        if found and "get" in resource.verbs:
            name = found[0]["metadata"]["name"]
            assert endpoint("GET", f"{where}/{resource.plural}/{name}").json()["kind"] == resource.kind


def test_a_subresource_belongs_to_one_of_kubevirts_two_kinds(endpoint: Endpoint):
    with_web(endpoint)
    base = "/apis/subresources.kubevirt.io/v1/namespaces/default"
    wrong = endpoint("PUT", f"{base}/virtualmachineinstances/vm-instance-web/stop", {})
    assert wrong.status_code == 404 and "have no subresource stop" in wrong.text
    assert endpoint("PUT", f"{base}/virtualmachines/vm-instance-web/pause", {}).status_code == 404
    assert endpoint("GET", f"{base}/virtualmachines/vm-instance-web/console").status_code == 404
    assert works(endpoint("GET", WEB).json())
    config = "/apis/cdi.kubevirt.io/v1beta1/cdiconfigs/config"
    assert endpoint("GET", config).status_code == 200 and endpoint("DELETE", config).status_code == 404
