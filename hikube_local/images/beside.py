"""Work that goes on beside the work that feeds it: in order, in a thread of its own, with so much waiting and no more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")
AHEAD = 32  # items that may wait
FULL = 0.001  # seconds until it is looked whether there is room again


class _Abandoned(BaseException):
    """Nobody wants the work any more: it ends where it waits for the next item."""


class Beside(Generic[Item]):
    """Gives `work` what is put in, as an iterator. An error of the work is raised to whoever feeds it, at the next item or at the
    end; after an error of the feeder's the work is abandoned. Nobody holds a lock while Python may raise KeyboardInterrupt: the
    queue is one that takes none, so its bound is looked at."""

    def __init__(self, work: Callable[[Iterator[Item]], None], ahead: int = AHEAD) -> None:
        self._work, self._ahead = work, ahead
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Beside[Item]:
        self._thread.start()
        return self

    def __enter__(self) -> Beside[Item]:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end() if error is None else self.abandon()

    def put(self, item: Item) -> None:
        """Hand it in, when there is room."""
        while self._queue.qsize() >= self._ahead and self._error is None:
            time.sleep(FULL)
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def end(self) -> None:
        """Wait until all that was handed in is done."""
        self._join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Stop at the next item; how it ended is nobody's business."""
        self._error = self._error or _Abandoned()
        self._join()

    @property
    def idle(self) -> bool:
        """Whether all that was handed in has been taken up."""
        return self._queue.empty()

    def _join(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _items(self) -> Iterator[Item]:
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                raise self._error
            yield item
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work(self._items())
        except BaseException as e:
            self._error = e
