"""What `test` makes in a tenant: copies of a manifest's objects, with names of their own, and what no copy would be true to; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from hikube_local.api import names
from hikube_local.api.objects import DISK, INSTANCE, Key, Named, Object
from hikube_local.api.quantities import in_bytes
from hikube_local.manifests.load import Loaded
from hikube_local.manifests.rules import placed
from hikube_local.records import dataclass
from hikube_local.render.sizing import Unsized, requested
from hikube_local.source.finding import Finding, Path, Severity
from hikube_local.text import sanitize, size, timestamp
from hikube_local.userdata.requested import makes_default
from hikube_local.userdata.whole import ending

# On each object, so that any machine can take away what a run left behind: the run, whose it is, Unix time of its end.
RUN, OWNER, EXPIRES = (f"hikube.local/{name}" for name in ("run", "owner", "expires"))
# What may be made without a word: vCPUs, bytes of memory, seconds.
FREE = (8, 16 << 30, 3600.0)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of `test`. `expires`: Unix seconds after which anybody who sweeps may take its objects away."""

    id: str
    owner: str
    expires: float


def copies(objects: Iterable[Object], namespace: str, run: Run, key: str) -> dict[Key, Object]:
    """Each object's copy, by the object's own key. `key`: the public key with which we get in, beside the manifest's own."""
    given = list(objects)
    renamed = {o.key: _name(run, n, o) for n, o in enumerate(given)}
    labels, notes = {RUN: run.id, OWNER: run.owner}, {EXPIRES: str(int(run.expires))}
    out = {}
    for obj in given:
        spec = _disk(obj, renamed) if obj.kind == DISK else _machine(obj, renamed, key)
        out[obj.key] = replace(
            obj,
            name=renamed[obj.key],
            namespace=namespace,
            spec=spec,
            labels={**obj.labels, **labels},
            annotations={**obj.annotations, **notes},
        )
    return out


def _name(run: Run, n: int, obj: Object) -> str:
    most = names.INSTANCE_MAX if obj.kind == INSTANCE else names.DISK_MAX
    plain = f"t-{run.id}-{obj.name}"
    return plain if len(plain) <= most else f"t-{run.id}-{n}-{obj.name}"[:most].rstrip("-")


def _disk(obj: Object, renamed: dict[Key, str]) -> Any:
    source = obj.disk.source
    if source.disk is None:
        return obj.spec
    name = renamed.get(Key(DISK, obj.namespace, source.disk.name), source.disk.name)
    return obj.disk.but(source=source.but(disk=Named(name=name)))


def _machine(obj: Object, renamed: dict[Key, str], key: str) -> Any:
    spec = obj.instance
    disks = tuple(replace(d, name=renamed[Key(DISK, obj.namespace, d.name)]) for d in spec.disks)
    # A public address costs money and is not needed: who looks comes through the API. It is to run, whatever it says.
    more = {"external": False, "running": True, "runStrategy": None, "sshKeys": (*spec.sshKeys, key)}
    return spec.but(disks=disks, **more)


def refused(items: Iterable[Loaded]) -> Iterator[Finding]:
    """What would not be tested but something else, told before anything is made."""
    given = list(items)
    machines = {i.object.name for i in given if i.object.kind == INSTANCE}
    for item in given:
        obj = item.object
        if obj.kind == DISK:
            if obj.disk.source.upload is not None:
                yield _at(item, "its content is uploaded: a copy of it has none", ("source",), "name an image or a URL")
            continue
        spec = obj.instance
        if not spec.has_seed:
            what = "it has no cloud-init seed, and the key with which we get in would make one"
            yield _at(item, what, (), "give it cloudInit or sshKeys, or look at it with compare")
        elif not makes_default(spec.cloudInit):
            what = "user-data makes no default user, and sshKeys are for that one alone: nobody could log in"
            yield _at(item, what, ("cloudInit",), "add `- default` to users, or look at it with compare")
        if (end := ending(spec.cloudInit)) is not None and end.how != "reboot":
            what = f"{end.why} ends with the machine off, and the copy would be started again"
            yield _at(item, what, ("cloudInit",), "test it on this machine or on a box")
        for name in sorted(machines - {obj.name}):
            # The copy's name is another one, and so is what finds it in the tenant's network.
            if re.search(rf"(?<![a-z0-9-])vm-instance-{re.escape(name)}(?![a-z0-9-])", spec.cloudInit):
                what = f"user-data names the machine {name}, whose copy has another name"
                yield _at(item, what, ("cloudInit",), "look at it with compare")


def cost(objects: Iterable[Object], runs: int, seconds: float) -> tuple[str, bool]:
    """What `runs` of these one after the other take, in words, and whether that is more than is made without a word.

    `seconds`: of all of them. What a type of the tenant's own is, and what a GPU costs, is not known here: it is asked about.
    """
    vcpus = memory = storage = machines = gpus = 0
    unknown: list[str] = []
    for obj in objects:
        if obj.kind == DISK:
            storage += in_bytes(obj.disk.storage)
            continue
        machines, gpus = machines + 1, gpus + len(obj.instance.gpus)
        try:
            asked = requested(obj.instance)
        except Unsized:
            unknown.append(obj.instance.instanceType)
            continue
        vcpus, memory = vcpus + asked.vcpus, memory + asked.memory
    parts = [f"{machines} machine{'s' if machines != 1 else ''}", f"{vcpus} vCPUs", f"{size(memory)} of memory"]
    parts += [f"{size(storage)} of disks", *([f"{gpus} GPU{'s' if gpus != 1 else ''}"] if gpus else [])]
    parts += [f"types of unknown size ({', '.join(unknown)})"] if unknown else []
    times = f", {runs} times" if runs > 1 else ""
    much = any(now > free for now, free in zip((vcpus, memory, seconds), FREE, strict=True))
    return f"{', '.join(parts)}{times}, at most {max(1, round(seconds / 60))} minutes", bool(much or gpus or unknown)


def until(obj: Object) -> float | None:
    """When an object of a run may be taken away, in Unix seconds; None where it does not say."""
    said = obj.annotations.get(EXPIRES, "")
    return float(said) if said.isdecimal() and len(said) < 16 else None


def told(obj: Object) -> str:
    """An object of a run that is still there, for a person."""
    end, whose = until(obj), sanitize(obj.labels.get(OWNER, "nobody"))
    return f"{obj.ref}, of {whose}" + (f", until {timestamp(end)}" if end is not None else "")


def _at(item: Loaded, what: str, path: Path, help: str) -> Finding:
    return placed(item, Finding("HK410", Severity.ERROR, f"cannot be tested by a copy: {what}", path, help))
