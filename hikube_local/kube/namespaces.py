"""Namespaces: those that have objects of ours, those that clients made, and the one that is always there."""

from __future__ import annotations

import uuid
from typing import Any

from hikube_local.engine.session import Session
from hikube_local.kube.documents import Documents
from hikube_local.kube.kinds import NAMESPACES
from hikube_local.kube.sources import Form, named
from hikube_local.store.db import ChangeType
from hikube_local.text import timestamp


def used(session: Session) -> list[str]:
    """Those that are there without anybody having made them."""
    return sorted({"default", *(o.namespace for o in session.store.objects())})


class Namespaces:
    """The source. A watch is told of those that clients make and remove."""

    def __init__(self, session: Session, documents: Documents) -> None:
        self.session, self.documents = session, documents

    def snapshot(self, namespace: str | None) -> tuple[int, list[Form]]:
        revision, made = self.documents.snapshot(NAMESPACES.kind, None)
        there = {v["metadata"]["name"]: v for v in made}
        made_at = self.session.layout.state.stat().st_ctime
        values = [there.get(name) or _value(name, made_at) for name in sorted({*there, *used(self.session)})]
        return revision, [Form(v) for v in values]

    def changes(self, after: int, namespace: str | None) -> tuple[int, list[tuple[ChangeType, Form]]]:
        now, found = self.documents.changes(NAMESPACES.kind, after, None)
        return now, [(type, Form(v)) for type, v in found]

    def one(self, namespace: str, name: str) -> Form | None:
        return named(self, namespace, name)


def _value(name: str, made: float) -> dict[str, Any]:
    metadata = {
        "name": name,
        "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.{NAMESPACES.full}")),
        "resourceVersion": "1",
        "creationTimestamp": timestamp(made),
        "labels": {"kubernetes.io/metadata.name": name},
    }
    status = {"phase": "Active"}
    return {"kind": NAMESPACES.kind, "apiVersion": NAMESPACES.api_version, "metadata": metadata, "status": status}
