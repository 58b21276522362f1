"""What the endpoint says that it has: groups, resources, the version; pure. What is absent is in no list."""

from __future__ import annotations

from typing import Any

from hikube_local.kube import kinds
from hikube_local.kube.kinds import Resource

# Of the Kubernetes that Cozystack runs on: a client far from it warns of the distance.
MINOR = "33"
_AGGREGATED = "apidiscovery.k8s.io"
# What stands below objects of a kind and is asked for by name there.
_BELOW: dict[Resource, tuple[tuple[str, str, tuple[str, ...]], ...]] = {kinds.PODS: (("log", "Pod", ("get",)),)}


def version() -> dict[str, str]:
    about = {"major": "1", "minor": MINOR, "gitVersion": f"v1.{MINOR}.0+hikube-local", "platform": "linux/amd64"}
    # Typed clients want text for each field that Kubernetes has.
    return {**about, **dict.fromkeys(("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler"), "")}


def kubevirt_version() -> dict[str, str]:
    return {"gitVersion": "v1.8.0+hikube-local", "goVersion": "", "platform": "linux/amd64"}


def aggregated_as(accept: str) -> str:
    """The version of aggregated discovery that a client takes, or nothing: then it asks group by group."""
    for part in accept.replace(" ", "").split(","):
        if f"g={_AGGREGATED}" in part:
            for name in ("v2", "v2beta1"):
                if f"v={name}" in part.split(";"):
                    return name
    return ""


def core_versions() -> dict[str, Any]:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups() -> dict[str, Any]:
    """GET /apis for a client that asks group by group."""
    rows = [_group(g, v) for g, v in kinds.groups().items()]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": rows}


def group(name: str) -> dict[str, Any] | None:
    """One group; KubeVirt's of subresources is in no list, and virtctl asks for it before its version."""
    version = {**kinds.groups(), kinds.SUBRESOURCES: "v1"}.get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, version)} if version else None


def _group(name: str, version: str) -> dict[str, Any]:
    row = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [row], "preferredVersion": row}


def resources(name: str, version: str) -> dict[str, Any] | None:
    """The resources of one group, the core one by its empty name."""
    found = [r for r in kinds.of_group(name) if r.version == version]
    rows: list[dict[str, Any]] = []
    for r in found:
        short: dict[str, Any] = {"shortNames": list(r.short)} if r.short else {}
        if r.categories:
            short["categories"] = list(r.categories)
        about = {"namespaced": r.namespaced, "singularName": r.singular}
        rows.append({"name": r.plural, "kind": r.kind, "verbs": list(r.verbs), **about, **short})
        for below, kind, verbs in _BELOW.get(r, ()):
            rows.append({"name": f"{r.plural}/{below}", "kind": kind, "verbs": list(verbs), **about})
    if not found:
        return None
    at = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": at, "resources": rows}


def aggregated(core: bool, as_version: str) -> dict[str, Any]:
    """All of the above in one answer: kubectl's own way since 1.27."""
    names = {"": "v1"} if core else kinds.groups()
    items = []
    for name, version in names.items():
        rows = [_row(r) for r in kinds.of_group(name)]
        metadata = {"name": name} if name else {}
        versions = [{"version": version, "resources": rows, "freshness": "Current"}]
        items.append({"metadata": metadata, "versions": versions})
    at = f"{_AGGREGATED}/{as_version}"
    return {"kind": "APIGroupDiscoveryList", "apiVersion": at, "metadata": {}, "items": items}


def _row(r: Resource) -> dict[str, Any]:
    out: dict[str, Any] = {
        "resource": r.plural,
        "responseKind": {"group": r.group, "version": r.version, "kind": r.kind},
        "scope": "Namespaced" if r.namespaced else "Cluster",
        "singularResource": r.singular,
        "verbs": list(r.verbs),
    }
    if r.short:
        out["shortNames"] = list(r.short)
    if r.categories:
        out["categories"] = list(r.categories)
    if below := _BELOW.get(r):
        out["subresources"] = [
            {
                "subresource": name,
                "responseKind": {"group": r.group, "version": r.version, "kind": kind},
                "verbs": list(verbs),
            }
            for name, kind, verbs in below
        ]
    return out
