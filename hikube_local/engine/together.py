"""Several pieces of work side by side, which Ctrl-C ends in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Self, TypeVar

from hikube_local.events import Emit, Event, EventType

LOOK = 0.1  # seconds between two looks whether Ctrl-C was pressed
MESSAGE = "interrupted: waiting for the current steps to finish; Ctrl-C again ends them at once"
Made = TypeVar("Made")


class Together:
    """Threads for the work of one command; leaving the block waits until all of it has ended.

    Inside the block Ctrl-C is noted, never raised: Python would raise it wherever the main thread happens to be, also while that
    holds a lock which the workers need, and then nobody gets on. After the first one it is told, `interrupted` is called, and what
    has not begun is dropped; when the rest has given up, KeyboardInterrupt is raised. A second one does not wait for the rest.
    Outside the main thread, and where somebody else handles or ignores SIGINT, nothing is changed.
    """

    def __init__(self, tell: Emit, interrupted: Callable[[], None], workers: int = 8) -> None:
        self._tell, self._interrupted = tell, interrupted
        self._pool = ThreadPoolExecutor(max_workers=workers)
        self._futures: list[Future[Any]] = []
        self._pressed = 0
        self._ours = False

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._ours = True
            signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, *_: object) -> None:
        self._pressed += 1

    def submit(self, work: Callable[..., Made], *args: object) -> Future[Made]:
        future = self._pool.submit(work, *args)
        self._futures.append(future)
        return future

    def __exit__(self, *_: object) -> None:
        try:
            self._settle()
        finally:
            self._pool.shutdown(wait=self._pressed < 2, cancel_futures=True)
            if self._ours:
                signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._pressed:
            raise KeyboardInterrupt

    def _settle(self) -> None:
        told = False
        while self._pressed < 2 and wait(self._futures, LOOK if self._ours else None).not_done:
            if self._pressed and not told:
                told = True
                self._tell(Event(EventType.WARNING, MESSAGE))
                self._interrupted()
                for future in self._futures:
                    future.cancel()
