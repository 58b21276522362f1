"""The one place that starts programs: what they write, when they end, what outlives them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hikube_local import log
from hikube_local.errors import HikubeError
from hikube_local.run import left_behind, run
from tests.conftest import ROOT, Program


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


def debug_lines(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("debug ")]


def test_debug_tells_each_program_with_its_end_and_time_and_no_secret():
    """Silent without it; with it words, exit code and seconds, and what is secret in a URL is masked."""
    script = (
        "import sys, time\nfrom hikube_local import log\nfrom hikube_local.run import run\n"
        "if sys.argv[1:]: log.to_stderr()\n"
        "run(['sh', '-c', 'exit 3'], check=False)\n"
        "log.ended(['curl', 'https://me:secret@example.org/x?token=secret', 'two\\nlines'], None, time.monotonic())\n"
        "log.started(['ssh', 'web'])\n"
    )

    def err(*words: str) -> str:
        return subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=ROOT).stderr

    assert err() == ""
    told = debug_lines(err("--debug"))
    assert len(told) == 3 and "secret" not in "".join(told), told
    assert re.search(r"programs: \S*/sh -c 'exit 3' \(exit 3, \d+\.\d\d s\)$", told[0]), told
    assert "(took too long, 0.00 s)" in told[1] and told[2].endswith("programs: ssh web (goes on)")


def test_debug_tells_each_step_and_its_reason(hikube: Program, pair: Path):
    told = "\n".join(debug_lines(hikube("up", "--backend", "simulator", pair, "--debug").err))
    for step in ("vmdisk/sys in default: import: from image debian-12", "vminstance/web in default: start: "):
        assert f"steps: {step}" in told, told
    env = {"HIKUBE_LOCAL_DEBUG": "true"}
    assert "vminstance/web in default: stop" in hikube("stop", "web", env=env).err
    assert debug_lines(hikube("get", "vm", "--", "--debug", env={"HIKUBE_LOCAL_DEBUG": "0"}).err) == []


def test_every_change_that_we_make_in_libvirt_is_told():
    """Each method of a domain or a connection that is called somewhere is one that only looks, or one that is told."""
    libvirt = pytest.importorskip("libvirt")
    looks = {
        *(
            "name",
            "isActive",
            "isAlive",
            "XMLDesc",
            "state",
            "UUIDString",
            "maxMemory",
            "info",
            "lookupByName",
            "close",
        ),
        *(
            "listDomainsID",
            "getCapabilities",
            "saveImageGetXMLDesc",
            "jobInfo",
            "blockJobInfo",
            "blockStats",
            "blockInfo",
            "interfaceStats",
            "getAllDomainStats",
        ),
        *("memoryStats", "getCPUStats", "newStream", "screenshot", "agentSetResponseTimeout", "authorizedSSHKeysGet"),
    }
    told = {name for names in log.CHANGES.values() for name in names}
    called: set[str] = set()
    for path in (ROOT / "hikube_local").rglob("*.py"):
        called |= set(re.findall(r"\b(?:dom|old|connection)\.([a-zA-Z]+)\(", path.read_text()))
    of_libvirt = set(dir(libvirt.virDomain)) | set(dir(libvirt.virConnect))
    assert {n for n in called & of_libvirt if not n.startswith("_")} - looks - told == set()
    assert told <= of_libvirt


def test_timings_name_what_the_seconds_went_to(hikube, pair):
    """Programs, sleeps and the rest; on standard error, wherever the option stands, and only where it is asked for."""
    done = hikube("up", "--backend", "simulator", pair, "--timings")
    lines = done.err[done.err.index("timings: ") :].splitlines()
    whole = float(lines[0].split()[1])
    assert 0 < float(lines[1].split()[0]) < whole and "until the command began" in lines[1]
    assert "own work" in lines[-1] or "x sleep" in str(lines)
    assert "timings" not in done.out
    assert "timings: " in hikube("--timings", "get").err and "timings: " not in hikube("get").err
    assert "x program" in hikube("doctor", "--timings").err
    assert "timings: " in hikube("get", "vm", "nothing", "--timings").err  # also where it failed


def test_a_server_that_says_its_name_and_nothing_more_keeps_nobody_waiting():
    """As a guest that is switched off in the middle of a log-in: ssh's ConnectTimeout does not count any more."""
    held = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(listener.accept()[0])
                    held[-1].sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        threading.Thread(target=serve, daemon=True).start()
        words = ["ssh", "-F", "none", "-f", "-N", "-p", str(listener.getsockname()[1])]
        for option in ("ConnectTimeout=1", "BatchMode=yes", "UserKnownHostsFile=/dev/null"):
            words += ["-o", option]
        code, said = left_behind([*words, "x@127.0.0.1"], patience=3.0)
        assert (code, said) == (255, "it did not answer in 3 s") and held
