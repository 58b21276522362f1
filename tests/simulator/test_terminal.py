"""What a person sees: the program on a terminal of several sizes, its screen read through a pty."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from hikube_local.cli.live import Board
from hikube_local.events import Event, EventType
from tests import terminal
from tests.conftest import PAIR, Program
from tests.growth import patience

SIM = ("--backend", "simulator")


def on(hikube: Program, *words: object, **kw) -> terminal.Shown:
    argv = [sys.executable, "-m", "hikube_local", *map(str, words)]
    env = {k: v for k, v in hikube.env.items() if k not in ("COLUMNS", "NO_COLOR")}
    return terminal.run(argv, {**env, **kw.pop("env", {})}, hikube.folder, **kw)


def several(count: int) -> str:
    """`count` pairs of a disk and a machine."""
    texts = []
    for n in range(count):
        name = f"machine{n:02d}"
        texts.append(
            PAIR.replace("name: sys", f"name: {name}-sys").replace("- sys", f"- {name}-sys").replace("web", name)
        )
    return "\n---\n".join(texts)


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_the_final_state_and_the_way_in_stay(hikube: Program, columns: int, count: int):
    path = hikube.file("all.yaml", several(count))
    shown = on(hikube, "up", path, *SIM, "--pace", "1", columns=columns)
    assert shown.code == 0
    flat = re.sub(r"\s+", "", shown.text)
    # Every object's end, every machine's way in, and the count, in whatever rows the terminal has.
    assert f"[+]{2 * count}/{2 * count}" in flat
    for n in range(count):
        assert f"login:hikube-localsshmachine{n:02d}" in flat
        assert f"machine{n:02d}:Running" in flat
    assert f"{2 * count}of{2 * count}objectschanged" in flat
    marks = [line for line in shown.lines if line.startswith(" ✔ ")]
    assert len(marks) == 2 * count
    # The clocks stand in one column, and no live line is wider than the terminal.
    assert len({len(line) for line in marks}) == 1 and len(marks[0]) <= columns


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_live_lines_never_fill_more_than_the_screen(hikube: Program, columns: int):
    path = hikube.file("all.yaml", several(20))
    shown = on(hikube, "up", path, *SIM, "--pace", "3", "--no-differences", columns=columns, rows=24)
    live = [frame for frame in shown.frames if any("/40" in line for line in frame)]
    heads = [[line for line in frame if line.startswith("[+] ")] for frame in live]
    assert all(len(found) == 1 for found in heads), "the list is drawn over itself, never a second time"
    assert re.search(r"… and \d+ more", shown.raw.decode("utf-8", "replace")), "what does not fit is counted"
    # Nothing of the list was pushed into the scrollback before the end.
    assert shown.text.count("[+] ") == 1


def test_the_seconds_go_on_between_two_events(hikube: Program, pair):
    shown = on(hikube, "up", pair, *SIM, "--pace", "8", "--no-differences")
    told = {m[1] for frame in shown.frames for line in frame if (m := re.search(r"/web .*?(\d+)s$", line))}
    assert len(told) >= 4


def test_a_window_that_becomes_narrower_leaves_no_rubble(hikube: Program):
    path = hikube.file("all.yaml", several(3))
    done = []

    def shrink(fd: int, raw: bytes) -> None:
        if not done and b"Booting" not in raw and raw.count(b"[+]") > 3:
            done.append(terminal.resize(fd, 60, 24))

    shown = on(hikube, "up", path, *SIM, "--pace", "2", columns=120, act=shrink)
    assert done and shown.code == 0
    assert shown.raw.count(b"objects changed") == 1


def test_a_failure_says_what_failed_last_and_promises_no_login(hikube: Program):
    bad = PAIR.replace(
        "name: web\n", 'name: web\n  annotations: {hikube.local/simulate: "stage=kernel,outcome=panic"}\n', 1
    )
    shown = on(hikube, "up", hikube.file("p.yaml", bad), *SIM)
    assert shown.code == 1
    assert shown.lines[-1].startswith("failed: vminstance/web")
    assert "log in" not in shown.text and "✘ vminstance/web" in shown.text
    row = hikube("get", "vm").out.splitlines()[1].split()
    assert row[:4] == ["web", "Failed:", "kernel", "False"]


def test_marks_are_plain_where_the_locale_has_no_others(hikube: Program, pair):
    shown = on(hikube, "up", pair, *SIM, env={"LANG": "C", "PYTHONIOENCODING": "ascii"})
    assert shown.code == 0 and " + vminstance/web" in shown.text and "?" not in shown.text


def test_no_color_writes_no_colours(hikube: Program, pair):
    shown = on(hikube, "up", pair, *SIM, env={"NO_COLOR": "1"})
    assert not re.search(rb"\x1b\[[0-9;]*m", shown.raw) and "✔ vminstance/web" in shown.text


def test_tables_fit_into_eighty_columns(hikube: Program):
    hikube(
        "up", hikube.file("q.yaml", PAIR.replace("[22, 80]", "[22, 80, 443, 8080]").replace("web", "quickstart")), *SIM
    )
    shown = on(hikube, "get", "vm")
    assert len(shown.lines) == 2 and max(map(len, shown.lines)) <= 80
    row = shown.lines[1].split()
    assert (row[:4], row[5]) == (["quickstart", "Running", "True", "u1.medium"], "22,80,443,8080")
    # Off a terminal nothing depends on a width.
    assert (
        hikube("get", "vm", env={"COLUMNS": "20"})
        .out.splitlines()[0]
        .startswith("NAME         STATUS    READY   TYPE ")
    )


def test_differences_are_told_once_and_can_be_muted(hikube: Program, pair):
    first = hikube("up", pair, *SIM).err
    assert "differs from Hikube [HK506]" in first
    again = hikube("up", pair).err
    assert "HK506" not in again and re.search(r"3 differences, 2 notes from Hikube: hikube-local validate", again)
    assert "HK506" in hikube("validate", pair).out
    assert "differ" not in hikube("up", pair, "--no-differences").err
    assert hikube("up", pair, "-q").err == "nothing changed\n"
    (hikube.home / "config.yaml").write_text("options: {no-differences: true}\n")
    assert "differ" not in hikube("plan", pair).err
    # A warning is never muted, and one that many machines have alike stands once.
    bare = re.sub("(?s)  cloudInit.*", "", PAIR.split("---")[1])
    texts = [bare.replace("web", f"m{n}").replace("- sys", f"- sys{n}") for n in range(3)]
    twenty = hikube.file("three.yaml", "---".join(texts))
    told = hikube("validate", twenty, "-q").out
    assert told.count("HK325") == 1 and "the same for VMInstance/m1, VMInstance/m2" in told


@pytest.mark.parametrize("words", [("get", "vm", "-w"), ("events", "-f")])
def test_ctrl_c_ends_what_streams_without_a_word(hikube: Program, pair, words):
    hikube("up", pair, *SIM)
    sent = []

    def interrupt(fd: int, raw: bytes) -> None:
        if not sent and b"\n" in raw:
            sent.append(os.write(fd, b"\x03"))

    shown = on(hikube, *words, act=interrupt)
    assert shown.code == 130 and "interrupted" not in shown.text


def test_ctrl_c_ends_a_wait_without_a_word(hikube: Program, pair):
    hikube("up", pair, *SIM)
    argv = [sys.executable, "-X", "importtime", "-m", "hikube_local", "wait", "vm/web", "--for=delete", "--timeout=60s"]
    process = subprocess.Popen(argv, env=hikube.env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "hikube_local.engine.status" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=patience(30))[1]
    assert process.returncode == 130 and "interrupted" not in rest and "Traceback" not in rest


def test_ctrl_c_in_up_names_the_command_that_goes_on(hikube: Program, pair):
    sent = []

    def interrupt(fd: int, raw: bytes) -> None:
        if not sent and b"[+]" in raw:
            sent.append(os.write(fd, b"\x03"))

    shown = on(hikube, "up", pair, *SIM, "--pace", "30", act=interrupt)
    assert shown.code == 130 and "hikube-local up" in shown.lines[-1] and "Traceback" not in shown.text


def test_what_is_left_on_the_screen_is_how_each_object_ended():
    """An image that is built for a disk, events without a namespace, and a checkpoint after the machine is ready."""
    out = io.StringIO()
    board = Board(out, False, threading.RLock())
    for type, object, namespace, message in (
        (EventType.STEP, "vmdisk/sys", "", "https://example.org/image"),
        (EventType.STEP, "image/debian-12", "", "4/4 compressing"),
        (EventType.DONE, "vmdisk/sys", "team", "imported"),
        (EventType.PROGRESS, "vmdisk/sys", "", "late"),
        (EventType.DONE, "vmdisk/sys", "team", "imported"),
        (EventType.READY, "vminstance/web", "team", "ready after 9 s"),
        (EventType.STEP, "vminstance/web", "team", "checkpoint configured"),
    ):
        board.show(Event(type, message, object, namespace))
    out.seek(0)
    out.truncate()
    board.end()
    left = out.getvalue()
    assert "[+] 2/2" in left and "imported" in left and "ready after 9 s" in left
    assert "image/debian-12" not in left and "checkpoint" not in left and "/vmdisk" not in left.replace(" vmdisk", "")
