"""The decisions, case by case."""

from __future__ import annotations

import dataclasses

import pytest

from hikube_local.api.objects import Object
from hikube_local.manifests.models import read_spec
from hikube_local.plan.planner import plan_disk, plan_machine
from hikube_local.plan.steps import DiskObserved, Forward, MachineDesired, MachineObserved, RunState, Verb
from hikube_local.render.growth import Capacity
from hikube_local.store.records import Intent

F = frozenset({Forward(22, "127.77.1.1", 22)})
WANT = MachineDesired("d1", "s1", F)
UP = MachineObserved(RunState.RUNNING, "d1", "d1", "s1", F, network=True, folder=True, generation=1)
OFF = dataclasses.replace(UP, state=RunState.SHUTOFF, live_definition="", forwards=frozenset())


def machine(deletion=None, **spec) -> Object:
    return Object(kind="VMInstance", namespace="n", name="w", spec=read_spec("VMInstance", spec), deletion=deletion)


def verbs(obj=None, seen=UP, want=WANT, restart=False, **asked) -> list[Verb]:
    return [s.verb for s in plan_machine(obj or machine(), want, seen, Intent(**asked), restart).steps]


BIG = Capacity(2, 8 << 30)
GROWN = dataclasses.replace(WANT, definition="d2", cold="d2", shape="s", capacity=BIG)
SMALL = dataclasses.replace(
    UP, definition="d2", live_shape="s", capacity=Capacity(1, 4 << 30), most=Capacity(4, 16 << 30), stale=True
)


@pytest.mark.parametrize(
    ("seen", "want", "live"),
    [
        (SMALL, GROWN, True),
        # What was given before a kill is marked, and not given again.
        (dataclasses.replace(SMALL, capacity=BIG), GROWN, True),
        (SMALL, dataclasses.replace(GROWN, capacity=Capacity(8, 8 << 30)), False),
        (SMALL, dataclasses.replace(GROWN, capacity=Capacity(2, 32 << 30)), False),
        (SMALL, dataclasses.replace(GROWN, capacity=Capacity(2, 2 << 30)), False),
        (SMALL, dataclasses.replace(GROWN, shape="another disk"), False),
        (dataclasses.replace(SMALL, live_shape=""), dataclasses.replace(GROWN, shape=""), False),
    ],
    ids=["larger", "half done", "too many vCPUs", "too much memory", "less memory", "more than its size", "older"],
)
def test_a_machine_grows_while_it_runs_up_to_four_times(seen, want, live: bool):
    planned = plan_machine(machine(), want, seen, Intent())
    assert [s.verb for s in planned.steps] == ([Verb.RESIZE] if live else [])
    assert planned.restart_required is not live
    # What needs no restart is not restarted.
    again = [s.verb for s in plan_machine(machine(), want, seen, Intent(), True).steps]
    assert again == ([Verb.RESIZE] if live else [Verb.STOP, Verb.START])


def test_what_is_as_it_should_be_needs_nothing():
    assert verbs() == []


def test_a_new_machine_goes_through_every_step_in_order():
    assert verbs(seen=MachineObserved()) == [
        Verb.RECORD,
        Verb.SEED,
        Verb.NETWORK,
        Verb.DEFINE,
        Verb.START,
        Verb.FORWARDS,
    ]


@pytest.mark.parametrize(
    ("spec", "wish", "expected"),
    [
        ({}, {}, [Verb.START, Verb.FORWARDS]),
        ({"running": False}, {}, []),
        ({"running": False, "runStrategy": "Always"}, {}, [Verb.START, Verb.FORWARDS]),
        ({"runStrategy": "Halted"}, {}, []),
        ({"runStrategy": "Halted"}, {"power": "start"}, [Verb.START, Verb.FORWARDS]),
        ({"running": False}, {"power": "start"}, [Verb.START, Verb.FORWARDS]),
        ({"runStrategy": "Manual"}, {}, []),
        ({"runStrategy": "Manual"}, {"power": "start"}, [Verb.START, Verb.FORWARDS]),
        ({"runStrategy": "Once"}, {"started_before": True}, []),
        ({"runStrategy": "Once"}, {}, [Verb.START, Verb.FORWARDS]),
        ({"runStrategy": "RerunOnFailure"}, {"started_before": True}, []),
        ({}, {"power": "stop"}, []),
    ],
)
def test_who_starts_a_machine_that_is_off(spec, wish, expected):
    assert verbs(machine(**spec), OFF, **wish) == expected


def test_a_crash_is_rerun_on_failure():
    assert (
        verbs(
            machine(runStrategy="RerunOnFailure"), dataclasses.replace(OFF, state=RunState.CRASHED), started_before=True
        )[0]
        is Verb.START
    )


def test_a_stop_that_was_asked_for_wins():
    assert verbs(power="stop") == [Verb.STOP]
    assert verbs(machine(running=False)) == [Verb.STOP]


def test_a_changed_definition_waits_for_a_restart():
    want = dataclasses.replace(WANT, definition="d2")
    planned = plan_machine(machine(), want, UP, Intent())
    assert [s.verb for s in planned.steps] == [Verb.DEFINE]
    assert planned.restart_required
    assert verbs(want=want, restart=True) == [Verb.STOP, Verb.DEFINE, Verb.START]
    later = dataclasses.replace(UP, definition="d2")
    assert plan_machine(machine(), want, later, Intent()).restart_required


def test_ports_and_seed_change_on_a_running_machine():
    assert verbs(want=dataclasses.replace(WANT, forwards=frozenset())) == [Verb.FORWARDS]
    assert verbs(want=dataclasses.replace(WANT, seed="s2")) == [Verb.SEED]


def test_a_dead_network_comes_back():
    assert verbs(seen=dataclasses.replace(UP, network=False, forwards=frozenset())) == [Verb.NETWORK, Verb.FORWARDS]


def test_deletion_stops_first():
    assert verbs(machine(deletion=1.0)) == [Verb.STOP, Verb.DELETE]
    assert verbs(machine(deletion=1.0), MachineObserved()) == [Verb.DELETE]


def disk(deletion=None, **spec) -> Object:
    return Object(kind="VMDisk", namespace="n", name="d", spec=read_spec("VMDisk", spec), deletion=deletion)


def test_disks_are_imported_once_and_only_grow():
    here = DiskObserved(True, 5 << 30, generation=1)
    assert [s.verb for s in plan_disk(disk(), DiskObserved()).steps] == [Verb.IMPORT]
    assert plan_disk(disk(), here).steps == ()
    assert [s.verb for s in plan_disk(disk(storage="6Gi"), here).steps] == [Verb.GROW]
    assert plan_disk(disk(storage="4Gi"), here).steps == ()
    assert [s.verb for s in plan_disk(disk(deletion=1.0), here).steps] == [Verb.DELETE]
    assert plan_disk(disk(source={"http": {"url": "http://x/y"}}), DiskObserved()).unknown


def test_a_new_identity_waits_for_the_next_start():
    """libvirt takes no second UUID for a name that runs: the definition is written when the machine is off."""
    want = dataclasses.replace(WANT, definition="d2")
    seen = dataclasses.replace(UP, renamed=True)
    planned = plan_machine(machine(), want, seen, Intent())
    assert [s.verb for s in planned.steps] == [] and planned.restart_required
    assert verbs(want=want, seen=seen, restart=True)[0] is Verb.STOP
    assert Verb.DEFINE in verbs(want=want, seen=dataclasses.replace(OFF, renamed=False))


def test_disks_that_come_and_go_are_plugged_and_others_wait():
    want = dataclasses.replace(WANT, definition="d2", cold="d1", hot=frozenset({"data"}))
    steps = plan_machine(machine(), want, UP, Intent()).steps
    assert [s.verb for s in steps] == [Verb.DEFINE, Verb.PLUG] and steps[-1].why == "+data"
    gone = dataclasses.replace(UP, hot=frozenset({"data"}))
    assert [s.why for s in plan_machine(machine(), WANT, gone, Intent()).steps] == ["-data"]
    stale = plan_machine(machine(), dataclasses.replace(want, cold="d3"), UP, Intent())
    assert Verb.PLUG not in [s.verb for s in stale.steps] and stale.restart_required


def test_a_command_ends_with_the_worst_of_its_parts():
    """One order for every verb: wrong input, then a failure, then a time-out."""
    from hikube_local.errors import ExitCode, worst

    done, failed, usage, late = ExitCode.DONE, ExitCode.FAILED, ExitCode.USAGE, ExitCode.TIMEOUT
    assert worst([]) is done and worst([done, late]) is late
    assert worst([late, failed, done]) is failed and worst([late, failed, usage]) is usage


def test_a_machine_that_qemu_stopped_is_started_again():
    broken = dataclasses.replace(UP, state=RunState.FAILED)
    assert verbs(seen=broken) == [Verb.STOP, Verb.START]
