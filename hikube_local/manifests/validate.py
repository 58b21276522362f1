"""All findings of an input: each object by itself, then the objects together and with what the store holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hikube_local.api.names import firmware_uuid
from hikube_local.api.objects import DISK, INSTANCE, Key, Object
from hikube_local.manifests import rules
from hikube_local.manifests.load import Fetched, Input, Loaded, load
from hikube_local.records import dataclass
from hikube_local.source.finding import Finding, Severity

if TYPE_CHECKING:
    from hikube_local.manifests.offer import Offer


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the input: stored objects, image names of the configuration, what a tenant offers."""

    objects: dict[Key, Object]
    images: frozenset[str] = frozenset()
    offer: Offer | None = None  # of the tenant that the objects are meant for

    @staticmethod
    def nothing() -> Known:
        return Known({})


def validate(
    sources: Iterable[str],
    namespace: str | None,
    default_namespace: str,
    known: Known,
    for_plan: bool = False,
    unknown: str = "strict",
) -> Input:
    """Read and check; a disk that is nowhere is a warning, with `for_plan` an error."""
    result = load(sources, namespace, default_namespace, unknown)
    once: set[tuple[str, str]] = set()
    for item in (*result.objects, *result.broken):
        for found in rules.check(item, known.images):
            if found.path.removeprefix("spec.").split(".")[0].split("[")[0] in item.judged:
                continue
            if known.offer is not None and known.offer.decides(found):
                continue
            if item in result.broken and (found.severity is Severity.DIFFERENCE or "resources" in item.judged):
                continue
            # A difference is told once, at its first place.
            if found.severity is Severity.DIFFERENCE:
                if (found.code, found.message) in once:
                    continue
                once.add((found.code, found.message))
            result.findings.add(found)
    for found in (*_together(result.objects, known, for_plan), *_of_the_tenant(result.objects, known)):
        result.findings.add(found)
    return result


def validate_one(value: dict[str, Any], origin: str, namespace: str, known: Known, unknown: str = "strict") -> Input:
    """The same for one document that is there as plain data. `origin`: what its findings call it."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return validate(
        [Fetched.of(origin, text.encode("utf-8", "backslashreplace"))], namespace, namespace, known, unknown=unknown
    )


def _together(items: list[Loaded], known: Known, for_plan: bool) -> Iterable[Finding]:
    first: dict[Key, Loaded] = {}
    for item in items:
        obj = item.object
        if obj.key in first:
            where = first[obj.key].place("metadata", "name")
            what = f"{obj.kind_and_name} is defined twice in namespace {obj.namespace}, first at {where}"
            yield _at(item, "HK401", Severity.ERROR, what, "metadata", "name")
        first.setdefault(obj.key, item)
    yield from _one_uuid(items, known)
    users: dict[Key, Key] = {}
    for obj in known.objects.values():
        if obj.kind == INSTANCE and obj.key not in first and not obj.deletion:
            for key in obj.disk_keys:
                users[key] = obj.key
    for item in first.values():
        if item.object.kind != INSTANCE:
            yield from _changes(item, known)
            continue
        for i, disk in enumerate(item.object.instance.disks):
            key = Key(DISK, item.object.namespace, disk.name)
            if key not in first and key not in known.objects:
                what = f"the disk {disk.name!r} is neither in the input nor in the store"
                severity = Severity.ERROR if for_plan else Severity.WARNING
                help = f"add a VMDisk named {disk.name}, or correct the name"
                yield _at(item, "HK402", severity, what, "spec", "disks", i, help=help)
            # What nobody writes to may be in several machines, as KubeVirt attaches it.
            there = first[key].object if key in first else known.objects.get(key)
            if there is not None and there.disk.optical:
                continue
            other = users.setdefault(key, item.object.key)
            if other != item.object.key:  # twice in one machine is HK323
                name = other.name if other in first else f"{other.name} (already here)"
                what = f"the disk {disk.name!r} is attached to two machines: {name} and {item.object.name}"
                yield _at(item, "HK403", Severity.ERROR, what, "spec", "disks", i)


def _of_the_tenant(items: list[Loaded], known: Known) -> Iterable[Finding]:
    if known.offer is None or not known.offer.judges:
        return
    from hikube_local.manifests.offer import beyond, missing

    for item in items:
        yield from missing(item, known.offer, known.objects.get(item.object.key))
    yield from beyond([(item, item.object) for item in items], known.objects, known.offer)


def _one_uuid(items: list[Loaded], known: Known) -> Iterable[Finding]:
    """Two machines whose namespace and name are cut at another dash have one UUID, so one TPM and one instance-id."""
    seen: dict[str, Object] = {}
    new = {i.object.key for i in items}
    for obj in known.objects.values():
        if obj.kind == INSTANCE and obj.key not in new and not obj.deletion:
            seen[firmware_uuid(obj.namespace, obj.name, obj.instance.cloudInitSeed)] = obj
    for item in items:
        obj = item.object
        if obj.kind != INSTANCE:
            continue
        other = seen.setdefault(firmware_uuid(obj.namespace, obj.name, obj.instance.cloudInitSeed), obj)
        if other.key != obj.key:
            twin = f"{other.namespace}/{other.name}"
            what = f"{obj.namespace}/{obj.name} and {twin} get the same UUID: Hikube derives it from NAMESPACE-NAME"
            yield _at(
                item, "HK407", Severity.ERROR, what, "metadata", "name", help="rename one, or give it a cloudInitSeed"
            )


def _changes(item: Loaded, known: Known) -> Iterable[Finding]:
    """What an existing disk does not let itself be changed to."""
    from hikube_local.api.quantities import in_bytes

    old = known.objects.get(item.object.key)
    if old is None or old.deletion:
        return
    try:
        before, after = in_bytes(old.disk.storage), in_bytes(item.object.disk.storage)
    except ValueError:
        return
    if after < before:
        what = f"storage cannot shrink: the disk has {old.disk.storage}, the manifest says {item.object.disk.storage}"
        yield _at(item, "HK405", Severity.ERROR, what, "spec", "storage")
    for name in ("storageClass", "optical"):
        if getattr(old.disk, name) != getattr(item.object.disk, name):
            what = f"{name} is immutable: the disk has {getattr(old.disk, name)}"
            yield _at(item, "HK404", Severity.ERROR, what, "spec", name)
    if old.disk.source != item.object.disk.source:
        what = "the source is read only when the disk is created: this disk exists and keeps its content"
        yield _at(item, "HK404", Severity.WARNING, what, "spec", "source")


def _at(item: Loaded, code: str, severity: Severity, message: str, *path: str | int, help: str = "") -> Finding:
    from hikube_local.manifests.shape import path_text

    ref = item.object.kind_and_name
    return Finding(code, severity, message, item.place(*path), ref=ref, path=path_text(path), help=help)
