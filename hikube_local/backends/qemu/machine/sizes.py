"""The size that a machine gets on this host; kept, so that it does not change under a running machine."""

from __future__ import annotations

from collections.abc import Callable

from hikube_local.api.objects import INSTANCE, Object
from hikube_local.backends.qemu import NAME
from hikube_local.host.facts import HostFacts
from hikube_local.plan.running import stays_off
from hikube_local.render import fit, machine
from hikube_local.render.sizing import Size, requested
from hikube_local.source.finding import Finding, difference
from hikube_local.store.db import Row, Rows, Store, scope


def size(store: Store, facts: HostFacts, obj: Object, exact: bool) -> tuple[Size, list[Finding]]:
    """The size that it has or would get, and how that differs from what was asked for; `exact` refuses a smaller one."""
    everything = store.allocations()
    row = _chooser(store, facts, obj, exact)(everything.get(scope(obj.key), {}), lambda: everything)["size"]
    return Size(*row["got"]), differences(row)


def differences(row: Row) -> list[Finding]:
    """Those of a size as it is kept."""
    return [difference(code, message) for code, message in row.get("told", ())]


def allocate(store: Store, facts: HostFacts, obj: Object, exact: bool) -> None:
    """Keep the size that it gets."""
    if _stays(store.allocation(scope(obj.key)), _row(requested(obj.instance)), exact):
        return
    store.allocate(scope(obj.key), _chooser(store, facts, obj, exact))


def _chooser(store: Store, facts: HostFacts, obj: Object, exact: bool) -> Callable[[Row, Callable[[], Rows]], Row]:
    want = requested(obj.instance)
    profile = machine.profile_of(obj.instance)
    others = {scope(o.key): o for o in store.objects(INSTANCE) if o.backend == NAME and o.key != obj.key}
    wanted = _row(want)

    def change(own: Row, everything: Callable[[], Rows]) -> Row:
        if _stays(own, wanted, exact):
            return own
        used = sum(
            v["size"]["got"][2] + (0 if facts.kvm else fit.TB_CACHE)
            for k, v in everything().items()
            if k in others and "size" in v and _counts(others[k], v.get("power", ""))
        )
        got, said = fit.fit(want, facts.cpus, facts.memory, used, facts.kvm, profile.min_memory, exact)
        told = [(d.code, d.message) for d in said]
        return {**own, "size": {"want": wanted, "got": _row(got), "told": told}}

    return change


def _stays(own: Row, wanted: list[int], exact: bool) -> bool:
    """Whether the size that it has is of what is asked for now."""
    kept = own.get("size")
    return bool(kept and kept["want"] == wanted and not (exact and kept["told"]))


def _row(size: Size) -> list[int]:
    """As it is kept; what was kept before there were threads has none."""
    return [size.sockets, size.cores, size.memory, *([size.threads] if size.threads > 1 else [])]


def _counts(obj: Object, power: str) -> bool:
    """Whether a machine's memory is reckoned with: it runs or may be started by itself."""
    return obj.deletion is None and not stays_off(obj, power)
