"""Our two kinds, and what the platform makes of them, as an API server hands them out."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import time
from dataclasses import field
from typing import Any

from pydantic_core import ValidationError

from hikube_local.api import names
from hikube_local.api.objects import API_VERSION, INSTANCE, KIND_WORDS, PLURAL, SPECS, Key, Object, RunStrategy
from hikube_local.api.shapes import plain_spec
from hikube_local.backends.remote import NAME
from hikube_local.kubeclient.client import Client, Refused
from hikube_local.manifests import offer
from hikube_local.manifests.models import read_spec
from hikube_local.manifests.offer import Offer
from hikube_local.records import dataclass

BASE = f"/apis/{API_VERSION}"
SUBRESOURCES = "/apis/subresources.kubevirt.io/v1"
APPLIED = "hikube.local/applied"  # the spec as we sent it last: the mark of what was made from here, too
# DNS-1123's subdomains: pods, services and events have dots in their names.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
FRESH = 0.5  # seconds for which one look serves several questions
_CHARTS = {"externalPorts": [22], "runStrategy": str(RunStrategy.ALWAYS)}  # filled in by the charts


def path(kind: str, namespace: str | None, name: str = "") -> str:
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"{BASE}{where}/{PLURAL[kind]}" + (f"/{name}" if name else "")


def key_of(raw: dict[str, Any]) -> Key:
    about = raw.get("metadata") or {}
    return Key(str(raw.get("kind")), str(about.get("namespace")), str(about.get("name")))


def applied(raw: dict[str, Any]) -> dict[str, Any] | None:
    """What was sent last from here, or by `kubectl apply`; None where the object is somebody else's."""
    notes = raw["metadata"].get("annotations") or {}
    with contextlib.suppress(ValueError):
        value = json.loads(notes.get(APPLIED) or "null")
        if isinstance(value, dict):
            return value
    return None


def by_kubectl(raw: dict[str, Any]) -> dict[str, Any]:
    """The spec of the last `kubectl apply`."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        spec = json.loads((raw["metadata"].get("annotations") or {})[names.LAST_APPLIED])["spec"]
        if isinstance(spec, dict):
            return spec
    return {}


def body(obj: Object) -> dict[str, Any]:
    """The object as it is sent."""
    spec = plain_spec(obj.spec)
    notes = {**obj.annotations, APPLIED: json.dumps(spec, separators=(",", ":"), sort_keys=True)}
    about: dict[str, Any] = {"name": obj.name, "namespace": obj.namespace, "annotations": notes}
    if obj.labels:
        about["labels"] = dict(obj.labels)
    return {"apiVersion": API_VERSION, "kind": obj.kind, "metadata": about, "spec": spec}


def seconds(stamp: Any) -> float | None:
    """Unix seconds of a time as Kubernetes writes it."""
    try:
        return datetime.datetime.fromisoformat(str(stamp)).timestamp()
    except ValueError:
        return None


def parsed(raw: dict[str, Any]) -> Object:
    """The object as ours. Without what the server filled in, and without fields that this version does not know."""
    key, about = key_of(raw), raw["metadata"]
    kept = {k: v for k, v in (about.get("annotations") or {}).items() if k not in (APPLIED, names.LAST_APPLIED)}
    revision = str(about.get("resourceVersion") or "0")
    return Object(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        labels=dict(about.get("labels") or {}),
        annotations=kept,
        spec=_spec(key.kind, _written(raw)),
        backend=NAME,
        uid=str(about.get("uid") or ""),
        generation=int(about.get("generation") or 1),
        resource_version=int(revision) if revision.isdecimal() else 0,
        created=seconds(about.get("creationTimestamp")) or 0.0,
        deletion=seconds(about.get("deletionTimestamp")) if about.get("deletionTimestamp") else None,
    )


def _written(raw: dict[str, Any]) -> dict[str, Any]:
    """The spec without the defaults that nobody wrote."""
    spec = dict(raw.get("spec") or {})
    said = {**by_kubectl(raw), **(applied(raw) or {})}
    filled = {**SPECS[raw["kind"]].defaults(), **(_CHARTS if raw["kind"] == INSTANCE else {})}
    return {k: v for k, v in spec.items() if k in said or k not in filled or v != filled[k]}


def _spec(kind: str, spec: dict[str, Any]) -> Any:
    """Read as a manifest's; what of it cannot be read is left out, until the rest can."""
    left = dict(spec)
    for _ in range(len(spec) + 1):
        try:
            return read_spec(kind, left)
        except ValidationError as e:
            for error in e.errors():
                left.pop(str(error["loc"][0]) if error["loc"] else "", None)
    return read_spec(kind, {})


@dataclass
class Beside:
    """What the platform has made in one namespace, by the names of the machines and disks. What may not be read is empty."""

    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)


class Api:
    """What there is, from one look for several questions. `namespace`: the only one that may be asked about, where it is so."""

    def __init__(self, client: Client, namespace: str = "") -> None:
        self.client, self.namespace = client, namespace
        self.good_for = FRESH  # seconds
        self.watched = False  # whether somebody is told of changes: of lists, so objects are looked at in theirs
        self.unheard: set[str] = set()  # lists that the person's role may not read
        self.looked: dict[str, str] = {}  # the revision of each list, as it was seen last
        self._seen: dict[tuple[str, str | None], tuple[float, list[dict[str, Any]]]] = {}
        self._beside: dict[str, tuple[float, Beside]] = {}

    def forget(self) -> None:
        """The next question is a look of its own."""
        self._seen.clear()
        self._beside.clear()

    def raws(self, kind: str, namespace: str | None) -> list[dict[str, Any]]:
        where = namespace or self.namespace or None
        at, kept = self._seen.get((kind, where), (0.0, []))
        if time.monotonic() - at > self.good_for:
            found = self._list(path(kind, where))
            kept = [{**raw, "kind": kind} for raw in found if _sound(raw)]  # items of a list may name no kind
            self._seen[kind, where] = (time.monotonic(), kept)
        return kept

    def raw(self, key: Key) -> dict[str, Any] | None:
        """Of one object, asked for by its name."""
        for where in (key.namespace, None):
            at, kept = self._seen.get((key.kind, where), (0.0, []))
            if time.monotonic() - at <= self.good_for:
                return next((raw for raw in kept if key_of(raw) == key), None)
        if self.watched and not self.unheard:
            try:
                return next((raw for raw in self.raws(key.kind, key.namespace) if key_of(raw) == key), None)
            except Refused as e:
                if e.status != 403:
                    raise
                self.unheard.add(path(key.kind, key.namespace))
        found = self.client.find(path(*key))
        return {**found, "kind": key.kind} if found and _sound(found) else None

    def beside(self, namespace: str) -> Beside:
        at, kept = self._beside.get(namespace, (0.0, Beside()))
        if time.monotonic() - at > self.good_for:
            core, own = f"/api/v1/namespaces/{namespace}", f"namespaces/{namespace}"
            kept = Beside(
                self._named(f"/apis/kubevirt.io/v1/{own}/virtualmachines"),
                self._named(f"{core}/services"),
                {_of_pod(pod): pod for pod in self._may(f"{core}/pods") if _of_pod(pod)},
                self._named(f"/apis/cdi.kubevirt.io/v1beta1/{own}/datavolumes"),
            )
            self._beside[namespace] = (time.monotonic(), kept)
        return kept

    def offer(self, namespace: str, judges: bool) -> Offer:
        """What the tenant has and what its quotas leave, as far as it is told; without `judges` what it has alone."""
        options = self._asked(f"/apis/core.cozystack.io/v1alpha1/namespaces/{namespace}/options")
        quotas = self._asked(f"/api/v1/namespaces/{namespace}/resourcequotas") if judges else ()
        silent = {"what the tenant offers": options, "the tenant's quotas": quotas}
        return Offer(
            namespace,
            offer.lists_of(options or ()),
            offer.left_of(quotas or ()),
            tuple(name for name, answer in silent.items() if answer is None),
            judges,
        )

    def pod(self, obj: Object) -> dict[str, Any] | None:
        wanted = names.machine(obj.name)
        return next((p for p in self._may(f"/api/v1/namespaces/{obj.namespace}/pods") if _of_pod(p) == wanted), None)

    def _named(self, where: str) -> dict[str, dict[str, Any]]:
        return {str(raw["metadata"]["name"]): raw for raw in self._may(where) if _sound(raw)}

    def _may(self, where: str) -> list[dict[str, Any]]:
        """What the person's role lets them list."""
        return [raw for raw in self._asked(where) or () if _sound(raw)]

    def _list(self, where: str) -> list[dict[str, Any]]:
        self.looked[where], items = self.client.list(where)
        return items

    def _asked(self, where: str) -> list[dict[str, Any]] | None:
        """None where the person's role or the platform's version has no such list."""
        try:
            return self._list(where)
        except Refused as e:
            if e.status in (403, 404):
                return None
            raise


def _sound(raw: dict[str, Any]) -> bool:
    """Whether its names are such: they come into files of ssh's and into commands. What has others no server of ours has made."""
    about = raw.get("metadata")
    if not isinstance(about, dict):
        return False
    return all(_NAME.fullmatch(str(about.get(n, ""))) for n in ("name", "namespace"))


def _of_pod(pod: dict[str, Any]) -> str:
    """The VirtualMachine whose pod this is."""
    return str((pod["metadata"].get("labels") or {}).get("vm.kubevirt.io/name") or "")


def reference(event: dict[str, Any]) -> str:
    """What an Event of the API is about, as our events name it."""
    about = event.get("involvedObject") or event.get("regarding") or {}
    kind = KIND_WORDS.get(str(about.get("kind", "")).lower(), str(about.get("kind", "")))
    name = str(about.get("name", ""))
    if kind == "VirtualMachineInstance" or kind == "VirtualMachine":
        kind, name = INSTANCE, name.removeprefix("vm-instance-")
    return f"{kind.lower()}/{name}"
