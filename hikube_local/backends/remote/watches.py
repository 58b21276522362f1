"""A bell for what changes over there: each list that was looked at is watched from that look on, and gone on with after a cut."""

from __future__ import annotations

import threading
import time

from hikube_local.backends.remote.api import FRESH, Api
from hikube_local.kubeclient.client import Refused
from hikube_local.log import SENT

EVERY = 1.0  # seconds between two looks of who waits, where nothing tells of a change
LONG = 30.0  # seconds for which a look is good while changes are told: some are not (a list that the role may not read)
FLOOR = 0.3  # seconds between two looks, however much changes
_NEVER = (400, 403, 404, 405)  # what a server says that has no such watch, or not for this person


class Watches:
    """In place of a store's bell: one for a command that waits. Where a watch cannot be had, time passes instead."""

    def __init__(self, api: Api) -> None:
        self._api = api
        api.watched = True
        api.good_for = LONG  # of each list the look whose revision is watched is the one that is shown
        self._rang = threading.Event()
        self._followed: set[str] = set()
        self._deaf: set[str] = set()  # lists of which nothing is heard at the moment
        self._looked = time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Whether to look again: something changed since the last call or before `seconds` have passed, or a look is due."""
        for where, revision in list(self._api.looked.items()):
            if where not in self._followed:
                self._followed.add(where)
                threading.Thread(target=self._follow, args=(where, revision), daemon=True).start()
        deaf = bool(self._deaf or self._api.unheard) or not self._followed
        self._api.good_for = FRESH if deaf else LONG
        rang = self._rang.wait(max(seconds, EVERY) if deaf else seconds)
        if not (rang or deaf or time.monotonic() - self._looked > LONG):
            return False
        time.sleep(max(0.0, self._looked + FLOOR - time.monotonic()))  # many changes are one look
        self._rang.clear()
        self._api.forget()
        self._looked = time.monotonic()
        return True

    def _follow(self, where: str, revision: str) -> None:
        while True:
            try:
                if not revision:  # what happened meanwhile is not told any more: who waits looks at all of it
                    revision = self._api.client.revision(where)
                    self._rang.set()
                for event in self._api.client.watch(where, revision):
                    self._deaf.discard(where)
                    revision = str(event["object"]["metadata"]["resourceVersion"])
                    if event["type"] != "BOOKMARK":
                        self._rang.set()
                self._deaf.discard(where)  # ended by the server, or cut
            except Refused as e:
                self._deaf.add(where)
                if e.status in _NEVER:
                    return
                if e.status == 410:
                    revision = ""
            except Exception as e:  # not reached, no API's answer, no room for a certificate: the next try may be
                SENT.debug("%s: %s", where, e)
                self._deaf.add(where)
            time.sleep(EVERY)
