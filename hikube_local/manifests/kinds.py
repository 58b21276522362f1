"""Which documents are ours, which are passed over, and which were meant to be ours."""

from __future__ import annotations

from enum import StrEnum

from hikube_local.api.objects import API_VERSION, DISK, GROUP, INSTANCE
from hikube_local.source.finding import Finding, Severity

# The platform's other applications (cozystack's packages/apps): nothing that this program makes.
PLATFORM = frozenset(
    [
        "BootBox",
        "Bucket",
        "ClickHouse",
        "ComputePlane",
        "Etcd",
        "ExternalDNS",
        "FoundationDB",
        "Harbor",
        "HTTPCache",
        "Info",
        "Ingress",
        "Kafka",
        "Kubernetes",
        "KubernetesNodes",
        "MariaDB",
        "MongoDB",
        "Monitoring",
        "NATS",
        "OpenBAO",
        "OpenSearch",
        "Postgres",
        "Qdrant",
        "RabbitMQ",
        "Redis",
        "SeaweedFS",
        "TCPBalancer",
        "Tenant",
        "VirtualPrivateCloud",
        "VPN",
    ]
)
RETIRED = "VirtualMachine"
_NEAR = 0.78


class Role(StrEnum):
    """What a document is to us; `OTHER` is passed over."""

    OURS = "ours"
    LIST = "list"
    OTHER = "other"


def _refused(code: str, message: str, help: str, field: str = "kind") -> Finding:
    return Finding(code, Severity.ERROR, message, (field,), help)


def _ratio(a: str, b: str) -> float:
    from difflib import SequenceMatcher

    return SequenceMatcher(None, a.lower(), b.lower()).ratio()


def _strange(text: str) -> str:
    odd = [c for c in text if not c.isascii()]
    return f" (it holds the character U+{ord(odd[0]):04X}, which only looks like a Latin letter)" if odd else ""


def judge(api_version: str, kind: str) -> Role | Finding:
    """What a document with this apiVersion and kind is to us, or why it is refused, at the field that is wrong."""
    group = api_version.rpartition("/")[0]
    base = kind.removesuffix("List")
    if kind == "List" or (kind != base and base in (INSTANCE, DISK)):
        return Role.LIST
    if kind in (INSTANCE, DISK):
        if api_version == API_VERSION:
            return Role.OURS
        message = f"{kind} belongs to {API_VERSION}, not {api_version[:60]!r}{_strange(api_version)}"
        return _refused("HK203", message, f"write apiVersion: {API_VERSION}", "apiVersion")
    near = max((INSTANCE, DISK), key=lambda k: _ratio(k, kind))
    if group == GROUP or (_ratio(group, GROUP) > 0.85 and group != "backups.cozystack.io"):
        if kind in PLATFORM:
            return Role.OTHER
        if kind == RETIRED:
            return _refused(
                "HK208",
                f"the kind {RETIRED} of {GROUP} was retired in February 2026",
                "hikube-local convert FILE prints the VMDisk and the VMInstance that replace it",
            )
        close = _ratio(near, kind) > 0.5
        help = f"did you mean {near}?" if close else f"the kinds of virtual machines are {INSTANCE} and {DISK}"
        return _refused("HK202", f"unknown kind {kind[:60]!r} of {GROUP}{_strange(kind)}", help)
    if _ratio(near, kind) >= _NEAR and not group.endswith("kubevirt.io"):
        return _refused(
            "HK202",
            f"unknown kind {kind[:60]!r} of {api_version[:60]!r}{_strange(kind)}",
            f"did you mean kind: {near} with apiVersion: {API_VERSION}?",
        )
    return Role.OTHER
