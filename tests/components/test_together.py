"""Work of several threads, and Ctrl-C at any moment of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hikube_local import errors
from hikube_local.engine.together import WAITING, Together
from hikube_local.events import Event
from tests.growth import patience

# SIGINT at the n-th call, line or return of the main thread in what it calls while it has work done beside it.
SWEEP = """
import signal, sys
{made}

def run(n):
    passed, pressed = 0, False

    def trace(frame, event, arg):
        nonlocal passed, pressed
        if frame.f_code.co_name == "_note" or frame.f_code.co_filename.endswith(("weakref.py", "_weakrefset.py")):
            return None  # what is raised out of a weak reference's callback Python drops
        passed += 1
        if passed == n:
            pressed = True
            signal.raise_signal(signal.SIGINT)
        return trace

    try:
        work(lambda: sys.settrace(trace))
        ended = False
    except KeyboardInterrupt:
        ended = True
    finally:
        sys.settrace(None)
    assert ended == pressed, (n, ended, pressed)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return pressed

signal.signal(signal.SIGINT, signal.default_int_handler)
n = 1
while run(n):
    print(n, flush=True)
    n += 1
"""
# Two pieces of work, of which one waits for the other.
TOGETHER = """
from hikube_local.engine.together import Together

def work(watched):
    with Together(lambda event: None, workers=2) as together:
        watched()
        first = together.submit(len, "x")
        second = together.submit(first.result)
        first.result()
"""
BESIDE = """
from hikube_local.images.beside import Beside

def work(watched):
    with Beside(list, ahead=1) as beside:
        watched()
        for number in range(3):
            beside.put(number)
"""


@pytest.mark.parametrize("made", [TOGETHER, BESIDE], ids=["together", "beside"])
def test_an_interrupt_at_any_line_ends_the_work(made: str):
    """Python raises KeyboardInterrupt anywhere: inside a lock that the threads of the work need it stopped them for good."""
    words = [sys.executable, "-c", SWEEP.format(made=made)]
    child = subprocess.run(words, capture_output=True, text=True, timeout=patience(120))
    assert child.returncode == 0, child.stdout[-100:] + child.stderr
    assert len(child.stdout.split()) > 30


@pytest.fixture
def ctrl_c(monkeypatch):
    """Python's own handler, in a process that others have work in, too."""
    monkeypatch.setattr(errors, "own_process", False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_those_at_work_give_up_what_has_not_begun_is_dropped(ctrl_c):
    told: list[Event] = []
    begun: list[int] = []
    ended = threading.Event()

    def work(n: int) -> None:
        begun.append(n)
        ctrl_c()
        try:
            while True:
                say(Event("step"))
                time.sleep(0.01)
        finally:
            time.sleep(0.2)
            ended.set()

    with pytest.raises(KeyboardInterrupt), Together(told.append, workers=1) as together:
        say = together.heeding(lambda event: None)
        for n in range(3):
            together.submit(work, n)
    assert begun == [0] and ended.is_set() and [event.message for event in told] == [WAITING]


def test_it_ends_also_where_nobody_can_be_told(ctrl_c):
    """As `up 2>&1 | tee log`: Ctrl-C takes tee away, too."""

    def tell(event: Event) -> None:
        raise BrokenPipeError

    with pytest.raises(KeyboardInterrupt), Together(tell) as together:
        ctrl_c()
        together.submit(_until_interrupted, together)


def _until_interrupted(together: Together) -> None:
    say = together.heeding(lambda event: None)
    while True:
        say(Event("pulse"))
        time.sleep(0.01)


def test_a_handler_of_somebody_elses_is_served():
    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt), Together(lambda event: None) as together:
            together.submit(_until_interrupted, together)
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


STUCK = """
import os, signal, threading
from hikube_local import errors
from hikube_local.engine.together import Together
errors.own_process = True

def tell(event):
    print(event.message, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait()

with Together(tell) as together:
    together.submit(threading.Event().wait)
    os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_second_interrupt_ends_the_command_whatever_it_waits_for():
    child = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=patience(30))
    assert child.returncode == 130 and "Ctrl-C again ends them at once" in child.stdout
    assert "ended at once; run the same command again" in child.stderr


def test_who_ignores_interrupts_goes_on_doing_so():
    """As a job that a shell script put into the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Together(lambda _: None) as together:
            os.kill(os.getpid(), signal.SIGINT)
            future = together.submit(lambda: 7)
        assert future.result() == 7 and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_waits_for_those_at_work():
    ended = []
    with pytest.raises(ZeroDivisionError), Together(lambda _: None) as together:
        together.submit(lambda: (time.sleep(0.2), ended.append(1)))
        1 / 0  # noqa: B018
    assert ended == [1]
