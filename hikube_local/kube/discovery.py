"""What the endpoint says that it has: groups, resources, the version, schemas; pure. What is absent is in no list."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hikube_local.api.objects import API_VERSION
from hikube_local.kube.kinds import GROUP, RESOURCES, VERSION, Resource
from hikube_local.manifests.schema import schema_of

VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
# Of the Kubernetes that Cozystack runs on: a client far from it warns of the distance.
MINOR = "33"
_AGGREGATED = "apidiscovery.k8s.io"
LOOKS = ["get", "list"]
CORE = (("events", "event", "Event", True, "ev"), ("namespaces", "namespace", "Namespace", False, "ns"))


def version() -> dict[str, str]:
    return {"major": "1", "minor": MINOR, "gitVersion": f"v1.{MINOR}.0+hikube-local", "platform": "linux/amd64"}


def wants_aggregated(accept: str) -> bool:
    return "g=apidiscovery.k8s.io" in accept and "v=v2;" in accept.replace(" ", "") + ";"


def groups() -> dict[str, Any]:
    """GET /apis for a client that asks group by group."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]}


def group() -> dict[str, Any]:
    version = {"groupVersion": API_VERSION, "version": VERSION}
    return {"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version}


def subresources() -> dict[str, Any]:
    """KubeVirt's group of subresources, which virtctl asks for before its version; in no list of groups."""
    version = {"groupVersion": "subresources.kubevirt.io/v1", "version": "v1"}
    group = {"kind": "APIGroup", "apiVersion": "v1", "name": "subresources.kubevirt.io"}
    return {**group, "versions": [version], "preferredVersion": version}


def kubevirt_version() -> dict[str, str]:
    return {"gitVersion": "v1.8.0+hikube-local", "goVersion": "", "platform": "linux/amd64"}


def core_versions() -> dict[str, Any]:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def resources() -> dict[str, Any]:
    rows = [
        {"name": r.plural, "singularName": r.singular, "namespaced": True, "kind": r.kind, "verbs": VERBS}
        for r in RESOURCES.values()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": rows}


def core_resources() -> dict[str, Any]:
    rows = [
        {
            "name": plural,
            "singularName": singular,
            "namespaced": namespaced,
            "kind": kind,
            "verbs": LOOKS,
            "shortNames": [short],
        }
        for plural, singular, kind, namespaced, short in CORE
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": rows}


def aggregated(core: bool) -> dict[str, Any]:
    """Both of the above in one answer: kubectl's own way since 1.27."""
    if core:
        rows = [
            _aggregated("", "v1", kind, plural, singular, namespaced, LOOKS) | {"shortNames": [short]}
            for plural, singular, kind, namespaced, short in CORE
        ]
        items = [_group("", "v1", rows)]
    else:
        own = [_aggregated(GROUP, VERSION, r.kind, r.plural, r.singular, True, VERBS) for r in RESOURCES.values()]
        items = [_group(GROUP, VERSION, own)]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": f"{_AGGREGATED}/v2", "metadata": {}, "items": items}


def _group(name: str, version: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    metadata = {"name": name} if name else {}
    return {"metadata": metadata, "versions": [{"version": version, "resources": rows, "freshness": "Current"}]}


def _aggregated(
    group: str, version: str, kind: str, plural: str, singular: str, namespaced: bool, verbs: list[str]
) -> dict[str, Any]:
    return {
        "resource": plural,
        "responseKind": {"group": group, "version": version, "kind": kind},
        "scope": "Namespaced" if namespaced else "Cluster",
        "singularResource": singular,
        "verbs": verbs,
    }


def openapi_index(hash: str) -> dict[str, Any]:
    path = f"apis/{API_VERSION}"
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={hash}"}}}


def openapi() -> dict[str, Any]:
    """OpenAPI v3 of our kinds: what `kubectl explain` shows, and by what it knows that the server checks the fields."""
    schemas: dict[str, Any] = {"io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": _METADATA}
    paths: dict[str, Any] = {}
    for r in RESOURCES.values():
        name = f"io.cozystack.apps.{VERSION}.{r.kind}"
        schemas[name] = _kind(r)
        paths |= _paths(r, name)
    return {
        "openapi": "3.0.0",
        "info": {"title": "hikube-local", "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }


_METADATA = {
    "type": "object",
    "description": "Standard object metadata.",
    "properties": {
        "name": {"type": "string", "description": "Name, unique within the namespace."},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "uid": {"type": "string"},
        "resourceVersion": {"type": "string"},
        "creationTimestamp": {"type": "string", "format": "date-time"},
    },
}


def _gvk(kind: str) -> list[dict[str, str]]:
    return [{"group": GROUP, "version": VERSION, "kind": kind}]


def _kind(r: Resource) -> dict[str, Any]:
    part = schema_of(r.kind)
    spec = _structural(part["properties"]["spec"])
    meta = {"allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]}
    return {
        "type": "object",
        "description": part["description"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": meta,
            "spec": spec,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
        "x-kubernetes-group-version-kind": _gvk(r.kind),
    }


def _structural(part: dict[str, Any]) -> dict[str, Any]:
    """The form that clients want: no `or null`, one type each, a quantity as text or number."""
    options = [o for o in part.get("anyOf", [part]) if o.get("type") != "null"]
    found = deepcopy(next((o for o in options if "properties" in o), options[-1]))
    if description := part.get("description"):
        found.setdefault("description", description)
    found.pop("title", None)
    found.pop("additionalProperties", None) if "properties" in found else None
    if isinstance(found.get("type"), list):
        found.pop("type")
        found["x-kubernetes-int-or-string"] = True
    if "items" in found:
        found["items"] = _structural(found["items"])
    if "properties" in found:
        found["properties"] = {name: _structural(field) for name, field in found["properties"].items()}
    found.pop("anyOf", None)
    return found


def _paths(r: Resource, schema: str) -> dict[str, Any]:
    base = f"/apis/{API_VERSION}/namespaces/{{namespace}}/{r.plural}"
    query = [
        {"name": n, "in": "query", "schema": {"type": "string"}} for n in ("dryRun", "fieldManager", "fieldValidation")
    ]
    body = {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}

    def operation(verb: str, **more: Any) -> dict[str, Any]:
        return {
            "x-kubernetes-action": verb,
            "x-kubernetes-group-version-kind": _gvk(r.kind)[0],
            "responses": {"200": {"description": "OK", **body}},
            **more,
        }

    patches = {
        kind: {"schema": {"type": "object"}}
        for kind in ("application/merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml")
    }
    return {
        base: {"get": operation("list"), "post": operation("post", parameters=query, requestBody=body)},
        f"{base}/{{name}}": {
            "get": operation("get"),
            "put": operation("put", parameters=query, requestBody=body),
            "patch": operation("patch", parameters=query, requestBody={"content": patches}),
            "delete": operation("delete"),
        },
    }
