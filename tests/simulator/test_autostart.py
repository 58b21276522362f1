"""`autostart`: which machines it starts, the unit that it writes, and what a restart of the host looks like."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from hikube_local.api.objects import Object, VMInstanceSpec
from hikube_local.backends.protocol import View
from hikube_local.engine.status import machine_word
from hikube_local.host import autostart
from hikube_local.paths import Layout
from hikube_local.plan.steps import MachineObserved, RunState
from tests.simulator.test_contract import SIMULATED


def test_it_starts_what_is_to_run_and_nothing_that_was_stopped(hikube):
    hikube.env["HIKUBE_LOCAL_BACKEND"] = "simulator"
    manifest = SIMULATED + "".join(
        f"---\napiVersion: apps.cozystack.io/v1alpha1\nkind: VMDisk\nmetadata: {{name: {name}-disk}}\nspec: {{storage: 1Gi}}\n"
        f"---\napiVersion: apps.cozystack.io/v1alpha1\nkind: VMInstance\nmetadata: {{name: {name}}}\n"
        f"spec: {{instanceType: u1.nano, instanceProfile: alpine, runStrategy: {strategy}, disks: [{name}-disk]}}\n"
        for name, strategy in (("stopped", "Always"), ("manual", "Manual"), ("halted", "Halted"))
    )
    path = hikube.file("m.yaml", manifest)
    assert hikube("up", path).code == 0
    hikube("stop", "stopped")
    said = hikube("autostart", "status")
    assert "not enabled" in said.out and "vminstance/web" in said.out
    assert not any(name in said.out for name in ("stopped", "manual", "halted"))
    assert hikube("autostart", "run").code == 0
    rows = {
        r["metadata"]["name"]: r["status"]["printableStatus"] for r in hikube("get", "vm", "-o", "json").json["items"]
    }
    assert (rows["web"], rows["stopped"], rows["halted"]) == ("Running", "Stopped", "Stopped")


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="this host has systemd")
def test_without_systemd_it_says_what_to_call(hikube):
    refused = hikube("autostart", "enable", "--yes")
    assert refused.code == 1 and "not run by systemd" in refused.err and "autostart run" in refused.err


@pytest.mark.parametrize("root", [True, False])
def test_the_unit_is_one_that_systemd_reads(tmp_path: Path, root: bool):
    layout = Layout(tmp_path / "s", tmp_path / "c", tmp_path / "config", tmp_path / "r", root)
    unit = autostart.unit(layout, home="/srv/50% of $it")
    assert unit.user is not root
    assert unit.systemctl("enable", "x") == ["systemctl", *([] if root else ["--user"]), "enable", "x"]
    rows = dict(r.split("=", 1) for r in unit.text.splitlines() if "=" in r)
    assert rows["WantedBy"] == ("multi-user.target" if root else "default.target")
    # systemd's own doubling of % and $ apart, its quoting is a shell's.
    words = [w.replace("%%", "%").replace("$$", "$") for w in shlex.split(rows["ExecStart"])]
    assert words[-5:] == ["hikube_local", "--context", "local", "autostart", "run"]
    assert subprocess.run([*words[:-2], "version"], capture_output=True, cwd="/").returncode == 0
    assert rows["Environment"] == '"HIKUBE_LOCAL_HOME=/srv/50%% of $it"'


def test_after_a_restart_of_the_host_a_machine_is_stopped_and_did_not_crash():
    obj = Object(kind="VMInstance", namespace="default", name="web", spec=VMInstanceSpec())
    off = MachineObserved(state=RunState.SHUTOFF, started=1.0)
    assert machine_word(obj, View(off, host_restarted=True), {}, "") == "Stopped"
    assert machine_word(obj, View(off), {}, "") == "CrashLoopBackOff"


def test_a_machine_that_qemu_stopped_is_not_paused_by_a_user():
    obj = Object(kind="VMInstance", namespace="default", name="web", spec=VMInstanceSpec())
    assert machine_word(obj, View(MachineObserved(state=RunState.FAILED)), {}, "") == "CrashLoopBackOff"
    assert machine_word(obj, View(MachineObserved(state=RunState.PAUSED)), {}, "") == "Paused"
