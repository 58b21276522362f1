"""The one place that starts programs: what they write, when they end, what outlives them."""

from __future__ import annotations

import os
import signal

import pytest

from hikube_local.errors import HikubeError
from hikube_local.run import run


def test_all_that_was_written_comes_back_however_much_it_is():
    done = run(["sh", "-c", "head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2; echo end"])
    assert (len(done.stdout), len(done.stderr), done.stdout[-4:]) == (3000004, 2000000, b"end\n")


def test_a_program_may_open_its_own_output_again():
    assert run(["sh", "-c", "echo 1 >&2; echo 2 >/dev/stderr; echo 3 >&2"]).stderr == b"1\n2\n3\n"


def test_what_outlives_a_program_keeps_nobody_waiting():
    """A daemon that holds the pipes open."""
    done = run(["sh", "-c", "sleep 600 & echo $!"], timeout=20)
    os.kill(int(done.stdout), signal.SIGKILL)  # it lived
    assert done.returncode == 0


def test_what_outlives_a_program_and_writes_on_keeps_nobody_waiting():
    """It ends at its first word to nobody."""
    assert run(["sh", "-c", "echo said; (while :; do echo more; done) &"], timeout=20).stdout.startswith(b"said\n")


def test_one_that_does_not_end_is_ended():
    with pytest.raises(HikubeError, match="did not end within 0 s") as e:
        run(["sh", "-c", "echo $$ > /dev/null; exec sleep 60"], timeout=0.2)
    assert e.value.code == "HK607"


def test_where_the_kernel_tells_of_no_end_the_old_way_serves(monkeypatch):
    def refused(pid: int) -> int:
        raise PermissionError("not here")

    monkeypatch.setattr(os, "pidfd_open", refused)
    assert run(["sh", "-c", "echo out; echo err >&2"]).stdout == b"out\n"
    with pytest.raises(HikubeError, match="did not end"):
        run(["sleep", "60"], timeout=0.2)
