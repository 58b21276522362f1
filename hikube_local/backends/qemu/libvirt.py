"""The connection to the libvirt that runs the machines; libvirt's own errors in words."""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from typing import Any

from hikube_local import log
from hikube_local.errors import HikubeError
from hikube_local.plan.steps import RunState
from hikube_local.render.domain import ALIAS
from hikube_local.text import sanitize


def module() -> Any:
    """libvirt's Python binding, or HK605 with the line that installs it."""
    try:
        import libvirt
    except ImportError:
        from hikube_local.host.doctor import BINDING

        raise HikubeError("HK605", "libvirt's Python binding is missing", fix=BINDING) from None
    log.watch(libvirt)
    libvirt.registerErrorHandler(lambda context, error: None, None)
    return libvirt


def connect(uri: str) -> Any:
    lv = module()
    try:
        return lv.open(uri)
    except lv.libvirtError as e:
        raise translated(e, "libvirt does not answer") from None


# Ubuntu's profile lets swtpm reach its sockets in a few places alone (/etc/apparmor.d/usr.bin.swtpm), ours not among them.
SWTPM = (
    "where AppArmor has a profile for swtpm: echo 'owner /run/user/*/hikube-local/** rwk,' | sudo tee -a"
    " /etc/apparmor.d/local/usr.bin.swtpm && sudo apparmor_parser -r /etc/apparmor.d/usr.bin.swtpm; else: sudo apt-get"
    " install swtpm swtpm-tools"
)


def translated(error: Any, what: str) -> HikubeError:
    """A libvirt error as ours: what was tried, libvirt's words, and a remedy where one is known."""
    said = sanitize(str(error))[:600]
    fix = ""
    for part, remedy in (
        ("Permission denied", "QEMU's user cannot access a folder: hikube-local doctor"),
        ("Cannot access storage file", "a disk's file is missing: hikube-local describe vmdisk NAME"),
        ('Failed to get "write" lock', "another QEMU uses the disk"),
        ("Cannot allocate memory", "free memory, or choose a smaller instanceType"),
        ("swtpm", SWTPM),
        ("virtlogd", "virtlogd is not running: run the command again"),
    ):
        if part in said:
            fix = remedy
            break
    return HikubeError("HK801", what, said, fix)


def domain(connection: Any, name: str) -> Any | None:
    lv = module()
    try:
        return connection.lookupByName(name)
    except lv.libvirtError as e:
        if e.get_error_code() == lv.VIR_ERR_NO_DOMAIN:
            return None
        raise translated(e, f"libvirt could not look up {name}") from None


def state(dom: Any) -> tuple[RunState, bool]:
    """What the domain is doing, and whether it ended by its own shutdown."""
    lv = module()
    now, reason = dom.state()
    if now in (lv.VIR_DOMAIN_RUNNING, lv.VIR_DOMAIN_BLOCKED, lv.VIR_DOMAIN_SHUTDOWN):
        return RunState.RUNNING, False
    if now == lv.VIR_DOMAIN_PAUSED and reason in (lv.VIR_DOMAIN_PAUSED_UNKNOWN, lv.VIR_DOMAIN_PAUSED_CRASHED):
        # libvirt has one word for what it does not know and for QEMU's own errors: QEMU tells them apart.
        return RunState.FAILED if qemu_status(dom) in BROKEN else RunState.PAUSED, False
    if now in (lv.VIR_DOMAIN_PAUSED, lv.VIR_DOMAIN_PMSUSPENDED):
        return RunState.PAUSED, False
    if now == lv.VIR_DOMAIN_CRASHED or (
        now == lv.VIR_DOMAIN_SHUTOFF and reason in (lv.VIR_DOMAIN_SHUTOFF_CRASHED, lv.VIR_DOMAIN_SHUTOFF_FAILED)
    ):
        return RunState.CRASHED, False
    return RunState.SHUTOFF, reason == lv.VIR_DOMAIN_SHUTOFF_SHUTDOWN


# QEMU's RunState (qapi/run-state.json) of a machine that cannot go on.
BROKEN = ("internal-error", "guest-panicked", "watchdog")


def qemu_status(dom: Any) -> str:
    """QEMU's own word for what the machine does, or an empty string."""
    import json

    import libvirt_qemu

    try:
        said = libvirt_qemu.qemuMonitorCommand(dom, '{"execute": "query-status"}', 0)
        return str(json.loads(said)["return"]["status"])
    except (module().libvirtError, ValueError, KeyError, TypeError):
        return ""


def disks(domain: str | ET.Element) -> dict[str, ET.Element]:
    """The <disk> elements of a domain by the names that render/domain.py gave them (their aliases)."""
    found = {}
    root = ET.fromstring(domain) if isinstance(domain, str) else domain
    for element in root.findall("devices/disk"):
        alias = element.find("alias")
        if alias is not None and alias.get("name", "").startswith(ALIAS):
            found[alias.get("name", "").removeprefix(ALIAS)] = element
    return found


def chain(xml: str, name: str) -> list[str]:
    """The files of one disk that a running domain has open, from the top."""
    element: ET.Element | None = disks(xml).get(name) if xml else None
    found = []
    while element is not None:
        source = element.find("source")
        if source is not None:
            found.append(source.get("file", "").rpartition("/")[2])
        element = element.find("backingStore")
    return found


def device(disk: ET.Element) -> str:
    """What libvirt calls a disk of a domain: vda, sdb."""
    target = disk.find("target")
    return "" if target is None else target.get("dev", "")


def ends(dom: Any, again: bool) -> None:
    """Whether a running domain whose guest powers itself off starts again (runStrategy Always) or stays off."""
    lv = module()
    action = lv.VIR_DOMAIN_LIFECYCLE_ACTION_RESTART if again else lv.VIR_DOMAIN_LIFECYCLE_ACTION_DESTROY
    with contextlib.suppress(lv.libvirtError):
        dom.setLifecycleAction(lv.VIR_DOMAIN_LIFECYCLE_POWEROFF, action, lv.VIR_DOMAIN_AFFECT_LIVE)


def switch_off(dom: Any) -> None:
    """As by pulling the plug; one that ended by itself meanwhile is off too."""
    try:
        dom.destroy()
    except module().libvirtError:
        if dom.isActive():
            raise


def stopped_by_disk(dom: Any) -> bool:
    """Whether QEMU paused the machine because a disk of it could not be written (error_policy stop)."""
    lv = module()
    now, reason = dom.state()
    return bool(now == lv.VIR_DOMAIN_PAUSED and reason == lv.VIR_DOMAIN_PAUSED_IOERROR)
