"""The events of our objects as Kubernetes' Events; each is told once and never changes."""

from __future__ import annotations

from typing import Any

from hikube_local.api.objects import Object
from hikube_local.engine.session import Session
from hikube_local.kube.kinds import EVENTS, GROUP, VERSION
from hikube_local.kube.sources import Form, named
from hikube_local.store.db import ChangeType
from hikube_local.text import timestamp


class Events:
    """Their revisions are the numbers of the events themselves."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def snapshot(self, namespace: str | None) -> tuple[int, list[Form]]:
        return self._after(0, namespace)

    def changes(self, after: int, namespace: str | None) -> tuple[int, list[tuple[ChangeType, Form]]]:
        now, found = self._after(after, namespace)
        return max(now, after), [(ChangeType.ADDED, f) for f in found]

    def one(self, namespace: str, name: str) -> Form | None:
        return named(self, namespace, name)

    def _after(self, number: int, namespace: str | None) -> tuple[int, list[Form]]:
        store = self.session.store
        known = {(o.namespace, o.ref): o for o in store.objects(namespace=namespace)}
        out, last = [], number
        for last, when, row in store.events(number, namespace):
            if obj := known.get((row.get("namespace", ""), row.get("object", ""))):
                out.append(Form(_event(last, when, row, obj)))
        return last, out


def _event(number: int, when: float, row: dict[str, Any], obj: Object) -> dict[str, Any]:
    involved = {
        "kind": obj.kind,
        "namespace": obj.namespace,
        "name": obj.name,
        "uid": obj.uid,
        "apiVersion": f"{GROUP}/{VERSION}",
    }
    return {
        "kind": EVENTS.kind,
        "apiVersion": EVENTS.api_version,
        "metadata": {
            "name": f"{obj.name}.{number:x}",
            "namespace": obj.namespace,
            "resourceVersion": str(number),
            "creationTimestamp": timestamp(when),
        },
        "involvedObject": involved,
        "reason": str(row.get("type", "")).capitalize(),
        "message": row.get("message", ""),
        "type": "Warning" if row.get("type") in ("failed", "warning") else "Normal",
        "firstTimestamp": timestamp(when),
        "lastTimestamp": timestamp(when),
        "count": 1,
        "source": {"component": "hikube-local"},
    }
