"""A session whose objects are carried by another machine: the same questions and the same answers, through its API.

What a command records here is sent there at once; the other side brings it about, and who waits asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import Any, TypeVar

from hikube_local import contexts
from hikube_local.api.objects import DISK, INSTANCE, Key, Object
from hikube_local.backends.remote import api as remote
from hikube_local.backends.remote.agent import OnBox
from hikube_local.backends.remote.api import Api
from hikube_local.backends.remote.backend import CREATE, UPDATE, Remote
from hikube_local.backends.remote.link import Link
from hikube_local.backends.remote.watches import Watches
from hikube_local.config import Config
from hikube_local.contexts import Context
from hikube_local.engine.session import Session
from hikube_local.engine.status import Statuses
from hikube_local.errors import HikubeError, UsageError
from hikube_local.events import Emit, ignore
from hikube_local.kubeclient.client import Client, Refused
from hikube_local.kubeclient.kubeconfig import Login, Target
from hikube_local.kubeclient.merge import three_way
from hikube_local.paths import Layout, make_runtime
from hikube_local.plan.steps import RunOptions, Step, Verb
from hikube_local.store.db import Basis, Store
from hikube_local.store.records import Intent
from hikube_local.text import timestamp

TRIES = 3  # of a write that met another one
Done = TypeVar("Done")


class Elsewhere(Session):
    """`layout`: of this context alone: keys, pinned host keys. `tell`: is called once before the first write."""

    def __init__(
        self,
        layout: Layout,
        config: Config,
        context: Context,
        words: tuple[str, ...],
        tell: Callable[[str], None],
        adopt: bool,
    ) -> None:
        """HK820 where a tenant's context leads elsewhere than when it was made, HK821 where a box is not reached."""
        super().__init__(layout, config)
        self.context, self.flags, self._tell = context, words, tell
        self._told = False
        own, folder = layout.make().state / "login", partial(make_runtime, layout)
        kept = layout.state / "consoles"
        self.remote: Remote
        if context.kind == "ssh":
            link = Link(context.host, make_runtime(layout))
            hello = link.reach()
            login, namespace = Login(token=hello.token), context.namespace or hello.namespace
            target = Target(context.name, f"ssh://{context.host}", namespace, login=login)
            self.api = Api(Client(target, own, link.local))
            self.remote = OnBox(link, self.api, words, folder, kept)
        else:
            self.api = Api(Client(contexts.target(context), own), context.namespace)
            self.remote = Remote(self.api, words, folder, kept)
        self.adopt = adopt or context.kind == "ssh"  # a box's machines are one's own, whoever made them

    def writes(self) -> None:
        """Said before anything is changed there, once."""
        if not self._told:
            self._told = True
            self._tell(f"context {self.context.name}: {self.context.where}")

    def may_be_changed(self, keys: Iterable[Key]) -> None:
        self.store.may_be_changed(keys)

    def reached(self, obj: Object, status: dict[str, Any]) -> dict[str, Any]:
        """The ways in as they are from here: of a box, where its ports stand on this machine's loopback."""
        if self.context.kind != "ssh" or not status.get("access"):
            return status
        from hikube_local.engine import local_ports

        here = local_ports.shown(self.layout)
        rows = []
        for row in status["access"]:
            address, port = here.get(f"{obj.namespace}/{obj.name}/{row['port']}", (row["address"], row["hostPort"]))
            rows.append({**row, "address": address, "hostPort": port})
        outside = [
            {**a, "address": rows[0]["address"]} if a["type"] == "ExternalIP" else a for a in status["addresses"]
        ]
        return {**status, "access": rows, "addresses": outside}

    # what Session has

    @cached_property
    def store(self) -> Any:  # the same questions as Store's
        return Objects(self)

    def bell(self) -> Any:
        return Watches(self.api)

    def backend(self, name: str) -> Any:  # whatever it is called there
        return self.remote

    def of(self, obj: Object) -> Any:
        return self.remote

    def every(self, capability: type[Any]) -> list[Any]:
        return [self.remote] if isinstance(self.remote, capability) else []

    @property
    def image_names(self) -> frozenset[str]:
        return frozenset(self.config.images)

    def offer(self, judges: bool = True) -> Any:
        """Of a tenant: its own lists and quotas have the word."""
        return self.api.offer(self.context.namespace, judges) if self.context.kind == "kube" else None

    def made(self, obj: Object) -> bool:
        """Whether an object there has the mark of what was made with this program."""
        raw = self.api.raw(obj.key)
        return raw is not None and remote.applied(raw) is not None

    def require_inside(self, keys: Iterable[Key]) -> None:
        """HK406 where one is meant for another namespace than the context's."""
        pinned = self.api.namespace
        if wrong := [key.ref for key in keys if pinned and key.namespace != pinned]:
            what = f"{', '.join(wrong)}: another namespace than the context's ({pinned})"
            raise UsageError("HK406", what, fix="leave metadata.namespace out, or make a context for that namespace")

    @property
    def statuses(self) -> Any:
        return Looks(self)

    def reconciler(self, emit: Emit, options: RunOptions) -> Any:
        from hikube_local.engine.following import Following

        return Following(self, emit, options)


class Objects:
    """What Store answers, asked of the API. What is only ours (logins, what was told) is kept here, below the context."""

    def __init__(self, session: Elsewhere) -> None:
        self.session, self.api = session, session.api
        self._own = Store(session.layout)
        self.sent: dict[Key, Step] = {}
        self.failed: dict[Key, HikubeError] = {}
        self._raws: dict[Key, dict[str, Any]] = {}

    # looks

    def get(self, key: Key) -> Object | None:
        raw = self.api.raw(key)
        return remote.parsed(raw) if raw else None

    def objects(self, kind: str | None = None, namespace: str | None = None) -> list[Object]:
        kinds = [kind] if kind else [DISK, INSTANCE]
        found = [remote.parsed(raw) for k in kinds for raw in self.api.raws(k, namespace)]
        return sorted(found, key=lambda o: (kinds.index(o.kind), o.namespace, o.name))

    def names(self, kind: str, namespace: str | None = None) -> list[str]:
        return sorted(remote.key_of(raw).name for raw in self.api.raws(kind, namespace))

    def events(
        self, after: int = 0, namespace: str | None = None, obj: str | None = None
    ) -> list[tuple[int, float, dict[str, Any]]]:
        """Kubernetes' own. Its revisions are ids: a server that has none to compare sends all again."""
        where = namespace or self.session.api.namespace
        path = f"/api/v1/namespaces/{where}/events" if where else "/api/v1/events"
        rows = []
        for raw in self.api.client.list(path)[1]:
            revision = str(raw["metadata"].get("resourceVersion") or "0")
            at = remote.seconds(
                raw.get("lastTimestamp") or raw.get("eventTime") or raw["metadata"].get("creationTimestamp")
            )
            about = remote.reference(raw)
            if (number := int(revision) if revision.isdecimal() else 0) > after and obj in (None, about):
                said = {"type": str(raw.get("reason") or raw.get("type") or ""), "object": about}
                row = {"time": timestamp(at or 0.0), "namespace": raw["metadata"].get("namespace"), **said}
                rows.append((number, at or 0.0, {**row, "message": str(raw.get("message") or "")}))
        return sorted(rows, key=lambda r: (r[1], r[0]))

    def status(self, key: Key) -> dict[str, Any]:
        obj = self.get(key)
        return self.session.remote.status(obj) if obj else {}

    def intent(self, key: Key) -> Intent:
        return Intent()

    def allocation(self, name: str) -> dict[str, Any]:
        return self._own.allocation(name)

    def note(self, name: str, **values: Any) -> dict[str, Any]:
        return self._own.note(name, **values)

    def keep(self, key: Key, **values: Any) -> None:
        """What is kept of a machine beside its manifest is kept there; that it was asked to do something is told at the end."""
        if asked := values.get("power"):
            self.sent[key] = Step(str(asked), key)

    # writes

    def put(self, wanted: Iterable[Object], basis: Basis | None = None) -> list[Object]:
        """Sent one by one, disks first; what is refused is kept for the result, and the others go on."""
        ordered = sorted(wanted, key=lambda o: o.kind != DISK)
        self.may_be_changed(o.key for o in ordered)
        out = []
        for obj in ordered:
            try:
                out.append(self._in_spite_of_others(obj.key, partial(self._put, obj)))
            except HikubeError as e:
                self.failed[obj.key] = e
                out.append(obj)
        self.api.forget()
        return out

    def may_be_changed(self, keys: Iterable[Key]) -> None:
        """All that is somebody else's is told before anything is changed."""
        asked = list(keys)
        self.session.require_inside(asked)
        self._raws = {key: raw for key in asked if (raw := self.api.raw(key))}
        self._not_strange()

    def _not_strange(self) -> None:
        strange = [key.ref for key, raw in self._raws.items() if remote.applied(raw) is None]
        if strange and not self.session.adopt:
            what = f"not made from here: {', '.join(strange)}"
            raise UsageError("HK824", what, "another person or program looks after it", "if it is yours: add --adopt")

    def _in_spite_of_others(self, key: Key, write: Callable[[], Done]) -> Done:
        """A write that is refused because the object was changed meanwhile (409) was not carried out: it is worked out anew from
        what is there now."""
        for left in reversed(range(TRIES)):
            try:
                return write()
            except Refused as e:
                if e.status != 409 or not left:
                    raise
                self.api.forget()
                self._raws = {k: raw for k, raw in self._raws.items() if k != key}
                if raw := self.api.raw(key):
                    self._raws[key] = raw
                self._not_strange()
        raise AssertionError

    def _put(self, obj: Object) -> Object:
        raw, body = self._raws.get(obj.key), remote.body(obj)
        if raw is None:
            self.session.writes()
            made = self.api.client.create(remote.path(obj.kind, obj.namespace), body)
            self.sent[obj.key] = Step(CREATE, obj.key)
            return remote.parsed({**made, "kind": obj.kind})
        last = remote.applied(raw) or remote.by_kubectl(raw)
        patch: dict[str, Any] = {}
        if changed := three_way(last, body["spec"], raw.get("spec") or {}):
            patch["spec"] = changed
        about = {
            name: part
            for name in ("labels", "annotations")
            if (part := three_way({}, body["metadata"].get(name, {}), raw["metadata"].get(name) or {}))
        }
        if about:
            patch["metadata"] = about
        if patch:
            self.session.writes()
            self.api.client.merge(remote.path(*obj.key), patch)
            # Cozystack lets the last writer win and says nothing of it: what is there now is what counts.
            now = self.api.client.get(remote.path(*obj.key))
            if three_way({}, body["spec"], now.get("spec") or {}):
                raise HikubeError(
                    "HK813",
                    f"{obj.ref} was changed by somebody else meanwhile",
                    fix="look at it with `get`, then run it again",
                )
            raw = {**now, "kind": obj.kind}
            if changed:
                self.sent[obj.key] = Step(UPDATE, obj.key)
        return remote.parsed(raw)

    def mark_deleted(self, keys: Iterable[Key]) -> None:
        """Machines first: a disk that is in use waits there for its machine."""
        doomed = sorted(set(keys), key=lambda k: k.kind != INSTANCE)
        self.may_be_changed(doomed)
        for key in doomed:
            if key not in self._raws:
                continue
            self.session.writes()
            try:
                self._in_spite_of_others(key, partial(self._delete, key))
            except HikubeError as e:
                self.failed[key] = e
                continue
            self.sent[key] = Step(Verb.DELETE, key)
        self.api.forget()

    def _delete(self, key: Key) -> None:
        if raw := self._raws.get(key):
            try:
                self.api.client.delete(remote.path(*key), str(raw["metadata"].get("uid") or ""))
            except Refused as e:
                if e.status != 404:
                    raise


class Looks(Statuses):
    """Statuses, from what the API says; nothing of them is kept here."""

    def __init__(self, session: Elsewhere) -> None:
        super().__init__(session.store, session.backend)
        self.session = session

    def _status(self, obj: Object) -> dict[str, Any]:
        return self.session.reached(obj, self.session.remote.status(obj))

    def refresh(self, obj: Object, emit: Emit = ignore) -> dict[str, Any]:
        if not self.session.api.watched:
            self.session.api.forget()
        return self.keep(obj)

    def keep(self, obj: Object) -> dict[str, Any]:
        return self._status(obj)
