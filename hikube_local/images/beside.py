"""Work that goes on beside the work that feeds it: in order, in a thread of its own, with so much waiting and no more."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")
AHEAD = 16  # items that may wait


class Beside(Generic[Item]):
    """Hands each item to `work`. An error of the work is raised to whoever feeds it, at the next item or at the end."""

    def __init__(self, work: Callable[[Item], None], ahead: int = AHEAD) -> None:
        self._work = work
        self._queue: queue.Queue[Item | None] = queue.Queue(ahead)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Beside[Item]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Wait for what was handed in; after an error of the feeder's that is the one that is told."""
        while self._thread.is_alive():
            try:
                self._queue.put(None, timeout=0.2)
                break
            except queue.Full:
                continue
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def put(self, item: Item) -> None:
        """Hand it in, when there is room."""
        while True:
            if self._error is not None:
                raise self._error
            try:
                self._queue.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    @property
    def idle(self) -> bool:
        """Whether all that was handed in has been taken up."""
        return self._queue.empty()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._work(item)
            except BaseException as e:
                self._error = e
                return
