"""What a tenant of Hikube offers, and what a manifest asks of it that it does not have; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from hikube_local.api.objects import DISK, INSTANCE, Object, RunStrategy
from hikube_local.api.quantities import in_bytes, parse
from hikube_local.render.sizing import Unsized, requested
from hikube_local.source.finding import Finding, Path, Severity
from hikube_local.text import nearest, size

if TYPE_CHECKING:
    from hikube_local.manifests.load import Loaded

# The tenant's lists, as core.cozystack.io's options call them, and what of ours they decide instead of our own tables.
_INSTEAD = {
    "instancetype": ("HK302", "instanceType"),
    "instanceprofile": ("HK303", "instanceProfile"),
    "image": ("HK312", "source.image"),
    "storageclass": ("HK304", "storageClass"),
}
_UNSURE = "HK334"  # listed by Cozystack, and perhaps not there


@dataclass(frozen=True, slots=True)
class Offer:
    """`lists`: what may be named, by list; one that was not asked or not answered is not among them.

    `left`: what the tenant's quotas leave, by the names of a ResourceQuota: vCPUs, bytes, objects.
    `silent`: what the person's role or the platform's version does not tell.
    """

    where: str
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left: Mapping[str, Fraction] = field(default_factory=dict)
    silent: tuple[str, ...] = ()

    def decides(self, found: Finding) -> bool:
        """Whether the tenant's own list has the word on what our tables found."""
        at = found.path.removeprefix("spec.")
        if found.code == _UNSURE:
            return any(at.startswith(path) for name, (_, path) in _INSTEAD.items() if name in self.lists)
        return any(
            name in self.lists and found.code == code and at.startswith(path) for name, (code, path) in _INSTEAD.items()
        )


def lists_of(options: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """The values of the objects `options` of core.cozystack.io/v1alpha1 (cozystack's pkg/registry/core/option)."""
    found = {}
    for option in options:
        items = (option.get("spec") or {}).get("items") or []
        name = str((option.get("metadata") or {}).get("name"))
        found[name] = tuple(str(i["value"]) for i in items if isinstance(i, dict) and "value" in i)
    return found


def left_of(quotas: Iterable[Mapping[str, Any]]) -> dict[str, Fraction]:
    """What ResourceQuotas leave: of several that speak of one resource the least."""
    found: dict[str, Fraction] = {}
    for quota in quotas:
        status = quota.get("status") or {}
        used = status.get("used") or {}
        for name, hard in (status.get("hard") or {}).items():
            try:
                left = parse(hard) - parse(used.get(name, 0))
            except (ValueError, TypeError):
                continue
            found[str(name)] = min(left, found.get(str(name), left))
    return found


def missing(item: Loaded, offer: Offer) -> Iterator[Finding]:
    """What an object names that the tenant does not have."""
    if item.object.kind == INSTANCE:
        spec = item.object.instance
        asked: list[tuple[str, str, Path]] = [
            ("instancetype", spec.instanceType, ("instanceType",)),
            ("instanceprofile", spec.instanceProfile, ("instanceProfile",)),
            *(("gpu", gpu.name, ("gpus", i)) for i, gpu in enumerate(spec.gpus)),
            *(
                ("network", network.name, ("networks" if spec.networks else "subnets", i))
                for i, network in enumerate(spec.attached)
            ),
        ]
    else:
        disk = item.object.disk
        asked = [("storageclass", disk.storageClass, ("storageClass",))]
        if disk.source.image is not None:
            asked.append(("image", disk.source.image.name, ("source", "image", "name")))
    for name, value, path in asked:
        there = offer.lists.get(name)
        if value and there is not None and value not in there:
            # A network may come with another kind of the same files.
            severity = Severity.WARNING if name == "network" else Severity.ERROR
            yield _found(
                item, "HK408", f"the tenant has no {name} {value[:60]!r}", path, _instead(value, there), severity
            )


def _instead(value: str, there: tuple[str, ...]) -> str:
    near = nearest(value, list(there))
    if near:
        return f"did you mean {near}?"
    listed = ", ".join(there[:12]) + (", …" if len(there) > 12 else "")
    return f"it has {listed}" if there else ""


def beyond(items: Iterable[Loaded], known: Mapping[Any, Object], offer: Offer) -> Iterator[Finding]:
    """What all of a manifest together needs beyond the quotas, at the first object that does not fit.

    It is the least that the platform will count: overheads, scratch volumes and what a parent tenant's pool leaves are
    not known here.
    """
    spent: dict[str, Fraction] = {}
    told: set[str] = set()
    for item in items:
        before = known.get(item.object.key)
        now, had = _needs(item.object), _needs(before) if before is not None and not before.deletion else {}
        for name, amount in now.items():
            more = amount - had.get(name, Fraction(0))
            spent[name] = spent.get(name, Fraction(0)) + max(more, Fraction(0))
            if name in offer.left and spent[name] > offer.left[name] and name not in told:
                told.add(name)
                left = max(offer.left[name], Fraction(0))
                what = f"the tenant's quota leaves {_said(name, left)} of {name}: up to here {_said(name, spent[name])} more"
                path = ("storage",) if item.object.kind == DISK else ()
                yield _found(item, "HK409", what, path, "ask for a larger quota, or remove what is not needed")


def _needs(obj: Object) -> dict[str, Fraction]:
    """What one object counts for, by the names of a ResourceQuota."""
    one = Fraction(1)
    if obj.kind == DISK:
        try:
            return {"requests.storage": Fraction(in_bytes(obj.disk.storage)), "persistentvolumeclaims": one}
        except ValueError:
            return {}
    found = {"services.loadbalancers": one, "services": one} if obj.instance.external else {}
    if obj.instance.strategy in (RunStrategy.HALTED, RunStrategy.MANUAL):  # no pod before somebody starts it
        return found
    found["pods"] = one
    try:
        asked = requested(obj.instance)
    except Unsized:
        return found
    memory = Fraction(asked.memory)
    return {**found, "limits.cpu": Fraction(asked.vcpus), "limits.memory": memory, "requests.memory": memory}


def _said(name: str, amount: Fraction) -> str:
    return size(int(amount)) if name.endswith(("memory", "storage")) else f"{float(amount):g}"


def _found(item: Loaded, code: str, what: str, path: Path, help: str, severity: Severity = Severity.ERROR) -> Finding:
    from hikube_local.manifests.rules import placed

    return placed(item, Finding(code, severity, what, path, help))
