"""Facts of two guests laid beside each other."""

from __future__ import annotations

import subprocess

from hikube_local.lab import facts
from hikube_local.lab.checklist import Check
from hikube_local.lab.checks import Outcome


def test_every_question_is_a_line_that_any_shell_answers():
    """Asked of this host, whatever it has: one line each, and what is missing is empty."""
    done = subprocess.run(["sh", "-c", facts.COMMAND], capture_output=True, text=True, timeout=60)
    found = facts.read(done.stdout)
    assert found.keys() == facts._ASKED.keys() and done.stderr == ""
    uname = subprocess.run(["uname", "-r"], capture_output=True, text=True).stdout.strip()
    assert found["kernel"] == uname and found["cpus"].isdigit() and found["memory"].endswith("MiB")


def test_what_differs_is_expected_with_its_code_or_it_is_not():
    here = {
        "os": "Debian 12.15",
        "cpu": "QEMU Virtual CPU",
        "memory": "1960 MiB",
        "kernel": "6.1.0-40",
        "check run id": "passed",
    }
    there = {
        "os": "Debian 12.11",
        "cpu": "AMD EPYC",
        "memory": "1910 MiB",
        "kernel": "6.1.0-40",
        "check run id": "failed: x",
    }
    rows = {r.what: r for r in facts.compare("web", here, there)}
    assert (rows["cpu"].verdict, rows["cpu"].code) == ("expected", "HK513")
    assert rows["memory"].verdict == rows["kernel"].verdict == "same"  # 50 MiB of two thousand are the firmware's
    assert rows["os"].verdict == rows["check run id"].verdict == "unexpected" and rows["os"].code == ""
    assert facts.compare("web", here, here | {"memory": "960 MiB"})[2].verdict == "expected"
    missing = facts.compare("web", here, {})
    assert {r.verdict for r in missing if r.what == "os"} == {"unexpected"}


def test_a_record_is_read_as_it_was_written_and_nothing_else_is_one():
    machines = {"web": {"os": "Debian 12"}}
    row = facts.record("prod", "1.0", "2026-11-30T00:00:00Z", machines)
    assert facts.from_record(row) == machines
    for other in (
        None,
        [],
        {},
        {"form": 2, "machines": {}},
        {"form": 1, "machines": []},
        {"form": 1, "machines": {"web": 3}},
    ):
        assert facts.from_record(other) is None


def test_what_a_guest_says_is_bounded_and_what_was_not_asked_is_left_out():
    text = "os\tx" + "y" * 5000 + "\nmade up\tz\nkernel\t 6.1, \nno tab\n"
    found = facts.read(text)
    assert len(found["os"]) == 2000 and found["kernel"] == "6.1" and found.keys() == {"os", "kernel"}


def test_checks_are_facts_too():
    check = Check("run", {"command": "id"})
    assert facts.outcomes([Outcome(check), Outcome(check, ("it said no",))]) == {"check run id": "failed: it said no"}
