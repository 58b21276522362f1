"""Our objects as Cozystack's API server shows them, and what clients send as ours; pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hikube_local.api.names import LAST_APPLIED
from hikube_local.api.objects import API_VERSION, INSTANCE, SPECS, Object, RunStrategy
from hikube_local.api.shapes import plain_spec
from hikube_local.kube import messages
from hikube_local.kube.kinds import GROUP, Resource
from hikube_local.kube.status import Cause, Refused
from hikube_local.source.finding import Finding, Severity

if TYPE_CHECKING:  # it is loaded when a write is judged: the endpoint is to answer at once
    from hikube_local.manifests.validate import Known

MOST_OPERATIONS, MOST_BYTES = 1000, 3 << 20
MOST_APPLIED = 256 << 10  # what Kubernetes allows all annotations together
# Conditions of ours whose names are Cozystack's with another meaning there.
_OURS = ("Ready",)
# What the charts fill in where the shapes have nothing, and what an older form of a field leaves out.
_CHARTS = {"externalPorts": [22], "runStrategy": str(RunStrategy.ALWAYS)}
_OLD = ("subnets",)


def plain(obj: Object) -> dict[str, Any]:
    """What of an object its writers set, in one dialect: what ownership is about."""
    meta: dict[str, Any] = {"name": obj.name, "namespace": obj.namespace}
    meta |= {name: dict(value) for name in ("labels", "annotations") if (value := getattr(obj, name))}
    return {"apiVersion": API_VERSION, "kind": obj.kind, "metadata": meta, "spec": plain_spec(obj.spec)}


def one_dialect(resource: Resource, body: dict[str, Any]) -> dict[str, Any]:
    """What a client applies, in the dialect of `plain`."""
    spec = body.get("spec")
    if not isinstance(spec, dict):
        return body
    try:
        return {**body, "spec": _one_dialect(resource.kind, spec)}
    except (ValueError, TypeError):  # what is wrong with it is told when the whole is judged
        return body


def _one_dialect(kind: str, spec: Any) -> dict[str, Any]:
    """A spec in the dialect that the store keeps; ValueError where it is none."""
    from hikube_local.manifests.models import read_spec

    return plain_spec(read_spec(kind, spec))


def shown(resource: dict[str, Any], managed: list[dict[str, Any]] | None = None, failure: str = "") -> dict[str, Any]:
    """The object for clients: Cozystack's conditions first, ours beside them; the spec as its user wrote it.

    `failure`: why its chart failed, as Hikube says it.
    """
    out = deepcopy(resource)
    if managed:
        out["metadata"]["managedFields"] = managed
    status = out.get("status", {})
    ours = status.get("conditions", [])
    ready = next((c for c in ours if c["type"] == "Ready"), None)
    if failure:
        since = out["metadata"]["creationTimestamp"]
        told = {"status": "False", "reason": "InstallFailed", "message": failure, "lastTransitionTime": since}
        waits = {"status": "Unknown", "reason": "Pending", "message": "", "lastTransitionTime": since}
        failed = [{"type": "Ready", **told}, {"type": "Released", **told}, {"type": "WorkloadsReady", **waits}]
        status["conditions"] = failed
    elif ready is not None:
        since = out["metadata"]["creationTimestamp"]
        installed = {"status": "True", "reason": "InstallSucceeded", "message": "", "lastTransitionTime": since}
        up = ready["status"] == "True"
        words = (
            "All workloads are operational" if up else ready["message"] or "One or more workloads are not operational"
        )
        works = {
            **ready,
            "type": "WorkloadsReady",
            "reason": "Operational" if up else ready["reason"],
            "message": words,
        }
        rest = [c for c in ours if c["type"] not in _OURS]
        status["conditions"] = [{"type": "Ready", **installed}, {"type": "Released", **installed}, works, *rest]
    written = _written(out)
    out["spec"] = {**defaults(out["kind"], written), **written}
    return out


def defaults(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """What Cozystack's API server fills in on a read, for the fields that are not given (values.schema.json of its charts)."""
    out = {name: value for name, value in SPECS[kind].defaults().items() if name not in _OLD}
    if kind == INSTANCE:
        out |= deepcopy(_CHARTS)
        if "running" in spec:  # its older form says it already
            del out["runStrategy"]
    return out


def without_defaults(kind: str, spec: Any, stored: dict[str, Any]) -> Any:
    """What a client sends back of a spec that it read, without what was filled in for it."""
    if not isinstance(spec, dict):
        return spec
    filled = defaults(kind, stored)
    return {k: v for k, v in spec.items() if k in stored or k not in filled or v != filled[k]}


def _written(value: dict[str, Any]) -> dict[str, Any]:
    """The spec in the words of the last `kubectl apply`, where it says what is there: so a diff after it is empty."""
    text = value["metadata"].get("annotations", {}).get(LAST_APPLIED)
    if text:
        try:
            spec = json.loads(text)["spec"]
            if not isinstance(spec, dict):
                return dict(value["spec"])
            if _one_dialect(value["kind"], spec) == value["spec"]:
                return dict(spec)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
    return dict(value["spec"])


def read(
    resource: Resource,
    body: Any,
    namespace: str,
    name: str | None,
    known: Known,
    unknown: str,
    accepted: Callable[[list[Finding]], bool] = lambda errors: not errors,
) -> tuple[Object, list[str]]:
    """(the object, warnings) of what a client sent, judged as a manifest is; Refused with a cause a field.

    `name`: the one that the path has. `unknown`: what unknown fields are, in kubectl's words.
    `accepted`: whether an object with these errors is taken all the same.
    """
    if not isinstance(body, dict):
        raise Refused(400, "the body is not an object")
    body = {k: v for k, v in body.items() if k != "status"}
    body.setdefault("apiVersion", API_VERSION)
    body.setdefault("kind", resource.kind)
    if (body["apiVersion"], body["kind"]) != (API_VERSION, resource.kind):
        what = f"the body is {body['kind']} of {body['apiVersion']}, the path is for {resource.kind} of {API_VERSION}"
        raise Refused(400, what)
    meta = body.get("metadata")
    meta = dict(meta) if isinstance(meta, dict) else {}
    if meta.setdefault("namespace", namespace) != namespace:
        raise Refused(400, f"the object's namespace ({meta['namespace']}) does not match that on the URL ({namespace})")
    if name is not None and meta.setdefault("name", name) != name:
        raise Refused(400, f"the name of the object ({meta['name']}) does not match that on the URL ({name})")
    # The server's own fields are no manifest's.
    for field in (
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "managedFields",
        "selfLink",
    ):
        meta.pop(field, None)
    applied = None
    if isinstance(annotations := meta.get("annotations"), dict):
        annotations = dict(annotations)
        applied = annotations.pop(LAST_APPLIED, None)
        meta["annotations"] = annotations
    if not meta.get("annotations", True):
        del meta["annotations"]
    body["metadata"] = meta
    if applied is not None and not (isinstance(applied, str) and len(applied) <= MOST_APPLIED):
        raise Refused(422, f"metadata.annotations: {LAST_APPLIED} must be text of at most {MOST_APPLIED} characters")
    from hikube_local.manifests.validate import validate_one

    result = validate_one(body, "the request", namespace, known, unknown)
    errors = result.findings.of(Severity.ERROR)
    if not result.objects or not accepted(errors):
        label = body["metadata"].get("name", "")
        causes = tuple(Cause(f"{f.message} [{f.code}]" + (f": {f.help}" if f.help else ""), f.path) for f in errors)
        what = "; ".join(f"{c.field}: {c.message}" if c.field else c.message for c in causes)
        details = {"name": label, "group": GROUP, "kind": resource.kind}
        raise Refused(422, f'{resource.kind}.{GROUP} "{label}" is invalid: {what}', causes=causes, details=details)
    obj = result.objects[0].object
    if isinstance(applied, str):
        obj = replace(obj, annotations={**obj.annotations, LAST_APPLIED: applied})
    warnings = [
        messages.differs(f.code, f.message) if f.severity is Severity.DIFFERENCE else f"[{f.code}]: {f.message}"
        for f in result.findings.items
    ]
    return obj, warnings


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge_patch(out.get(key), value)
    return out


def json_patch(target: Any, patch: Any) -> Any:
    """RFC 6902; Refused where it cannot be applied."""
    import jsonpatch

    if not isinstance(patch, list) or len(patch) > MOST_OPERATIONS:
        raise Refused(400, f"a JSON patch is a list of at most {MOST_OPERATIONS} operations")
    target = deepcopy(target)
    try:
        for operation in patch:
            target = jsonpatch.apply_patch(target, [operation])
            # Copies of copies grow without end.
            if operation.get("op") == "copy" and len(json.dumps(target)) > MOST_BYTES:
                raise Refused(413, f"the patched object is larger than {MOST_BYTES} bytes")
        return target
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError, AttributeError) as e:
        raise Refused(422, f"the JSON patch cannot be applied: {e}") from None


PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "application/merge-patch+json": merge_patch,
    "application/json-patch+json": json_patch,
}
