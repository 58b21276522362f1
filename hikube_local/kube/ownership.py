"""Server-side apply: who owns which field, what an applier may change, and what goes when it lets go of a field; pure.

Fields are paths of keys. Every list of our kinds is atomic, since Cozystack's schema says nothing else, and so is what is no
object; ownership is kept in managedFields in the form of Kubernetes (fieldsV1: `f:name`, `.` for the field itself).
See kubernetes.io/docs/reference/using-api/server-side-apply.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from hikube_local.records import dataclass

Path = tuple[str, ...]
Fields = frozenset[Path]
# What is the server's own is nobody's field.
_NOBODYS = frozenset(
    {
        ("apiVersion",),
        ("kind",),
        ("status",),
        *(
            ("metadata", name)
            for name in (
                *(
                    "name",
                    "namespace",
                    "uid",
                    "resourceVersion",
                    "generation",
                    "creationTimestamp",
                    "deletionTimestamp",
                ),
                *("managedFields", "selfLink", "generateName"),
            )
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns fields: the same name owns apart by Apply and by Update."""

    manager: str
    operation: str  # Apply or Update


Owners = dict[Owner, Fields]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A field that somebody else owns with another value."""

    path: Path
    owner: Owner

    @property
    def field(self) -> str:
        return "." + ".".join(self.path)


def fields(value: dict[str, Any], at: Path = ()) -> Iterable[Path]:
    """The fields that a value sets: its leaves, and the objects that are empty."""
    for key, inner in value.items():
        path = (*at, key)
        if path in _NOBODYS:
            continue
        if isinstance(inner, dict) and inner:
            yield from fields(inner, path)
        else:
            yield path


def get(value: Any, path: Path) -> tuple[bool, Any]:
    """(whether it is there, the value) at a path."""
    for step in path:
        if not isinstance(value, dict) or step not in value:
            return False, None
        value = value[step]
    return True, value


def same(a: Any, b: Any) -> bool:
    """Equal as JSON: true is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _overlaps(a: Path, b: Path) -> bool:
    """Whether setting one of them says something of the other."""
    short = min(len(a), len(b))
    return a[:short] == b[:short]


def conflicts(live: dict[str, Any], applied: dict[str, Any], owners: Owners, who: Owner) -> list[Conflict]:
    """What the applier would change that somebody else owns, in the order of the fields."""
    found = []
    for path in sorted(fields(applied)):
        there, value = get(live, path)
        if there and same(value, get(applied, path)[1]):
            continue
        for owner, owned in sorted(owners.items(), key=lambda row: (row[0].manager, row[0].operation)):
            if owner != who and any(_overlaps(path, other) for other in owned):
                found.append(Conflict(path, owner))
    return found


def apply(
    live: dict[str, Any] | None, applied: dict[str, Any], owners: Owners, who: Owner, force: bool = False
) -> tuple[dict[str, Any], Owners, list[Conflict]]:
    """(the object, who owns what then, conflicts). With conflicts nothing is changed, unless `force` takes the fields over.

    A field that the applier had applied before and leaves out now goes, where nobody else owns it.
    """
    before = live or {}
    clash = conflicts(before, applied, owners, who)
    if clash and not force:
        return before, owners, clash
    mine = frozenset(fields(applied))
    out = deepcopy(before)
    dropped = owners.get(who, frozenset()) - mine
    others = {o: f for o, f in owners.items() if o != who}
    for path in sorted(dropped, key=len, reverse=True):
        kept = any(_overlaps(path, other) for owned in others.values() for other in owned)
        if not kept and not any(_overlaps(path, own) for own in mine):
            _remove(out, path)
    for path in sorted(mine):
        _set(out, path, deepcopy(get(applied, path)[1]))
    after = {}
    for owner, owned in others.items():
        # Taken over by force; what both set to the same value both own.
        left = frozenset(p for p in owned if not any(_overlaps(p, c.path) and c.owner == owner for c in clash))
        left = frozenset(p for p in left if get(out, p)[0])
        if left:
            after[owner] = left
    if mine:
        after[who] = mine
    return out, after, []


def update(before: dict[str, Any] | None, after: dict[str, Any], owners: Owners, who: Owner) -> Owners:
    """Who owns what after a create, an update or a patch: who changed a field owns it, and nobody else does."""
    old = before or {}
    new = frozenset(fields(after))
    changed = frozenset(p for p in new if not (get(old, p)[0] and same(get(old, p)[1], get(after, p)[1])))
    out = {}
    for owner, owned in owners.items():
        left = owned & new if owner == who else frozenset(p for p in owned & new if p not in changed)
        if left:
            out[owner] = left
    if changed:
        out[who] = out.get(who, frozenset()) | changed
    return out


def _set(value: dict[str, Any], path: Path, leaf: Any) -> None:
    for step in path[:-1]:
        inner = value.get(step)
        if not isinstance(inner, dict):
            inner = value[step] = {}
        value = inner
    value[path[-1]] = leaf


def _remove(value: dict[str, Any], path: Path) -> None:
    """An object that is empty then stays, as Kubernetes leaves it."""
    for step in path[:-1]:
        inner = value.get(step)
        if not isinstance(inner, dict):
            return
        value = inner
    value.pop(path[-1], None)


# managedFields


def encode(owners: Owners, times: dict[Owner, str], version: str) -> list[dict[str, Any]]:
    """managedFields as Kubernetes writes it; `times`: of each owner's last change."""
    rows = []
    for owner, owned in sorted(
        owners.items(), key=lambda row: (times.get(row[0], ""), row[0].manager, row[0].operation)
    ):
        tree: dict[str, Any] = {}
        for path in sorted(owned):
            at = tree
            for step in path:
                at = at.setdefault(f"f:{step}", {})
        rows.append(
            {
                "manager": owner.manager,
                "operation": owner.operation,
                "apiVersion": version,
                "time": times.get(owner, ""),
                "fieldsType": "FieldsV1",
                "fieldsV1": tree,
            }
        )
    return rows


def decode(rows: Any) -> tuple[Owners, dict[Owner, str]]:
    """What `encode` wrote; what cannot be read is nobody's."""
    owners: Owners = {}
    times: dict[Owner, str] = {}
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(tree := row.get("fieldsV1"), dict):
            owner = Owner(str(row.get("manager", "")), str(row.get("operation", "")))
            owners[owner] = frozenset(_leaves(tree))
            times[owner] = str(row.get("time", ""))
    return owners, times


def _leaves(tree: dict[str, Any], at: Path = ()) -> Iterable[Path]:
    for key, inner in tree.items():
        if not key.startswith("f:") or len(at) > 20:
            continue
        path = (*at, key[2:])
        below = [k for k in inner if k.startswith("f:")] if isinstance(inner, dict) else []
        if below:
            yield from _leaves(inner, path)
        else:
            yield path
