"""Several pieces of work side by side, which Ctrl-C ends in order."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Self, TypeVar

from hikube_local import errors
from hikube_local.events import Emit, Event, EventType
from hikube_local.language import tr

LOOK = 0.1  # seconds between two looks whether Ctrl-C was pressed
WAITING = "interrupted: waiting for the current steps to finish"
WAITING_OR = "interrupted: waiting for the current steps to finish; Ctrl-C again ends them at once"
AT_ONCE = "interrupted: ended at once; run the same command again to continue"
Made = TypeVar("Made")


class Together:
    """Threads for the work of one command; leaving the block waits until all of it has ended.

    Inside the block Ctrl-C is noted, never raised: Python would raise it wherever the main thread happens to be, also while that
    holds a lock which the workers need, and then nobody gets on. The first one sets `interrupted`, at which those at work give up
    when they next tell something (`heed`), and drops what has not begun; when all have ended, KeyboardInterrupt is raised.
    A second one ends the process as kill -9 does, where the process is one command (errors.own_process).
    Outside the main thread, and where somebody else handles or ignores SIGINT, nothing is changed.
    """

    def __init__(self, tell: Emit, workers: int = 8) -> None:
        self.interrupted = False
        self._tell = tell
        self._pool = ThreadPoolExecutor(max_workers=workers)
        self._futures: list[Future[Any]] = []
        self._ours = False

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._ours = True
            signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, *_: object) -> None:
        """Takes no lock: it runs between any two steps of the main thread."""
        if self.interrupted and errors.own_process:
            os.write(2, f"{tr(AT_ONCE)}\n".encode())
            os._exit(errors.ExitCode.INTERRUPTED)
        self.interrupted = True

    def submit(self, work: Callable[..., Made], *args: object) -> Future[Made]:
        future = self._pool.submit(work, *args)
        self._futures.append(future)
        return future

    def heed(self) -> None:
        """Called by those at work: after an interrupt it is where their work ends."""
        if self.interrupted:
            raise errors.Interrupted

    def heeding(self, emit: Emit) -> Emit:
        """`emit` for those at work, which heeds."""

        def heed(event: Event) -> None:
            self.heed()
            emit(event)

        return heed

    def __exit__(self, *_: object) -> None:
        told = False
        while not self._settled():
            if self.interrupted and not told:
                told = True
                for future in self._futures:
                    future.cancel()
                with contextlib.suppress(Exception):  # nobody may be there any more to be told
                    self._tell(Event(EventType.WARNING, WAITING_OR if errors.own_process else WAITING))
        self._pool.shutdown()
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.interrupted:
            raise KeyboardInterrupt

    def _settled(self) -> bool:
        """After a moment: whether all have ended."""
        try:
            self._futures = list(wait(self._futures, LOOK).not_done)
            return not self._futures
        except KeyboardInterrupt:  # of a handler that is not ours
            self.interrupted = True
            return False
