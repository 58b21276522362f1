"""Watches: one reader of the store's log wakes all of them, and each object is read once a revision for all."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from hikube_local.api.objects import DISK, Object
from hikube_local.engine.session import Session
from hikube_local.kube import faithful, objects

Found = TypeVar("Found")
SHARED = 64  # looks at the log that are remembered
KEPT = 8000  # forms of objects at a revision that are remembered


class Hub:
    """Tells the event loop when anybody wrote to the store, in whatever process."""

    def __init__(self, session: Session, faithful: bool = False) -> None:
        self.session, self.faithful = session, faithful
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rang = asyncio.Event()
        self.rung = 0  # how often
        self._forms: OrderedDict[tuple[Any, ...], tuple[int, dict[str, Any]]] = OrderedDict()
        self._lock = threading.Lock()
        self._read: OrderedDict[tuple[int, Hashable], Any] = OrderedDict()
        self._reading = threading.Lock()
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
        """The object as clients see it."""
        return self._kept("form", obj, lambda: self._shown(obj))

    def _shown(self, obj: Object) -> dict[str, Any]:
        return objects.shown(self.seen(obj), self.session.store.intent(obj.key).managed, self.failure(obj))

    def failure(self, obj: Object) -> str:
        """Why the chart of an object that was accepted fails, where that is told as Hikube tells it."""
        if not self.faithful:
            return ""
        return str(self._kept("failure", obj, lambda: {"": faithful.failure(obj, self.session.known())})[""])

    def seen(self, obj: Object) -> dict[str, Any]:
        """The object with its status. Not the status of this very moment, but that of its revision."""
        return self._kept("seen", obj, lambda: self._seen(obj))

    def shared(self, key: Hashable, read: Callable[[], Found]) -> Found:
        """What `read` gives, read once for all who ask for the same between two rings of the bell."""
        at = (self.rung, key)
        with self._reading:
            if at not in self._read:
                while len(self._read) >= SHARED:
                    self._read.popitem(last=False)
                self._read[at] = read()
            found: Found = self._read[at]
            return found

    def _seen(self, obj: Object) -> dict[str, Any]:
        if self.failure(obj):  # nothing was made of it
            return self.session.statuses.bare(obj) | {"status": {}}
        return self.session.statuses.resource(obj)

    def optical(self, obj: Object) -> Mapping[str, bool]:
        """Which disks of a machine are CD-ROMs."""
        if obj.kind == DISK:
            return {}
        disks = {key.name: self.session.store.get(key) for key in obj.disk_keys}
        return {name: disk is not None and disk.disk.optical for name, disk in disks.items()}

    def _kept(self, what: str, obj: Object, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was made of an object at its newest revision."""
        key = (what, obj.key)
        with self._lock:
            revision, found = self._forms.get(key, (0, None))
            if found is not None and revision == obj.resource_version:
                self._forms.move_to_end(key)
                return found
        made = make()
        if what == "seen" and made["status"].get("printableStatus") == "Unknown":
            return made  # what could not be looked at now is looked at again
        with self._lock:
            self._forms[key] = (obj.resource_version, made)
            while len(self._forms) > KEPT:
                self._forms.popitem(last=False)
        return made
