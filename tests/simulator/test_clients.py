"""kubectl and Helm themselves against the endpoint: what Hikube's pages type, and what people do with charts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import clients
from tests.conftest import EXAMPLES, Program
from tests.endpoint import Endpoint
from tests.growth import patience

QUICKSTART = str(EXAMPLES / "quickstart.yaml")
SAMPLE = 34
VERSIONS = [v if v == SAMPLE else pytest.param(v, marks=pytest.mark.full) for v in clients.LAYERS]


class Shell:
    """A kubectl and a Helm of one version with a home of their own, at one endpoint."""

    def __init__(self, endpoint: Endpoint, found: clients.Clients, home: Path) -> None:
        line = endpoint.program("kubeconfig", "--env").out
        self.found = found
        self.env = {**os.environ, "KUBECONFIG": line.split("=", 1)[1].strip(), "HOME": str(home)}

    def __call__(self, line: str, input: str = "", fails: bool = False) -> str:
        name, *words = line.split()
        argv = [str(getattr(self.found, name)), *words]
        done = subprocess.run(argv, env=self.env, input=input, capture_output=True, text=True, timeout=patience(60))
        print(f"$ {line}\n{done.stdout}{done.stderr}[{done.returncode}]")
        assert bool(done.returncode) == fails, f"{line}\n{done.stdout}{done.stderr}"
        return done.stderr if fails else done.stdout


@pytest.fixture(params=VERSIONS)
def shell(request: pytest.FixtureRequest, hikube: Program, tmp_path: Path) -> Iterator[Shell]:
    found = clients.fetch(request.param)
    if found is None:
        pytest.skip("the package registry cannot be reached")
    endpoint = Endpoint(hikube)
    yield Shell(endpoint, found, tmp_path)
    endpoint.close()


def test_what_hikubes_pages_type(shell: Shell):
    made = shell(f"kubectl apply -f {QUICKSTART}")
    assert "vminstance.apps.cozystack.io/quickstart created" in made
    shell("kubectl wait vminstance/quickstart --for=condition=WorkloadsReady --timeout=60s")
    assert shell(f"kubectl apply -f {QUICKSTART}").count("unchanged") == 3
    shell(f"kubectl diff -f {QUICKSTART}")
    for what, seen in (
        ("vminstance quickstart", "quickstart"),
        ("vmdisk quickstart-system quickstart-data", "quickstart-data"),
        ("vminstance quickstart -o yaml", "instanceType: s1.medium"),
        ("vm", "vm-instance-quickstart"),
        ("vmi -o wide", "Running"),
        ("dv", "Succeeded"),
        ("pvc", "Bound"),
        ("svc", "LoadBalancer"),
        ("pods -l kubevirt.io=virt-launcher", "1/1"),
        ("events --sort-by=.lastTimestamp", "started"),
        ("nodes", "Ready"),
        ("all", "virtualmachineinstance"),
        ("virtualmachineclusterinstancetypes", "u1.medium"),
    ):
        assert seen in shell(f"kubectl get {what}"), what
    assert "started" in shell("kubectl describe vminstance quickstart")
    assert "instanceType" in shell("kubectl explain vminstance.spec")
    assert "datavolumes" in shell("kubectl api-resources")
    assert "Server Version" in shell("kubectl version")
    patch = '{"spec":{"runStrategy":"Halted"}}'
    assert "patched" in shell(f"kubectl patch vminstance quickstart --type=merge -p {patch}")
    shell("kubectl wait vminstance/quickstart --for=condition=WorkloadsReady=false --timeout=60s")
    assert "No resources found" not in shell("kubectl get vm") and shell("kubectl get vmi -o name") == ""
    shell("kubectl label vminstance quickstart tier=front")
    assert "quickstart" in shell("kubectl get vminstance -l tier=front -o name")
    wrong = '{"spec":{"instanceType":"huge"}}'
    assert "spec.instanceType" in shell(f"kubectl patch vminstance quickstart --type=merge -p {wrong}", fails=True)
    assert shell(f"kubectl apply --server-side --force-conflicts -f {QUICKSTART}").count("serverside-applied") == 3
    shell(f"kubectl delete -f {QUICKSTART} --timeout=60s")
    assert shell("kubectl get vminstances,vmdisks -o name") == ""


def test_built_in_kinds_which_newer_ones_send_as_protobuf(shell: Shell):
    shell("kubectl create secret generic s --from-literal=a=b")
    assert "a: Yg==" in shell("kubectl get secret s -o yaml")
    map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {%s: '1'}\n"
    shell("kubectl apply -f -", map % "old")
    assert "configured" in shell("kubectl apply -f -", map % "new")
    assert shell("kubectl get cm c -o jsonpath={.data}") == '{"new":"1"}'
    shell("kubectl create namespace blue")
    assert "blue" in shell("kubectl get ns -o name")
    shell("kubectl delete ns blue --timeout=60s")
    assert shell("kubectl auth can-i create vminstances").strip() == "yes"
    assert "*.*" in shell("kubectl auth can-i --list")
    assert "MEMORY" in shell("kubectl top node")
    shell("kubectl delete secret/s cm/c")


CHART = {
    "Chart.yaml": "apiVersion: v2\nname: web\nversion: 0.1.0\n",
    "values.yaml": "type: u1.nano\n",
    "templates/all.yaml": """
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-conf"}
data: {type: "{{ .Values.type }}"}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata: {name: "{{ .Release.Name }}-system"}
spec: {storage: 1Gi, storageClass: local}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {name: "{{ .Release.Name }}"}
spec: {instanceType: "{{ .Values.type }}", instanceProfile: alpine, disks: [{name: "{{ .Release.Name }}-system"}]}
""",
}


def test_a_chart_is_installed_upgraded_rolled_back_and_removed(shell: Shell, tmp_path: Path):
    chart = tmp_path / "chart"
    for name, text in CHART.items():
        (chart / name).parent.mkdir(parents=True, exist_ok=True)
        (chart / name).write_text(text)
    kind = "kubectl get vminstance web -o jsonpath={.spec.instanceType}"
    shell(f"helm install web {chart} --wait --timeout 60s")
    assert "deployed" in shell("helm list") and shell(kind) == "u1.nano"
    shell(f"helm upgrade web {chart} --set type=u1.micro --wait --timeout 60s")
    assert shell(kind) == "u1.micro"
    shell("helm rollback web 1")
    assert shell(kind) == "u1.nano" and shell("helm history web").count("web-0.1.0") == 3
    shell("helm uninstall web --wait --timeout 60s")
    assert shell("kubectl get vminstance,vmdisk,cm,secret -o name") == ""


PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  module_defaults:
    group/kubernetes.core.k8s: {namespace: default}
  vars:
    made: "{{ lookup('file', manifest) | from_yaml_all | list }}"
  tasks:
    - {name: create, kubernetes.core.k8s: {definition: "{{ made }}", wait: true, wait_timeout: 120}}
    - name: the same again
      kubernetes.core.k8s: {definition: "{{ made }}"}
      register: again
    - {name: nothing changed, assert: {that: not again.changed}}
    - name: applied by the server
      kubernetes.core.k8s: {definition: "{{ made }}", apply: true, server_side_apply: {field_manager: ansible, force_conflicts: true}}
    - name: patch
      kubernetes.core.k8s_json_patch:
        api_version: apps.cozystack.io/v1alpha1
        kind: VMInstance
        name: quickstart
        namespace: default
        patch: [{op: add, path: /metadata/labels, value: {tier: front}}]
    - name: look
      kubernetes.core.k8s_info:
        api_version: apps.cozystack.io/v1alpha1
        kind: VMInstance
        namespace: default
        label_selectors: [tier=front]
        wait: true
        wait_condition: {type: WorkloadsReady, status: "True"}
        wait_timeout: 120
      register: seen
    - {name: one is there, assert: {that: seen.resources | length == 1}}
    # A disk goes when its machine is gone: the machine first, for a client that waits for each.
    - {name: remove, kubernetes.core.k8s: {definition: "{{ made | reverse }}", state: absent, wait: true, wait_timeout: 120}}
"""


@pytest.mark.full
def test_ansibles_collection(hikube: Program, tmp_path: Path):
    """kubernetes.core: create and wait, idempotence, server-side apply, JSON patch, info with a condition, deletion."""
    libraries, collections = clients.python(), clients.collections()
    if libraries is None or collections is None:
        pytest.skip("the package registry cannot be reached")
    endpoint = Endpoint(hikube)
    try:
        config = endpoint.program("kubeconfig", "--env").out.split("=", 1)[1].strip()
        play = tmp_path / "play.yaml"
        play.write_text(PLAYBOOK)
        env = {**os.environ, "HOME": str(tmp_path), "ANSIBLE_COLLECTIONS_PATH": str(collections), "LC_ALL": "C.UTF-8"}
        env |= {
            "PYTHONPATH": str(libraries),
            "K8S_AUTH_KUBECONFIG": config,
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "1",
        }
        words = [Path(sys.executable).parent / "ansible-playbook", play, "-e", f"manifest={QUICKSTART}"]
        words += ["-e", f"ansible_python_interpreter={sys.executable}"]
        done = subprocess.run(
            words, env=env, capture_output=True, text=True, timeout=patience(300), stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "failed=0" in done.stdout and endpoint.program("get", "vm,vmdisk", "-o", "name").out == ""
    finally:
        endpoint.close()


@pytest.mark.full
def test_pythons_clients(hikube: Program, tmp_path: Path):
    folder = clients.python()
    if folder is None:
        pytest.skip("the package registry cannot be reached")
    endpoint = Endpoint(hikube)
    try:
        path = endpoint.program("kubeconfig", "--env").out.split("=", 1)[1].strip()
        script = Path(__file__).with_name("inside_clients.py")
        env = {**os.environ, "PYTHONPATH": str(folder), "HOME": str(tmp_path), "KUBECONFIG": path}
        words = [sys.executable, "-P", script, path]
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=patience(120))
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("done:") == 3
    finally:
        endpoint.close()
