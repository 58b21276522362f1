"""Who of the endpoint's clients owns which field of a stored object: read, worked out, and in the form of managedFields."""

from __future__ import annotations

import time
from typing import Any

from hikube_local.api.objects import API_VERSION, Object
from hikube_local.engine.session import Session
from hikube_local.kube import objects, ownership
from hikube_local.kube.ownership import Conflict, Owner, Owners
from hikube_local.kube.status import Cause, Refused
from hikube_local.text import timestamp

LONGEST = 128  # characters of a manager's name
# What nobody of the clients wrote: Kubernetes' name for it.
EARLIER = Owner("before-first-apply", "Update")


def owners(session: Session, old: Object | None, sent: Any = None) -> Owners:
    """Who owns what of the object. `sent`: managedFields of its writer, in place of those that are kept."""
    if old is None:
        return {}
    found_rows = sent if sent is not None else session.store.intent(old.key).managed
    there = objects.plain(old)
    if found_rows is None:
        return {EARLIER: own} if (own := frozenset(ownership.fields(there))) else {}
    found, _ = ownership.decode(found_rows)
    return {o: left for o, own in found.items() if (left := frozenset(p for p in own if ownership.get(there, p)[0]))}


def after_update(session: Session, old: Object | None, new: Object, manager: str, sent: Any) -> list[dict[str, Any]]:
    """managedFields after a create, an update or a patch."""
    who = Owner(manager[:LONGEST], "Update")
    before = objects.plain(old) if old else None
    return encoded(session, old, ownership.update(before, objects.plain(new), owners(session, old, sent), who), who)


def encoded(session: Session, old: Object | None, now: Owners, who: Owner) -> list[dict[str, Any]]:
    """managedFields of one of our own kinds."""
    return rows(now, session.store.intent(old.key).managed if old else None, who, API_VERSION)


def rows(now: Owners, kept: Any, who: Owner, version: str) -> list[dict[str, Any]]:
    """managedFields, with the time of each owner's last change; `kept`: those before this write."""
    before, times = ownership.decode(kept)
    moment = timestamp(time.time())
    if before.get(who) != now.get(who):
        times[who] = moment
    return ownership.encode(now, {o: times.get(o) or moment for o in now}, version)


def unowned(live: dict[str, Any] | None, applied: dict[str, Any], who: Owner) -> list[str]:
    """The fields that an apply would change where no managedFields are kept, so that all of them are `EARLIER`'s."""
    everything = frozenset(ownership.fields(live)) if live else frozenset()
    return [c.field for c in ownership.conflicts(live or {}, applied, {EARLIER: everything}, who)]


def refused(found: list[Conflict], version: str) -> Refused:
    """As Kubernetes tells of fields that others own."""
    by: dict[Owner, list[str]] = {}
    for c in found:
        by.setdefault(c.owner, []).append(c.field)
    words = [f'conflict with "{o.manager}" using {version}: {", ".join(names)}' for o, names in by.items()]
    causes = tuple(
        Cause(f'conflict with "{c.owner.manager}" using {version}', c.field, "FieldManagerConflict") for c in found
    )
    number = f"{len(found)} conflict" + ("s" if len(found) > 1 else "")
    return Refused(409, f"Apply failed with {number}: {'; '.join(words)}", causes=causes)
