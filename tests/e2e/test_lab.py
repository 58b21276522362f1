"""`test` with a real Debian guest: what cloud-init did, at the manifest's lines; checks, reports, nothing left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import DEBIAN_DISK, Host, Real, ours, stock_recipe
from tests.forms import valid
from tests.growth import patience

pytestmark = pytest.mark.e2e

MANIFEST = (
    DEBIAN_DISK
    + """\
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata:
  name: web
  annotations:
    hikube.local/checks: |
      - user: {name: app, groups: [sudo], keys: 1}
spec:
  external: true
  externalPorts: [80]
  instanceType: u1.small
  disks: [sys]
  cloudInit: |
    #cloud-config
    users:
      - default
      - name: app
        groups: [sudo]
        ssh_authorized_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ a@b"]
    write_files:
      - path: /srv/index.html
        content: hello
        permissions: '0640'
      - path: /etc/systemd/system/web.service
        content: |
          [Service]
          ExecStart=python3 -m http.server 80 -d /srv
          [Install]
          WantedBy=multi-user.target
    runcmd:
      - systemctl enable --now web
      - nosuchcommand --x
      - "true"
"""
)
CHECKS = """\
- run: {command: "echo hi; exit 3", exit: 3, contains: hi}
- file: {path: /srv/index.html, mode: "0640", owner: root, contains: hello}
- file: {path: /srv/index.html, mode: "0600"}
- service: {name: web, active: true, enabled: true}
- port: {port: 80}
- http: {port: 80, path: /index.html, status: 200, contains: hello}
- http: {port: 81}
- package: {name: openssh-server}
- mount: {path: /}
- http: {port: 80, path: /index.html}
  after: reboot
"""


@pytest.fixture(scope="module")
def tried(host: Host, debian: Path, tmp_path_factory):
    program = Real(tmp_path_factory.mktemp("lab") / "home", host)
    stock_recipe(program.home, debian)
    out = program.home / "out"
    words = ["--checks", program.file("checks.yaml", CHECKS), "--junit", out / "j.xml", "--html", out / "r.html"]
    words += ["--artifacts", out / "art", "-o", "json"]
    out.mkdir(parents=True)
    before = host.facts()
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(out / "summary.md")}
    result = program("test", program.file("m.yaml", MANIFEST), *words, timeout=900, env=env)
    yield program, result, out, before
    program.close()


def machine(result) -> dict:
    """The one machine of the JSON."""
    (row,) = valid("test", json.loads(result.out))
    return row


def test_what_went_wrong_stands_at_its_line(tried):
    program, result, _, _ = tried
    assert result.code == 1, result.err
    row = machine(result)
    assert row["result"] == "failed" and row["cloudInit"] == "done" and "guest agent" in row["wayIn"]
    (problem,) = [p for p in row["problems"] if "nosuchcommand" in p["message"]]
    line = MANIFEST.splitlines().index("      - nosuchcommand --x") + 1
    assert (problem["line"], problem["file"]) == (line, str(program.home / "files" / "m.yaml"))
    assert f"line={line}::" in result.err, "CI is told, beside the JSON"
    assert "nosuchcommand: not found" in row["output"] and "Cloud-init v." not in row["output"]
    modules = {m["name"]: m["result"] for m in row["modules"]}
    assert modules["runcmd"] == modules["write_files"] == modules["users_groups"] == "SUCCESS"
    assert [s["stage"] for s in row["stages"]][-4:] == ["cloud-init-local", "cloud-init", "cloud-config", "cloud-final"]


def test_checks_show_what_was_found(tried):
    row = machine(tried[1])
    checks = [(c["kind"], c["passed"]) for c in row["checks"]]
    failed = [c for c in row["checks"] if not c["passed"]]
    assert len(checks) == 11 and [c["kind"] for c in failed] == ["file", "http"], failed
    assert "0640, not 0600" in failed[0]["found"][0] and "port 81" in failed[1]["found"][0]
    assert row["checks"][-1]["title"].endswith("(after reboot)")


def test_the_reports_are_written(tried):
    _, _, out, _ = tried
    root = ET.parse(out / "j.xml").getroot()
    assert root.get("failures") == "3"
    page = (out / "r.html").read_text()
    assert (
        page.count("class='bar stage'") >= 6
        and page.count("bar module") > 20
        and page.count("bar unit") > 5
        and "Linux version" in page
    )
    for name in ("cloud-init.log", "journal.log", "domain.xml", "console.log", "user-data", "meta-data"):
        assert (out / "art" / "default" / "web" / name).stat().st_size > 50, name
    # NIC, agent, balloon, random numbers, disk and seed, and four that KubeVirt keeps in front of them; none to spare.
    assert (out / "art" / "default" / "web" / "domain.xml").read_text().count("model='pcie-root-port'") == 10
    assert "| web | failed |" in (out / "summary.md").read_text()


@pytest.mark.full
def test_other_checks_start_from_the_warm_state(tried):
    """Nothing that matters has changed, so the machine resumes, and is judged as before; another user-data boots."""
    program, _, _, _ = tried
    checks = program.file(
        "other.yaml",
        "- http: {port: 80, path: /index.html, contains: hello}\n- user: {name: root}\n"
        # The guest's clock goes on from now, not from where the checkpoint was taken.
        f"- run: {{command: 'test $(date +%s) -ge {time.time():.0f}'}}\n",
    )
    result = program("test", program.home / "files" / "m.yaml", "--checks", checks, "-o", "json", timeout=200)
    row = machine(result)
    assert row["warm"] is True and row["cause"] == "runcmd: nosuchcommand: not found", (row["cause"], result.err)
    assert all(c["passed"] for c in row["checks"]) and len(row["modules"]) > 20
    assert any("nosuchcommand" in p["message"] for p in row["problems"]), "its evidence is the same"
    again = program.file("again.yaml", MANIFEST.replace("hello", "hullo"))
    cold = program("test", again, "--timeout", "2s", timeout=200)
    assert cold.code == 3 and "resumed" not in cold.out


def test_nothing_is_left_behind(tried, host: Host):
    program, _, _, before = tried
    lab = program.home / "state" / "lab"
    assert list(lab.iterdir()) == [] and host.facts() == before
    for path in (program.home / "state" / "warm").rglob("memory"):
        assert path.stat().st_mode & 0o777 == 0o600, "memory holds secrets"
    assert ours(program.runtime.parent / "x") == []
    assert program("get", "-A", "-o", "json").json["items"] == []


@pytest.mark.full
def test_the_pytest_plugin_hands_out_hosts(host: Host, debian: Path, tmp_path: Path):
    program = Real(tmp_path / "home", host)
    stock_recipe(program.home, debian)
    program.file("m.yaml", MANIFEST)
    folder = program.home / "files"
    (folder / "test_web.py").write_text(
        "def test_web(hikube_machines):\n"
        "    web = hikube_machines('m.yaml')['web']\n"
        "    assert web.service('web').is_running and web.user('app').exists\n"
        "def test_it_is_booted_once(hikube_machines):\n"
        "    assert hikube_machines('m.yaml')['web'].file('/srv/index.html').mode == 0o640\n"
    )
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder]
    inside = [*host.enter[:-1], f"--wd={folder}"]
    env = {**program.env, "PYTHONPATH": str(ROOT), "HIKUBE_LOCAL_HOME": str(program.home)}
    done = subprocess.run([*inside, *map(str, words)], env=env, capture_output=True, text=True, timeout=patience(600))
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert list((program.home / "state" / "lab").iterdir()) == []
    program.close()


@pytest.mark.full
def test_a_guest_without_an_agent_is_entered_over_ssh(host: Host, debian: Path, tmp_path: Path):
    """Most clouds' images have none. What is tested stays as it is: root's own keys are not touched."""
    program = Real(tmp_path / "home", host)
    stock_recipe(program.home, debian)
    mask = "    bootcmd:\n      - systemctl mask --now qemu-guest-agent\n    users:"
    path = program.file("m.yaml", MANIFEST.replace("    users:", mask).replace("      - nosuchcommand --x\n", ""))
    checks = """\
    - run: {command: "cat /root/.ssh/authorized_keys 2>/dev/null | wc -l", stdout: "0"}
    - run: {command: "exit 255", exit: 255}
    - service: {name: web, active: true}
    - http: {port: 80, path: /index.html}
      after: reboot
    - file: {path: /srv/index.html, mode: "0640"}
      after: reboot
    """
    try:
        result = program("test", path, "--checks", program.file("c.yaml", checks), "-o", "json", timeout=900)
        row = machine(result)
        assert row["result"] == "passed", (row, result.err)
        assert row["wayIn"].startswith("ssh as root") and len(row["modules"]) > 20
        assert all(c["passed"] for c in row["checks"]) and len(row["checks"]) == 6
    finally:
        program.close()


@pytest.mark.full
def test_a_killed_run_is_swept_by_the_next(host: Host, debian: Path, tmp_path: Path):
    program = Real(tmp_path / "home", host)
    stock_recipe(program.home, debian)
    path = program.file("m.yaml", MANIFEST)
    child = subprocess.Popen(
        [*host.enter, sys.executable, "-m", "hikube_local", "test", str(path)],
        env=program.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if "starting" in line:
            break
    time.sleep(3)
    child.kill()
    child.wait()
    assert list((program.home / "state" / "lab").glob("t*/state"))
    bad = program.file("bad.yaml", MANIFEST.replace("debian-12", "no-such-image"))
    assert program("test", bad).code == 2
    short = program("test", path, "--timeout", "3s", timeout=200)
    assert short.code == 3 and "TIMED OUT" in short.out, short.err
    assert list((program.home / "state" / "lab").iterdir()) == []
    program.close()


@pytest.mark.full
def test_what_holds_cloud_init_up_is_named_while_it_waits(host: Host, debian: Path, tmp_path: Path):
    """Not at the time-out: as soon as nothing has come for a while, with the module and the command."""
    program = Real(tmp_path / "home", host)
    stock_recipe(program.home, debian)
    path = program.file("m.yaml", MANIFEST.replace("nosuchcommand --x", "sleep 12345"))
    words = [*host.enter, sys.executable, "-m", "hikube_local", "test", str(path), "--no-warm", "--timeout", "15m"]
    child = subprocess.Popen(words, env=program.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    told = []
    try:
        assert child.stderr is not None
        for line in child.stderr:
            told.append(line)
            if "sleep 12345" in line:
                break
        assert "cloud-init (final): scripts_user" in told[-1] and "`sleep 12345` for " in told[-1], "".join(told)
        assert any("cloud-init (config): " in line for line in told), "modules are told as they come"
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(60)
        program.close()
    assert list((program.home / "state" / "lab").iterdir()) == []


RESTARTS = (
    DEBIAN_DISK
    + DEBIAN_DISK.replace("name: sys", "name: lost-sys")
    + """\
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata:
  name: again
  annotations:
    hikube.local/checks: |
      - run: {command: "echo before; sleep 12; echo after", stdout: "before\\nafter\\n"}
      - run: {command: "wc -l < /var/local/boots", stdout: "2\\n"}
spec:
  instanceType: u1.small
  disks: [sys]
  cloudInit: |
    #cloud-config
    bootcmd: [[sh, -c, "echo boot >> /var/local/boots"]]
    power_state: {mode: reboot, message: First reboot completed}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {name: lost}
spec:
  instanceType: u1.small
  disks: [lost-sys]
  cloudInit: |
    Content-Type: multipart/mixed; boundary="B"
    MIME-Version: 1.0

    --B
    Content-Type: text/cloud-config; charset="us-ascii"

    #cloud-config
    runcmd:
      - echo one > /run/one
    --B
    Content-Type: text/cloud-config; charset="us-ascii"

    #cloud-config
    runcmd:
      - echo two > /run/two
    --B--
"""
)


@pytest.mark.full
def test_a_reboot_that_user_data_asks_for_and_a_runcmd_that_was_replaced(host: Host, debian: Path, tmp_path: Path):
    """C15: the checks are asked after the reboot, not into it. C5: what cloud-init never ran does not pass."""
    program = Real(tmp_path / "home", host)
    stock_recipe(program.home, debian)
    try:
        result = program("test", program.file("m.yaml", RESTARTS), "-o", "json", timeout=1200)
        rows = {r["machine"].rpartition("/")[2]: r for r in json.loads(result.out)}
        assert rows["again"]["result"] == "passed", (rows["again"], result.err)
        assert all(c["passed"] for c in rows["again"]["checks"]) and len(rows["again"]["checks"]) == 2
        assert rows["lost"]["result"] == "failed", rows["lost"]
        (problem,) = [p for p in rows["lost"]["problems"] if "runcmd" in p["message"]]
        assert problem["line"] == RESTARTS[: RESTARTS.index("echo one")].count("\n"), problem
    finally:
        program.close()
