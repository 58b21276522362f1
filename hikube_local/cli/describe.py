"""`describe`: everything known about objects, in words."""

from __future__ import annotations

import time
from typing import Any

import click

from hikube_local.cli.app import App
from hikube_local.cli.get import chosen
from hikube_local.cli.options import common, complete_object, option, refresh_option
from hikube_local.errors import ExitCode
from hikube_local.language import tr
from hikube_local.paths import document
from hikube_local.text import sanitize


@click.command("describe")
@click.argument("words", shell_complete=complete_object, metavar="[KIND [NAME]...]", nargs=-1)
@option("-A", "--all-namespaces", is_flag=True, help="In every namespace.")
@option("-l", "--selector", "labels", default="", help="Label selector.")
@refresh_option()
@common
def describe(app: App, words: tuple[str, ...], all_namespaces: bool, labels: str, refresh: bool) -> int:
    """Show objects with their status, disks, access, differences from Hikube and latest events."""

    if len(words) == 1 and "/" not in words[0]:
        from hikube_local.api.objects import KIND_WORDS

        if not all(w in KIND_WORDS or w == "all" for w in words[0].lower().split(",")):
            words = ("vm", words[0])
    statuses = app.session.statuses
    objects, _ = chosen(app, words, all_namespaces, labels)
    app.refresh(objects, refresh)
    # What came from elsewhere stays in its line.
    print(
        "\n\n".join("\n".join(sanitize(line).replace("\n", " ") for line in _lines(app, statuses, o)) for o in objects)
    )
    return ExitCode.DONE


def _field(name: str, value: Any) -> str:
    return f"{name + ':':<16}{value}"


def _lines(app: App, statuses: Any, obj: Any) -> list[str]:
    r = statuses.resource(obj)
    meta, status = r["metadata"], r["status"]
    out = [
        _field("Name", meta["name"]),
        _field("Namespace", meta["namespace"]),
        _field("Kind", r["kind"]),
        _field("Labels", ",".join(f"{k}={v}" for k, v in meta.get("labels", {}).items()) or "<none>"),
        _field("Created", meta["creationTimestamp"]),
        _field("Backend", status.get("backend", obj.backend)),
    ]
    out += _machine(app, statuses, obj, status) if obj.kind == "VMInstance" else _disk(obj, status)
    out.append("Conditions:")
    for c in status["conditions"]:
        note = f"  {tr(c['message'])}" if c["message"] else ""
        out.append(f"  {c['type']:<20}{c['status']:<9}{c['reason']}{note}")
    events = app.store.events(namespace=obj.namespace, obj=obj.ref)[-10:]
    out.append("Events:" if events else "Events:         <none>")
    from hikube_local.text import age

    out += [f"  {age(time.time() - t):<8}{e['type']:<12}{tr(e.get('message', ''))}" for _, t, e in events]
    return out


def _machine(app: App, statuses: Any, obj: Any, status: dict) -> list[str]:
    from hikube_local.cli import tables
    from hikube_local.render.machine import bus_of

    out = [
        _field("Status", status["printableStatus"]),
        _field("Boot phase", tr(status.get("phase", "<none>"))),
        _field("Instance type", obj.instance.instanceType or "<resources>"),
        _field("Profile", obj.instance.instanceProfile or "ubuntu"),
        _field("Run strategy", obj.instance.strategy),
        _field("Instance ID", status["instanceID"]),
        _field("Accelerator", tr(tables.accelerator(status, "<not started>"))),
        "Addresses:",
        *(f"  {a['type']:<14}{a['address']}" for a in status["addresses"]),
        tr(
            f"  (systemd-resolved in a guest refuses the tenant's names, as on Hikube: {document('troubleshooting.md')},"
        ),
        tr('  "A name of the tenant is refused")'),
        "Access:",
        *(f"  {str(a['port']) + '/' + a['protocol']:<14}{a['address']}:{a['hostPort']}" for a in status["access"]),
        f"  {'ssh':<14}hikube-local ssh{app.in_namespace(obj)} {obj.name}",
        f"  {'console':<14}hikube-local console{app.in_namespace(obj)} {obj.name}",
        tr("Disks, in boot order:"),
    ]
    disks = statuses.disks_of(obj)
    width = max((len(ref.name) for ref in obj.instance.disks), default=0) + 2
    for i, ref in enumerate(obj.instance.disks):
        disk, seen = disks[ref.name]
        optical = bool(disk and disk.disk.optical)
        origin = "manifest" if ref.bus else "optical" if optical else "profile"
        state = tr(seen.problem) or ("ready" if seen.exists else "not there")
        out.append(f"  {i + 1}. {ref.name:<{width}}{bus_of(obj.instance, i, optical)} ({origin}), {state}")
    if obj.instance.has_seed:
        out.append(tr("  then the cloud-init seed (NoCloud, label cidata)"))
    if status["differences"]:
        out.append(tr("Differences from Hikube:"))
        out += [f"  {d['code']}  {tr(d['message'])}" for d in status["differences"]]
    return out


def _disk(obj: Any, status: dict) -> list[str]:
    from hikube_local.plan.planner import source_words
    from hikube_local.text import size

    out = [
        _field("Phase", status["phase"]),
        _field("Source", tr(source_words(obj))),
        _field("Storage", obj.disk.storage),
        _field("Storage class", tr(f"{obj.disk.storageClass} (here: one file on this host)")),
        _field("Optical", str(obj.disk.optical).lower()),
    ]
    if "actualSize" in status:
        out.append(_field("On disk", f"{size(status['actualSize'])} ({status['format']})"))
    if "imageDigest" in status:
        out.append(_field("Image", status["imageDigest"]))
    return out
