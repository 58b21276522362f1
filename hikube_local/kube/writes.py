"""The rules of a write: what must be there, what somebody else did meanwhile, and what a dry run shows."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from aiohttp import web

from hikube_local.api.objects import Key, Object
from hikube_local.kube.kinds import Resource
from hikube_local.kube.status import Refused

MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


class Modified(Refused):
    """Somebody else's write came before this one."""

    def __init__(self, resource: Resource, name: str) -> None:
        super().__init__(409, f'Operation cannot be fulfilled on {resource.full} "{name}": {MODIFIED}')


class Exists(Refused):
    """Somebody else made it first."""

    def __init__(self, resource: Resource, name: str) -> None:
        what = f'{resource.full} "{name}" already exists'
        super().__init__(409, what, "AlreadyExists", details=resource.details(name))


def preconditions(
    resource: Resource, key: Key, old: Object | None, create: bool | None, stated: object, seen: str
) -> None:
    details = resource.details(key.name)
    if create and old is not None:
        raise Exists(resource, key.name)
    if create is False and old is None:
        raise Refused(404, f'{resource.full} "{key.name}" not found', details=details)
    if old is not None and old.deletion:
        raise Refused(409, f'{resource.full} "{key.name}" is being deleted', details=details)
    have = str(old.resource_version) if old is not None else ""
    if old is not None and (stated not in (None, "", have) or seen not in ("", have)):
        raise Modified(resource, key.name)


def has_preconditions(body: Any) -> bool:
    return isinstance(body, dict) and isinstance(body.get("preconditions"), dict)


def deletable(body: Any, uid: str, revision: str) -> None:
    """The preconditions of a deletion's options."""
    wants = body.get("preconditions") if isinstance(body, dict) else None
    for name, value in (("uid", uid), ("resourceVersion", revision)):
        if isinstance(wants, dict) and wants.get(name) not in (None, "", value):
            raise Refused(409, f"the {name} in the precondition ({wants[name]}) does not match the object's ({value})")


def as_if(obj: Object, old: Object | None) -> Object:
    """What a dry run shows: as the store would have it."""
    if old is None:
        return replace(obj, uid="00000000-0000-0000-0000-000000000000", created=time.time())
    return replace(
        obj,
        uid=old.uid,
        created=old.created,
        generation=old.generation,
        resource_version=old.resource_version,
    )


async def again(once: Callable[[], Awaitable[web.StreamResponse]], stated: bool) -> web.StreamResponse:
    """A patch that somebody else's write came before is made anew on what they wrote, as API servers do, unless its
    client `stated` the revision that it is for."""
    for _ in range(4):
        try:
            return await once()
        except Modified:
            if stated:
                raise
    return await once()


def states_revision(patch: Any) -> bool:
    """Whether a patch names the revision that it is for: then a conflict is its client's to know."""
    if isinstance(patch, list):
        return any(isinstance(o, dict) and o.get("path") == "/metadata/resourceVersion" for o in patch)
    meta = patch.get("metadata") if isinstance(patch, dict) else None
    return isinstance(meta, dict) and bool(meta.get("resourceVersion"))
