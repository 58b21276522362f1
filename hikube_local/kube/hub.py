"""Watches: one reader of the store's log wakes all of them, and each object is read once a revision for all."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from typing import Any

from hikube_local.api.objects import Object
from hikube_local.engine.session import Session
from hikube_local.kube import objects

KEPT = 4000  # objects whose form at a revision is remembered


class Hub:
    """Tells the event loop when anybody wrote to the store, in whatever process."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rang = asyncio.Event()
        self.rung = 0  # how often
        self._forms: OrderedDict[tuple[Any, int], dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()
        self.ended = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        bell = self.session.bell()
        while not self.ended:
            if bell.wait(0.5):
                self.ring()

    def ring(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        rang, self._rang = self._rang, asyncio.Event()
        self.rung += 1
        rang.set()

    def end(self) -> None:
        self.ended = True
        self._wake()

    async def wait(self, seconds: float, since: int) -> None:
        """Until the store changes, or so long; at once where it has since the bell had rung so often."""
        if self.rung != since:
            return
        rang = self._rang
        try:
            await asyncio.wait_for(rang.wait(), seconds)
        except TimeoutError:
            return

    def form(self, obj: Object) -> dict[str, Any]:
        """The object as clients see it. Not the status of this very moment, but that of its revision."""
        key = (obj.key, obj.resource_version)
        with self._lock:
            if (found := self._forms.get(key)) is not None:
                self._forms.move_to_end(key)
                return found
        made = objects.shown(self.session.statuses.resource(obj), self.session.store.intent(obj.key).managed)
        with self._lock:
            self._forms[key] = made
            while len(self._forms) > KEPT:
                self._forms.popitem(last=False)
        return made
