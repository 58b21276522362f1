"""A command with nothing to do reads each text once and makes each description once."""

from __future__ import annotations

from collections import Counter

import pytest
import yaml

from hikube_local.backends.qemu.context import Context
from hikube_local.backends.qemu.machine import observe
from hikube_local.catalogue import cloudconfig
from hikube_local.host import accelerator
from hikube_local.plan.steps import MachineObserved, RunOptions
from hikube_local.render import domain, seed
from tests.components.test_merge import Disk
from tests.simulator.test_contract import SIMULATED

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5v0Zy0vkPUPLmEqQ2i1c0wKVS8xM6yBzQYk1vZ3c0d me"
MANIFEST = f"{SIMULATED}  sshKeys: [{KEY!r}]\n  cloudInit: |\n    #cloud-config\n    final_message: it is done\n"


@pytest.fixture
def afresh():
    """What an earlier test had this process read is forgotten: each command has a process of its own."""
    cloudconfig.parsed.cache_clear()
    seed.chart_text.cache_clear()


@pytest.mark.usefixtures("afresh")
def test_up_with_nothing_to_do_reads_each_document_and_each_user_data_once(hikube, monkeypatch):
    from hikube_local.cli.main import run

    monkeypatch.setenv("HIKUBE_LOCAL_HOME", str(hikube.home))
    monkeypatch.setenv("HIKUBE_LOCAL_BACKEND", "simulator")
    path = hikube.file("m.yaml", MANIFEST)
    assert run(["up", str(path)]) == 0
    cloudconfig.parsed.cache_clear()
    seed.chart_text.cache_clear()
    read: Counter[str] = Counter()
    for name in ("parse", "load"):
        real = getattr(yaml, name)

        def counted(content, *words, real=real, **more):
            read[content if isinstance(content, str) else bytes(content).decode()] += 1
            return real(content, *words, **more)

        monkeypatch.setattr(yaml, name, counted)
    assert run(["up", str(path)]) == 0
    ours = {text: n for text, n in read.items() if "it is done" in text}
    # The document, the user-data in the chart's own document, and the user-data.
    assert len(ours) == 3 and set(ours.values()) == {1}, ours


def test_what_a_machine_should_be_is_described_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HIKUBE_LOCAL_HOME", str(tmp_path))
    disk = Disk()
    obj = disk.store.put([disk.user("web")])[0]
    trees = []
    real = domain._tree
    monkeypatch.setattr(domain, "_tree", lambda machine: trees.append(machine) or real(machine))
    context = Context(disk.context.layout, disk.store, disk.context.settings)
    wanted = observe.desired(context, obj, RunOptions(), MachineObserved(definition="an earlier one"))
    assert wanted.definition and len(trees) == 1


def test_the_plan_of_a_new_machine_tries_no_accelerator(tmp_path, monkeypatch):
    """Nothing is compared yet: `plan` before the first `up` answers at once."""
    monkeypatch.setenv("HIKUBE_LOCAL_HOME", str(tmp_path))
    disk = Disk()
    obj = disk.store.put([disk.user("web")])[0]
    monkeypatch.setattr(accelerator, "probe", lambda: pytest.fail("a trial"))
    context = Context(disk.context.layout, disk.store, disk.context.settings)
    wanted = observe.desired(context, obj, RunOptions(), MachineObserved())
    assert wanted.definition and wanted.definition != MachineObserved().definition
