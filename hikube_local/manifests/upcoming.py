"""Fields of the platform that are on their way (cozystack#3002, #3978, #4038, #4306 and its next charts); pure.

They are known, so that a manifest for the next release is read here today: what a laptop can do is done, the rest is told.
"""

from __future__ import annotations

from collections.abc import Iterator

from hikube_local.api import names
from hikube_local.api.objects import Object, VMDiskSpec, VMInstanceSpec
from hikube_local.source.finding import Finding, Path, Severity

_E, _D = Severity.ERROR, Severity.DIFFERENCE
TARGET = "default"  # the one endpoint that the chart publishes


def instance(spec: VMInstanceSpec) -> Iterator[Finding]:
    if spec.firmware is not None:
        yield _known("firmware", ("firmware",))
        loader, secure = spec.firmware.bootloader, spec.firmware.secureBoot
        if loader is not None and loader.lower() not in ("bios", "efi", "uefi"):
            what = f"unknown bootloader {loader[:60]!r}"
            yield Finding("HK304", _E, what, ("firmware", "bootloader"), "bios, uefi")
        elif secure and loader is not None and loader.lower() == "bios":
            what = "secureBoot needs EFI firmware, bootloader says bios"
            yield Finding("HK304", _E, what, ("firmware", "secureBoot"), "write bootloader: uefi")
    for i, disk in enumerate(spec.disks):
        if disk.hotpluggable:
            more = "here it works live on virtio and scsi"
            yield _known("disks[].hotpluggable", ("disks", i, "hotpluggable"), more)
        if disk.dvName:
            more = f"here the VMDisk {disk.name[:60]} is attached"
            yield _known("disks[].dvName", ("disks", i, "dvName"), more)
    yield from _networks(spec)
    yield from _addresses(spec)
    yield from _scheduling(spec)


def _networks(spec: VMInstanceSpec) -> Iterator[Finding]:
    if spec.netplanDhcp:
        more = "here it is done: the seed has the network-config"
        yield _known("netplanDhcp", ("netplanDhcp",), more)
        if not spec.has_seed:
            what = "netplanDhcp has no effect without sshKeys and cloudInit: the machine has no seed"
            yield Finding("HK516", _D, what, ("netplanDhcp",))
    where = "networks" if spec.networks else "subnets"
    for i, network in enumerate(spec.attached):
        if network.ipAddress:
            more = "here its DHCP gives an address of this host's own"
            yield _known(f"{where}[].ipAddress", (where, i, "ipAddress"), more)
    if not spec.primaryNetwork:
        return
    if spec.primaryNetwork not in {n.name for n in spec.attached}:
        what = f"primaryNetwork {spec.primaryNetwork[:60]!r} is not listed in networks: the chart refuses that"
        yield Finding("HK304", _E, what, ("primaryNetwork",), f"add it to {where}")
    else:
        more = "here the first network card is on the tenant's own network, as without it"
        yield _known("primaryNetwork", ("primaryNetwork",), more)


def _addresses(spec: VMInstanceSpec) -> Iterator[Finding]:
    if not spec.externalIPs:
        return
    if not spec.external:
        what = "externalIPs requires external: true: the chart refuses an address that nothing is reached at"
        yield Finding("HK304", _E, what, ("externalIPs",), "write external: true")
        return
    seen: set[str] = set()
    for i, one in enumerate(spec.externalIPs):
        if one.target != TARGET:
            what = f"externalIPs[{i}] targets {one.target[:60]!r}, which the chart does not publish"
            yield Finding("HK304", _E, what, ("externalIPs", i, "target"), f"write {TARGET}, or leave it out")
        elif one.target in seen:
            yield Finding("HK323", _E, f"externalIPs[{i}] targets {one.target!r} a second time", ("externalIPs", i))
        seen.add(one.target)
    yield _known("externalIPs", ("externalIPs",), "here the machine has its loopback address")


def _scheduling(spec: VMInstanceSpec | VMDiskSpec) -> Iterator[Finding]:
    if spec.schedulingClass:
        yield _known("schedulingClass", ("schedulingClass",), "here there is one host")


def disk(obj: Object) -> Iterator[Finding]:
    yield from _scheduling(obj.disk)
    if (pvc := obj.disk.source.pvc) is None:
        return
    path = ("source", "pvc")
    image, copy = pvc.name.startswith(names.IMAGE_VOLUME), pvc.name.startswith(names.DISK_VOLUME)
    there = pvc.namespace or obj.namespace
    if not names.DNS_1123.fullmatch(pvc.name.removeprefix(names.DISK_VOLUME)) and copy:
        yield Finding("HK312", _E, f"the volume {pvc.name[:60]!r} is no VMDisk's", (*path, "name"), "name a VMDisk")
    elif not image and not copy:
        what = f"the volume {pvc.name[:60]!r} is neither an image's nor a VMDisk's: here there are no others"
        help = f"name {names.DISK_VOLUME}DISK or {names.IMAGE_VOLUME}IMAGE, or use source.http, image or disk"
        yield Finding("HK312", _E, what, (*path, "name"), help)
    elif there != (names.IMAGES if image else obj.namespace):
        what = f"the volume {pvc.name[:60]!r} is not in namespace {there[:60]!r}"
        help = f"images are in {names.IMAGES}; a VMDisk is copied within its own namespace"
        yield Finding("HK312", _E, what, path, help)
    else:
        yield _known("source.pvc", path, "here it is the same as source.image and source.disk")


def _known(field: str, path: Path, more: str = "") -> Finding:
    what = f"{field} is an upcoming field of the platform"
    return Finding("HK516", _D, f"{what}; {more}" if more else what, path)
