"""A real machine as `get` and `describe` show it, from what is true now."""

from __future__ import annotations

from typing import Any

from hikube_local.api import names
from hikube_local.api.objects import Object
from hikube_local.backends.protocol import View
from hikube_local.backends.qemu import libvirt
from hikube_local.backends.qemu.agent import Agent
from hikube_local.backends.qemu.context import Context
from hikube_local.backends.qemu.machine import follow, observe, sizes, stopped
from hikube_local.backends.qemu.network import port_forwards
from hikube_local.backends.qemu.network.user_network import LOST
from hikube_local.host import accelerator, facts
from hikube_local.plan.accelerator import KVM, Choice
from hikube_local.plan.steps import RunState
from hikube_local.readiness import qemu
from hikube_local.readiness.stages import Trouble
from hikube_local.render import fit, machine
from hikube_local.source.finding import Finding, difference
from hikube_local.store.records import Lease

WHOLE = (
    "WholeIP: the ports on which the guest listens are open at its loopback address; they are looked up at the end "
    "of up and before get, describe and ports show them"
)


LINK_LOCAL = (
    "guests do not reach 169.254.0.0/16 and fe80::/10 behind this host, where clouds hand out credentials; "
    "`linkLocal: true` in the configuration opens them"
)


def view(context: Context, obj: Object) -> View:
    dom = context.existing_domain(obj)
    seen = observe.machine(context, obj)
    _, lease, guest = context.store.records(obj.key)
    on = seen.state in (RunState.RUNNING, RunState.PAUSED, RunState.FAILED)
    console = follow.console_of(context.folder(obj), obj) if on else None
    kept = guest.cloud_init or {}
    cloud_init: bool | None = None
    trouble = console.trouble if console else None
    if kept and kept.get("start") == seen.started:
        cloud_init, trouble = kept["ok"], trouble or (Trouble.read(kept) if kept.get("message") else None)
    elif console and console.finished:
        cloud_init = not console.failures
    if dom is not None and on and libvirt.stopped_by_disk(dom):
        what = "paused by QEMU: a disk of it cannot be written (no space on this host?)"
        trouble = Trouble("HK604", what, remedy=f"when there is space: hikube-local unpause {obj.name}")
    if seen.state is RunState.FAILED:
        said = stopped.text(stopped.log(context, obj))
        remedy = qemu.remedy(said, obj.name, lease.ran_with == "kvm")
        trouble = Trouble("HK913", f"QEMU stopped it: {qemu.words(said)}", qemu.evidence(said), remedy)
    lan = lease.lan if on else ""
    access = [
        {"port": f.port, "protocol": f.protocol.upper(), "address": f.address, "hostPort": f.host_port}
        for f in sorted(seen.forwards, key=lambda f: (f.port, f.protocol))
    ]
    if lan and (lan_ip := guest.lan_ip):
        # With WholeIP every port of it is open, which no list says.
        access = [{"port": p, "protocol": "TCP", "address": lan_ip, "hostPort": p} for p in obj.instance.ports]
    # A look tries nothing itself: of a machine that is off, what was tried before.
    choice = context.accelerator(obj) if on or accelerator.kept(context.layout) else None
    # What runs was started with one; what it would get at its next start may be another.
    runs, by = (lease.ran_with, lease.ran_by) if lease.ran_with else (choice.word, choice.by) if choice else ("", "")
    if not on:
        runs = by = ""
    told = seen.started is not None and guest.up == seen.started  # `up` saw it come up
    failed = bool(console and console.trouble) and not told
    ended = cloud_init is not None if obj.instance.has_seed else bool(console and console.login)
    return View(
        observed=seen,
        ready=told or (ended and not failed),
        failed=failed,
        progress=console.progress if console else None,
        cloud_init=cloud_init,
        trouble=trouble,
        agent=bool(on and dom is not None and Agent(dom).connected()),
        accelerator=runs,
        accelerator_by=by,
        addresses=_addresses(context, obj, lan, guest.lan_ip, access),
        access=access,
        differences=_differences(context, obj, lease, choice, runs),
        details={"tap": context.tenants.tap(obj), **({"bridge": lan} if lan else {})},
        instance_id=context.uuid(obj),
        host_restarted=not on and seen.started is not None and seen.started < facts.booted(),
        restart_required=seen.stale,
    )


def _addresses(
    context: Context, obj: Object, lan: str, lan_ip: str, access: list[dict[str, Any]]
) -> list[dict[str, str]]:
    rows = []
    if lan:
        # On the host's bridge the machine's own address is the one from outside too.
        kinds = ("InternalIP", "ExternalIP") if obj.instance.external else ("InternalIP",)
        rows = [{"type": kind, "address": lan_ip} for kind in kinds if lan_ip]
    elif ip := context.tenants.ip(obj):
        rows = [{"type": "InternalIP", "address": ip}]
        if access:
            rows.append({"type": "ExternalIP", "address": str(access[0]["address"])})
    return [*rows, {"type": "Hostname", "address": names.fqdn(obj.namespace, obj.name)}]


def _differences(context: Context, obj: Object, lease: Lease, choice: Choice | None, runs: str) -> list[Finding]:
    """`runs`: the accelerator that it runs with, or nothing."""
    size = lease.size or {}
    rows = sizes.differences(size)
    if choice:
        kvm = choice.kvm if not runs else runs == KVM
        if size and not kvm:
            why = choice.why if not choice.kvm else "it was started without it"
            rows.append(difference("HK503", f"no hardware acceleration: {why}"))
        rows += fit.dropped(machine.profile_of(obj.instance), kvm)
    if not context.sandbox.has_tenant_network:
        rows.append(difference("HK518", LOST))
    elif not context.tenants.link_local:
        rows.append(difference("HK520", LINK_LOCAL))
    if not lease.lan:
        rows += [difference("HK507", text) for text in port_forwards.moved(lease)]
        if obj.instance.external and (obj.instance.whole_ip or obj.instance.externalAllowICMP):
            rows.append(
                difference("HK511", "ping works from other machines, but cannot be forwarded to a loopback address")
            )
        if obj.instance.whole_ip:
            rows.append(difference("HK517", WHOLE))
    return rows
