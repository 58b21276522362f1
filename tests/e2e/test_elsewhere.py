"""A real guest on a box that is reached over ssh, and the same one as a tenant's: everything from the other side."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests import sshbox
from tests.e2e.conftest import Host, Real, stock_recipe
from tests.growth import patience
from tests.sshbox import Box

pytestmark = pytest.mark.full

MANIFEST = """\
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata: {name: sys}
spec: {source: {image: {name: debian-12}}, storage: 5Gi, storageClass: local}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {name: web}
spec:
  instanceType: u1.medium
  instanceProfile: ubuntu
  disks: [sys]
  external: true
  externalPorts: [22, 80]
  cloudInit: |
    #cloud-config
    users:
      - {name: demo, shell: /bin/bash, sudo: "ALL=(ALL) NOPASSWD:ALL"}
    write_files:
      - {path: /srv/index.html, content: "served from the box\\n"}
    runcmd:
      - [systemd-run, --unit=page, python3, -m, http.server, "80", -d, /srv]
"""


TESTED = MANIFEST.replace("      - {name: demo,", "      - default\n      - {name: demo,")
CHECKS = """\
- file: {path: /srv/index.html, mode: "0644", contains: served from}
- http: {port: 80, path: /index.html, contains: served from}
- run: {command: "id -u", stdout: "0"}
- user: {name: demo}
- file: {path: /srv/index.html}
  after: reboot
"""


@pytest.fixture(scope="module")
def box(host: Host, debian: Path, tmp_path_factory) -> Iterator[Box]:
    there, here = Real(tmp_path_factory.mktemp("there"), host), Real(tmp_path_factory.mktemp("here"), host)
    stock_recipe(there.home, debian)
    there.env["HIKUBE_LOCAL_BACKEND"] = "qemu"
    if sshbox.server() is None:
        pytest.skip("OpenSSH's server could not be fetched")
    made = Box(there, here)
    yield made
    made.close()
    there.close()
    here.close()


@pytest.fixture(scope="module")
def web(box: Box) -> Box:
    up = box("up", box.here.file("m.yaml", MANIFEST), "--timeout", f"{patience(400):.0f}s", timeout=600)
    assert up.code == 0, up.err
    assert "cloud-init" in up.err  # the stages of the boot are told, from over there
    return box


def test_ssh_scp_http_and_logs_from_the_other_side(web: Box, host: Host):
    said = web("ssh", "web", "--", "id -un; hostname", timeout=200)
    assert said.code == 0 and said.out.split() == ["demo", "vm-instance-web"], said.err
    note = web.here.file("note.txt", "hello\n")
    assert web("scp", note, "web:/tmp/note.txt", timeout=200).code == 0
    assert web("ssh", "web", "--", "cat /tmp/note.txt; exit 7", timeout=200).code == 7
    row = next(a for a in web("get", "vm", "web", "-o", "json").json["status"]["access"] if a["port"] == 80)
    assert (host.http(f"{row['address']}:{row['hostPort']}", timeout=60) or "").startswith("served") or "index" in str(
        host.http(f"{row['address']}:{row['hostPort']}/index.html", timeout=60)
    )
    assert "Linux version" in web("logs", "web").out
    # The person's own keys and the box's guest: nothing of it is on this side.
    assert web.here("get").out == ""


def test_the_same_machine_here_and_there_compared(web: Box):
    """The box's own command line is one side, a context that leads to the box the other: it is one machine."""
    there = web.there
    record = web.here.folder / "record.json"
    done = web(
        "compare",
        web.here.folder / "m.yaml",
        "--record",
        record,
        "--checks",
        web.here.file("c.yaml", "- run: {command: 'id -un', stdout: demo}\n"),
        timeout=300,
    )
    # Here there is no such machine.
    assert done.code == 1 and "HK804" in done.err, done.err
    row = json.loads(record.read_text())
    facts = row["machines"]["web"]
    assert facts["check run id -un"] == "passed"
    assert (
        facts["os"].startswith("Debian")
        and facts["hostname"] == "vm-instance-web"
        and facts["cloud-init status"] == "done"
    )
    same = there("compare", web.here.folder / "m.yaml", "--against", record, timeout=300)
    assert same.code == 0 and "0 unexpected" in same.err, same.out + same.err
    row["machines"]["web"] |= {"os": "Debian GNU/Linux 11", "cpu": "AMD EPYC"}
    record.write_text(json.dumps(row))
    other = there("compare", web.here.folder / "m.yaml", "--against", record, "-o", "json", timeout=300)
    verdicts = {r["what"]: (r["verdict"], r["code"]) for r in other.json}
    assert other.code == 1 and verdicts["os"] == ("unexpected", "") and verdicts["cpu"] == ("expected", "HK513")


def test_what_the_api_has_not_and_the_end(web: Box):
    listed = web("snapshot", "list", "web", timeout=200)
    assert listed.code == 0 and "configured" not in listed.err, listed.err
    taken = web("snapshot", "create", "web", "before", timeout=300)
    assert taken.code == 0, taken.err
    assert "before" in web("snapshot", "list", "web", timeout=200).out
    assert web("down", "--disks", "--yes", timeout=300).code == 0
    assert web.there("get").out == ""


@pytest.fixture
def tenant(host: Host, debian: Path, tmp_path_factory) -> Iterator[Real]:
    """A program whose context `prod` is a tenant: the endpoint of another state root, in the role of a tenant's admin."""
    there, here = Real(tmp_path_factory.mktemp("tenant"), host), Real(tmp_path_factory.mktemp("client"), host)
    stock_recipe(there.home, debian)
    log = there.folder / "serve.log"
    with open(log, "wb") as out:
        argv = [*there.before({}), "-m", "hikube_local", "serve", "--port", "26444", "--role", "admin"]
        serve = subprocess.Popen(argv, env=there.env, cwd=there.folder, stdout=out, stderr=out)
    try:
        there.wait_for(lambda: "serving" in log.read_text(), "serve")
        folder = there.home / "state" / "serve"
        cluster = {"server": "https://127.0.0.1:26444", "certificate-authority": str(folder / "ca.crt")}
        about = {"cluster": "c", "user": "me", "namespace": "default"}
        kubeconfig = {
            "contexts": [{"name": "tenant", "context": about}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "me", "user": {"token": (folder / "token").read_text()}}],
        }
        path = here.file("kubeconfig", yaml.safe_dump(kubeconfig))
        made = here("context", "create", "prod", "--kubeconfig", path, "--kube-context", "tenant")
        assert made.code == 0, made.err
        yield here
        assert there("get").out == ""  # nothing stayed
    finally:
        serve.send_signal(signal.SIGTERM)
        serve.wait(patience(30))
        here.close()
        there.close()
    assert "Traceback" not in log.read_text(), log.read_text()


def test_a_manifest_is_tested_in_a_tenant(tenant: Real):
    checks = tenant.file("c.yaml", CHECKS)
    path, report = tenant.file("m.yaml", TESTED), tenant.folder / "report.xml"
    words = ("test", path, "--yes", "--checks", checks, "--timeout", f"{patience(500):.0f}s", "--junit", report)
    done = tenant("--context", "prod", *words, timeout=1500)
    assert done.code == 0, done.out + done.err
    assert "web: PASSED" in done.out and "5 of 5 checks" in done.out
    assert "ssh as debian, with sudo, by a key that was added to sshKeys" in done.out
    assert "<testsuite" in report.read_text()
    # What cloud-init could not do is told at its line, as of a machine here.
    bad = tenant.file("bad.yaml", TESTED.replace("runcmd:\n", "runcmd:\n      - [/no/such/program]\n"))
    done = tenant("--context", "prod", "test", bad, "--yes", "--timeout", f"{patience(500):.0f}s", timeout=1500)
    assert done.code == 1 and "bad.yaml:2" in done.out, done.out + done.err


def test_a_boot_in_a_tenant_is_followed_on_its_console(tenant: Real):
    """As Cozystack and KubeVirt have it: the objects themselves say nothing of a boot."""
    folder = tenant.folder / "plain"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from hikube_local.backends.remote import status\nstatus.says_all = lambda raw: False\n"
    )
    plain = {"PYTHONPATH": f"{folder}:{tenant.env.get('PYTHONPATH', '')}"}

    def ask(*words: object, timeout: float = 400):
        return tenant("--context", "prod", *words, env=plain, timeout=timeout)

    path = tenant.file("m.yaml", MANIFEST)
    up = ask("up", path, "--timeout", f"{patience(500):.0f}s", timeout=1500)
    assert up.code == 0 and "cloud-init (" in up.err, up.err
    assert "cloud-init is done (said on the console)" in up.err, up.err
    assert "Linux version" in ask("logs", "web").out
    assert ask("down", path, "--disks", "--yes").code == 0
