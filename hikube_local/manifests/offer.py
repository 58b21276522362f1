"""What a tenant of Hikube offers, and what a manifest asks of it that it does not have; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from hikube_local.api.objects import DISK, INSTANCE, Object, RunStrategy
from hikube_local.api.quantities import in_bytes, parse
from hikube_local.records import dataclass
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
    `silent`: what the person's role or the platform's version does not tell. `judges`: whether what it has not is an error:
    not of what is only to be found or removed.
    """

    where: str
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left: Mapping[str, Fraction] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    judges: bool = True

    def decides(self, found: Finding) -> bool:
        """Whether the tenant's own list has the word on what our tables found."""
        at = found.path.removeprefix("spec.")
        if found.code == _UNSURE:
            return any(at.startswith(path) for name, (_, path) in _INSTEAD.items() if name in self.lists)
        return any(
            name in self.lists and found.code == code and at.startswith(path) for name, (code, path) in _INSTEAD.items()
        )


def lists_of(options: Iterable[Any]) -> dict[str, tuple[str, ...]]:
    """The values of the objects `options` of core.cozystack.io/v1alpha1 (cozystack's pkg/registry/core/option)."""
    found = {}
    for option in options:
        items = _at(option, "spec", "items")
        name = _at(option, "metadata", "name")
        if isinstance(name, str):
            rows = items if isinstance(items, list) else []
            found[name] = tuple(str(i["value"]) for i in rows if isinstance(i, dict) and "value" in i)
    return found


def left_of(quotas: Iterable[Any]) -> dict[str, Fraction]:
    """What ResourceQuotas leave: of several that speak of one resource the least. Those for some pods alone say nothing here."""
    found: dict[str, Fraction] = {}
    for quota in quotas:
        hard, used = _at(quota, "status", "hard"), _at(quota, "status", "used")
        if not isinstance(hard, dict) or _at(quota, "spec", "scopes") or _at(quota, "spec", "scopeSelector"):
            continue
        for name, most in hard.items():
            try:
                left = parse(most) - parse(used.get(name, 0) if isinstance(used, dict) else 0)
            except (ValueError, TypeError):
                continue
            found[str(name)] = min(left, found.get(str(name), left))
    return found


def _at(value: Any, *path: str) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def missing(item: Loaded, offer: Offer, before: Object | None = None) -> Iterator[Finding]:
    """What an object names that the tenant does not have. `before`: as it is there: what stays as it was is not asked again."""
    known = {(name, value) for name, value, _ in _names(before)} if before is not None else set()
    for name, value, path in _names(item.object):
        there = offer.lists.get(name)
        if value and there is not None and value not in there and (name, value) not in known:
            # A network may come with another kind of the same files.
            severity = Severity.WARNING if name == "network" else Severity.ERROR
            what = f"the tenant has no {name} {value[:60]!r}"
            yield _found(item, "HK408", what, path, _instead(value, there), severity)


def _names(obj: Object) -> list[tuple[str, str, Path]]:
    """What an object names of the tenant's lists: the list, the name, and where below spec."""
    if obj.kind == INSTANCE:
        spec = obj.instance
        networks = "networks" if spec.networks else "subnets"
        return [
            ("instancetype", spec.instanceType, ("instanceType",)),
            ("instanceprofile", spec.instanceProfile, ("instanceProfile",)),
            *(("gpu", gpu.name, ("gpus", i)) for i, gpu in enumerate(spec.gpus)),
            *(("network", network.name, (networks, i)) for i, network in enumerate(spec.attached)),
        ]
    disk = obj.disk
    found: list[tuple[str, str, Path]] = [("storageclass", disk.storageClass, ("storageClass",))]
    if disk.source.image is not None:
        found.append(("image", disk.source.image.name, ("source", "image", "name")))
    return found


def _instead(value: str, there: tuple[str, ...]) -> str:
    near = nearest(value, list(there))
    if near:
        return f"did you mean {near}?"
    listed = ", ".join(there[:12]) + (", …" if len(there) > 12 else "")
    return f"it has {listed}" if there else ""


def beyond(asked: Iterable[tuple[Loaded, Object]], known: Mapping[Any, Object], offer: Offer) -> Iterator[Finding]:
    """What all of a manifest together needs beyond the quotas, at the first object that does not fit.

    `asked`: what is made, beside the item that says so. It is the least that the platform will count: overheads, scratch
    volumes and what a parent tenant's pool leaves are not known here.
    """
    more: list[tuple[Loaded, str, Fraction]] = []
    for item, obj in asked:
        before = known.get(obj.key)
        now, had = _needs(obj), _needs(before) if before is not None and not before.deletion else {}
        more += [(item, name, now.get(name, Fraction(0)) - had.get(name, Fraction(0))) for name in {**had, **now}]
    for name in sorted({name for _, name, _ in more} & offer.left.keys()):
        left = max(offer.left[name], Fraction(0))
        # What shrinks makes room first: in which order the platform counts is not known.
        total = sum((amount for _, n, amount in more if n == name and amount < 0), Fraction(0))
        for item, of, amount in more:
            if of != name or amount <= 0:
                continue
            total += amount
            if total > left:
                what = f"the tenant's quota leaves {_said(name, left)} of {name}: up to here {_said(name, total)} more"
                path = ("storage",) if item.object.kind == DISK else ()
                yield _found(item, "HK409", what, path, "ask for a larger quota, or remove what is not needed")
                break


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
