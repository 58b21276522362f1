"""While the endpoint is there: what was asked for is carried out, machines that crashed come back, status moves."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from hikube_local.api.objects import DISK, Key, Object
from hikube_local.engine.remove import users
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError
from hikube_local.events import ignore
from hikube_local.plan.running import expected_up
from hikube_local.plan.steps import RunOptions

LOG = logging.getLogger("hikube_local.kube")
EVERY = 2.0  # seconds between two looks at machines, and at disks that are on their way
SETTLED = 60.0  # seconds between two looks at a disk that is there
WORKERS = 4
AGAIN = 15.0  # seconds before an object whose work failed is tried again, doubled each time
AT_MOST = 300.0
CRASHED = 10.0  # seconds before a crashed machine is started again, doubled each time
PEACE = 600.0  # seconds without a crash, after which that begins anew


class Keeper:
    """Workers that reconcile what they are given, and one that looks. Every write goes through the engine, under its locks.

    `failure`: why nothing is made of an object that was accepted; nothing where all is well.
    """

    def __init__(self, session: Session, options: RunOptions, failure: Callable[[Object], str]) -> None:
        self.session, self.options, self._failure = session, options, failure
        self._queue: deque[Key] = deque()
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: set[Key] = set()  # those of whom a retry is due
        self._restarts: dict[Key, tuple[int, float]] = {}  # how often one came back, and when
        self._settled: dict[Key, tuple[int, float]] = {}  # disks that are there: their revision, and until when
        self._wake = threading.Condition()
        self._end = threading.Event()
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(WORKERS)]
        self.threads.append(threading.Thread(target=self._look, daemon=True))

    def start(self) -> None:
        for obj in self.session.store.objects():
            if obj.deletion:  # a command that was killed in the middle of it
                self.add(obj.key)
        for thread in self.threads:
            thread.start()

    @property
    def ended(self) -> bool:
        return self._end.is_set()

    def end(self) -> None:
        """No new work is begun; what is at hand dies with the process, and the next command heals it."""
        with self._wake:
            self._end.set()
            self._wake.notify_all()

    def add(self, key: Key) -> None:
        """Carry out what this object says now; once more when it is being worked on."""
        with self._wake:
            if key in self._busy:
                self._again.add(key)
            elif key not in self._queue:
                self._queue.append(key)
                self._wake.notify()

    def _take(self) -> Key | None:
        with self._wake:
            while not self._queue and not self._end.is_set():
                self._wake.wait()
            if self._end.is_set():
                return None
            key = self._queue.popleft()
            self._busy.add(key)
            return key

    def _work(self) -> None:
        while (key := self._take()) is not None:
            failed = True
            try:
                if self._in_use(key) or self._fails(key):
                    failed = False  # looked at again until its machine is gone, as a claim that a pod has
                    continue
                done = self.session.reconciler(ignore, self.options).reconcile([key], wait=False)
                failed = any(d.error for d in done.values())
            except HikubeError as e:
                LOG.debug("%s: %s", key.ref, e)
            except Exception:
                LOG.exception("%s could not be reconciled", key.ref)
            finally:
                self._finished(key, failed)

    def _in_use(self, key: Key) -> bool:
        """Whether a disk that is to go is attached to a machine."""
        obj = self.session.store.get(key) if key.kind == DISK else None
        return obj is not None and obj.deletion is not None and bool(users(self.session, [key]))

    def _fails(self, key: Key) -> bool:
        obj = self.session.store.get(key)
        return obj is not None and bool(self._failure(obj))

    def _finished(self, key: Key, failed: bool) -> None:
        with self._wake:
            self._busy.discard(key)
            once_more = key in self._again
            self._again.discard(key)
        if once_more:
            self.add(key)
        if not failed:
            self._failures.pop(key, None)
            return
        count = self._failures[key] = self._failures.get(key, 0) + 1
        if key in self._timers:
            return
        self._timers.add(key)
        timer = threading.Timer(min(AT_MOST, AGAIN * 2 ** min(count - 1, 6)), self._retry, (key,))
        timer.daemon = True
        timer.start()

    def _retry(self, key: Key) -> None:
        self._timers.discard(key)
        if not self._end.is_set() and self.session.store.get(key) is not None:
            self.add(key)

    def _look(self) -> None:
        while not self._end.is_set():
            try:
                self._each()
            except Exception:
                LOG.exception("the machines could not be checked")
            self._end.wait(EVERY)  # not the workers' condition: a looker would take the wake-up of a worker

    def _each(self) -> None:
        for obj in self.session.store.objects():
            if self._end.is_set():
                return
            # A disk whose import is at work here moves on, too.
            if obj.key not in self._busy or (obj.kind == DISK and not obj.deletion):
                try:
                    self._one(obj)
                except HikubeError as e:  # as of a libvirt that does not answer: the others are looked at all the same
                    LOG.debug("%s: %s", obj.ref, e)

    def _one(self, obj: Object) -> None:
        if obj.deletion:
            if not self._in_use(obj.key) and obj.key not in self._failures:
                self.add(obj.key)
        elif self._failure(obj):
            return
        elif obj.kind == DISK:
            self._disk(obj)
        else:
            word = self.session.statuses.refresh(obj).get("printableStatus")
            broken = word == "CrashLoopBackOff" and obj.key not in self._failures
            if broken and expected_up(obj, self.session.store.intent(obj.key).power) and self._may_restart(obj.key):
                self.add(obj.key)

    def _disk(self, obj: Object) -> None:
        revision, until = self._settled.get(obj.key, (0, 0.0))
        if revision == obj.resource_version and time.monotonic() < until:
            return
        if self.session.statuses.keep(obj).get("phase") == "Succeeded":
            self._settled[obj.key] = (obj.resource_version, time.monotonic() + SETTLED)

    def _may_restart(self, key: Key) -> bool:
        """As a CrashLoopBackOff: each time after twice as long, and at once again after ten minutes of peace."""
        now = time.monotonic()
        count, last = self._restarts.get(key, (0, 0.0))
        if count and now - last < min(AT_MOST, CRASHED * 2 ** min(count - 1, 6)):
            return False
        self._restarts[key] = (1 if now - last > PEACE else count + 1, now)
        return True
