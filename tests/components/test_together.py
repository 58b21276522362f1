"""Work of several threads, and Ctrl-C at any moment of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hikube_local.engine.together import Together
from hikube_local.events import Event
from tests.growth import patience

# SIGINT at the n-th line that the main thread runs while two pieces of work, of which one waits for the other, begin and end.
SWEEP = """
import signal, sys, threading
from hikube_local.engine.together import Together

def run(n):
    begun, told, passed, pressed = [], [], 0, False

    def trace(frame, event, arg):
        nonlocal passed, pressed
        if frame.f_code.co_name == "_note":
            return None
        passed += 1
        if passed == n:
            pressed = True
            signal.raise_signal(signal.SIGINT)
        return trace

    try:
        with Together(told.append, lambda: None, workers=2) as work:
            sys.settrace(trace)
            first = work.submit(begun.append, 1)
            second = work.submit(first.result)
            first.result()
        sys.settrace(None)
        ended = False
    except KeyboardInterrupt:
        sys.settrace(None)
        ended = True
    assert ended == pressed, (n, ended, pressed)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return pressed

signal.signal(signal.SIGINT, signal.default_int_handler)
n = 1
while run(n):
    print(n, flush=True)
    n += 1
"""


def test_an_interrupt_at_any_line_ends_the_work():
    child = subprocess.run([sys.executable, "-c", SWEEP], capture_output=True, text=True, timeout=patience(120))
    assert child.returncode == 0, child.stdout[-100:] + child.stderr
    assert len(child.stdout.split()) > 100


@pytest.fixture
def ctrl_c():
    """Python's own handler, as a shell's command has it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_those_at_work_give_up_what_has_not_begun_is_dropped(ctrl_c):
    told: list[Event] = []
    begun: list[int] = []
    stop, ended = threading.Event(), threading.Event()

    def work(n: int) -> None:
        begun.append(n)
        ctrl_c()
        stop.wait()
        time.sleep(0.2)
        ended.set()

    with pytest.raises(KeyboardInterrupt), Together(told.append, stop.set, workers=1) as together:
        for n in range(3):
            together.submit(work, n)
    assert begun == [0] and ended.is_set()
    assert [event.message for event in told] == [
        "interrupted: waiting for the current steps to finish; Ctrl-C again ends them at once"
    ]


def test_a_second_interrupt_does_not_wait(ctrl_c):
    told: list[Event] = []
    stuck = threading.Event()
    with pytest.raises(KeyboardInterrupt), Together(told.append, ctrl_c) as together:
        future = together.submit(stuck.wait)
        ctrl_c()
    assert len(told) == 1 and not future.done()
    stuck.set()
    future.result(patience(10))


def test_who_ignores_interrupts_goes_on_doing_so():
    """As a job that a shell script put into the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Together(lambda _: None, lambda: None) as together:
            os.kill(os.getpid(), signal.SIGINT)
            future = together.submit(lambda: 7)
        assert future.result() == 7 and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_waits_for_those_at_work():
    ended = []
    with pytest.raises(ZeroDivisionError), Together(lambda _: None, lambda: None) as together:
        together.submit(lambda: (time.sleep(0.2), ended.append(1)))
        1 / 0  # noqa: B018
    assert ended == [1]
