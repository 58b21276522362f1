"""OpenAPI, version 3 and 2: what `kubectl explain` shows, and by what clients learn the fields of our kinds; pure."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from hikube_local.kube import kinds
from hikube_local.kube.kinds import Resource

Schema = dict[str, Any]
META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA: Schema = {
    "type": "object",
    "description": "Standard object metadata.",
    "properties": {
        "name": {"type": "string", "description": "Name, unique within the namespace."},
        "generateName": {"type": "string"},
        "namespace": {"type": "string"},
        "labels": _TEXTS,
        "annotations": _TEXTS,
        "uid": {"type": "string"},
        "resourceVersion": {"type": "string"},
        "generation": {"type": "integer", "format": "int64"},
        "creationTimestamp": {"type": "string", "format": "date-time"},
        "deletionTimestamp": {"type": "string", "format": "date-time"},
        "finalizers": {"type": "array", "items": {"type": "string"}},
        "ownerReferences": {"type": "array", "items": {"type": "object"}},
        "managedFields": {"type": "array", "items": {"type": "object"}},
    },
}
_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
# Of kinds that are none of ours, the parts beside metadata.
_PARTS: dict[Resource, Schema] = {
    kinds.SECRETS: {"data": _TEXTS, "stringData": _TEXTS, "type": {"type": "string"}, "immutable": {"type": "boolean"}},
    kinds.CONFIGMAPS: {"data": _TEXTS, "binaryData": _TEXTS, "immutable": {"type": "boolean"}},
    kinds.OPTIONS: {"spec": _OPEN},
    kinds.EVENTS: {
        **{name: {"type": "string"} for name in ("reason", "message", "type", "firstTimestamp", "lastTimestamp")},
        "count": {"type": "integer"},
        "involvedObject": _OPEN,
        "source": _OPEN,
    },
    kinds.POD_METRICS: {
        "timestamp": {"type": "string"},
        "window": {"type": "string"},
        "containers": {"type": "array", "items": _OPEN},
    },
    kinds.NODE_METRICS: {"timestamp": {"type": "string"}, "window": {"type": "string"}, "usage": _OPEN},
}
_PREFIX = {kinds.GROUP: "io.cozystack.apps", "": "io.k8s.api.core"}


def _name(r: Resource) -> str:
    prefix = _PREFIX.get(r.group) or ".".join(reversed(r.group.split(".")))
    return f"{prefix}.{r.version}.{r.kind}"


def index(hash: str) -> Schema:
    """GET /openapi/v3."""
    paths = {r.base.strip("/"): {"serverRelativeURL": f"/openapi/v3{r.base}?hash={hash}"} for r in kinds.ALL}
    return {"paths": paths}


def v3(group: str, version: str) -> Schema | None:
    """The schemas and paths of one group."""
    found = [r for r in kinds.of_group(group) if r.version == version]
    if not found:
        return None
    schemas: Schema = {META: _METADATA}
    paths: Schema = {}
    for r in found:
        schemas[_name(r)] = _kind(r)
        paths |= _paths(r)
    return {
        "openapi": "3.0.0",
        "info": {"title": "hikube-local", "version": version},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def v2() -> Schema:
    """All of it in the older form, which Terraform's kubernetes_manifest reads."""
    definitions: Schema = {META: _METADATA}
    paths: Schema = {}
    for r in kinds.ALL:
        definitions[_name(r)] = _kind(r)
        for path, item in _paths(r).items():
            paths[path] = {verb: _operation_v2(r, operation) for verb, operation in item.items()}
    whole = {
        "swagger": "2.0",
        "info": {"title": "hikube-local", "version": "v1"},
        "paths": paths,
        "definitions": definitions,
    }
    out: Schema = json.loads(json.dumps(whole).replace("#/components/schemas/", "#/definitions/"))
    return out


def _operation_v2(r: Resource, operation: Schema) -> Schema:
    ref = {"$ref": f"#/definitions/{_name(r)}"}
    out = {k: v for k, v in operation.items() if k.startswith("x-")}
    parameters = [{"name": p["name"], "in": "query", "type": "string"} for p in operation.get("parameters", ())]
    if "requestBody" in operation:
        parameters.append({"name": "body", "in": "body", "required": True, "schema": ref})
        out["consumes"] = sorted(operation["requestBody"]["content"])
    return {
        **out,
        "parameters": parameters,
        "produces": ["application/json"],
        "responses": {"200": {"description": "OK", "schema": ref}},
    }


def _gvk(r: Resource) -> Schema:
    return {"group": r.group, "version": r.version, "kind": r.kind}


def _kind(r: Resource) -> Schema:
    meta = {"allOf": [{"$ref": f"#/components/schemas/{META}"}]}
    properties: Schema = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": meta}
    about: Schema = {"type": "object", "x-kubernetes-group-version-kind": [_gvk(r)]}
    if r.own:
        from hikube_local.manifests.schema import schema_of

        part = schema_of(r.kind)
        about["description"] = part["description"]
        properties |= {"spec": _structural(part["properties"]["spec"]), "status": _OPEN}
    else:
        about["description"] = f"{r.kind} ({r.api_version})."
        properties |= _PARTS.get(r, {"spec": _OPEN, "status": _OPEN})
    return {**about, "properties": properties}


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


def _paths(r: Resource) -> Schema:
    base = f"{r.base}/namespaces/{{namespace}}/{r.plural}" if r.namespaced else f"{r.base}/{r.plural}"
    names = ("dryRun", "fieldManager", "fieldValidation")
    query = [{"name": n, "in": "query", "schema": {"type": "string"}} for n in names]
    body = {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{_name(r)}"}}}}

    def operation(verb: str, **more: Any) -> Schema:
        return {
            "x-kubernetes-action": verb,
            "x-kubernetes-group-version-kind": _gvk(r),
            "responses": {"200": {"description": "OK", **body}},
            **more,
        }

    types = ("application/merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml")
    patches = {kind: {"schema": {"type": "object"}} for kind in types}
    written = {"parameters": query, "requestBody": body}
    every = {
        "list": ("get", operation("list")),
        "create": ("post", operation("post", **written)),
    }
    one = {
        "get": ("get", operation("get")),
        "update": ("put", operation("put", **written)),
        "patch": ("patch", operation("patch", parameters=query, requestBody={"content": patches})),
        "delete": ("delete", operation("delete")),
    }
    out = {}
    for path, verbs in ((base, every), (f"{base}/{{name}}", one)):
        if item := {method: made for verb, (method, made) in verbs.items() if verb in r.verbs}:
            out[path] = item
    return out
