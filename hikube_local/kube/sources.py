"""Where the objects of each kind come from: all of them at a revision, and what became of them since."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from hikube_local.api.objects import Key, Object
from hikube_local.engine.session import Session
from hikube_local.kube.hub import Hub
from hikube_local.kube.kinds import Resource
from hikube_local.kube.projections import Projection
from hikube_local.records import dataclass
from hikube_local.store.db import ChangeType

Value = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """An object as clients see it; `there`: whether it exists (a pod of a stopped machine does not).

    `told_by_revision`: each revision of it is a change that is told.
    """

    value: Value
    there: bool = True
    told_by_revision: bool = True

    @property
    def id(self) -> tuple[str, str]:
        meta = self.value["metadata"]
        return meta.get("namespace", ""), meta["name"]

    @property
    def revision(self) -> str:
        return str(self.value["metadata"].get("resourceVersion", ""))

    @functools.cached_property
    def text(self) -> str:
        """As JSON: made once for all who watch."""
        return json.dumps(self.value, ensure_ascii=False, separators=(",", ":"))

    @property
    def mark(self) -> str:
        """The same for two forms between which nothing is to be told."""
        if self.told_by_revision:
            return self.revision
        meta = {k: v for k, v in self.value["metadata"].items() if k != "resourceVersion"}
        return hashlib.sha1(json.dumps({**self.value, "metadata": meta}, sort_keys=True).encode()).hexdigest()


class Source(Protocol):
    """One kind's objects. A namespace of None means all of them."""

    def snapshot(self, namespace: str | None) -> tuple[int, list[Form]]:
        """(revision, what there is at it)."""
        ...

    def changes(self, after: int, namespace: str | None) -> tuple[int, list[tuple[ChangeType, Form]]]:
        """(revision, what became of those that changed after a revision); Compacted where that is not kept."""
        ...

    def one(self, namespace: str, name: str) -> Form | None: ...


def named(source: Source, namespace: str, name: str) -> Form | None:
    """One of a source that finds by looking through all; an empty namespace is that of a kind that has none."""
    return next((f for f in source.snapshot(namespace or None)[1] if f.id[1] == name), None)


class Own:
    """VMInstances or VMDisks: each revision of theirs is told."""

    def __init__(self, hub: Hub, resource: Resource) -> None:
        self.hub, self.resource = hub, resource

    def _made_of(self, obj: Object) -> bool:
        """Whether anything of this kind is made of an object."""
        return True

    def _form(self, obj: Object) -> Form:
        return Form(self.hub.form(obj))

    def snapshot(self, namespace: str | None) -> tuple[int, list[Form]]:
        revision, found = self.hub.session.store.snapshot(self.resource.source, namespace)
        return revision, [self._form(o) for o in found if self._made_of(o)]

    def changes(self, after: int, namespace: str | None) -> tuple[int, list[tuple[ChangeType, Form]]]:
        def read() -> tuple[int, list[tuple[ChangeType, Form]]]:
            now, found = self.hub.session.store.changes(after, self.resource.source, namespace)
            return now, [(c.type, self._form(c.object)) for c in found if self._made_of(c.object)]

        # Watches that are equally far are told the same: it is read once for all of them.
        return self.hub.shared((self.resource, after, namespace), read)

    def one(self, namespace: str, name: str) -> Form | None:
        obj = self.hub.session.store.get(Key(self.resource.source, namespace, name))
        return self._form(obj) if obj is not None else None


class Projected(Own):
    """What is made of VMInstances or VMDisks."""

    def __init__(self, hub: Hub, resource: Resource, projection: Projection) -> None:
        super().__init__(hub, resource)
        self._projection = projection

    def _made_of(self, obj: Object) -> bool:
        return not self.hub.failure(obj)

    def _form(self, obj: Object) -> Form:
        value, there = self._projection(obj, self.hub.seen(obj), self.hub.optical(obj))
        return Form(value, there, told_by_revision=False)

    def snapshot(self, namespace: str | None) -> tuple[int, list[Form]]:
        revision, forms = super().snapshot(namespace)
        return revision, [f for f in forms if f.there]

    def one(self, namespace: str, name: str) -> Form | None:
        return named(self, namespace, name)


class Fixed:
    """What is made anew at each look and tells of no change while it is watched."""

    def __init__(self, session: Session, make: Callable[[], Iterable[Value]]) -> None:
        self.session, self._make = session, make

    def _made(self, namespace: str | None) -> Iterable[Value]:
        return self._make()

    def snapshot(self, namespace: str | None) -> tuple[int, list[Form]]:
        made = (Form(v) for v in self._made(namespace))
        return self.session.store.revision(), [f for f in made if namespace in (None, f.id[0])]

    def changes(self, after: int, namespace: str | None) -> tuple[int, list[tuple[ChangeType, Form]]]:
        return max(after, self.session.store.revision()), []

    def one(self, namespace: str, name: str) -> Form | None:
        return named(self, namespace, name)


class OfNamespace(Fixed):
    """What is made for whichever namespace is asked about."""

    def __init__(self, session: Session, make: Callable[[str], Iterable[Value]]) -> None:
        super().__init__(session, list)
        self._make_for = make

    def _made(self, namespace: str | None) -> Iterable[Value]:
        return self._make_for(namespace or "")
