"""Requests and answers as they travel: bodies read within bounds, selectors, tables, refusals, warnings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web

from hikube_local.api.selectors import IDENTITY, selector
from hikube_local.api.selectors import fields as field_selector
from hikube_local.errors import HikubeError
from hikube_local.kube import kinds, protobuf
from hikube_local.kube.kinds import Resource
from hikube_local.kube.sources import Form
from hikube_local.kube.status import Refused
from hikube_local.kube.tables import table
from hikube_local.source import nodes
from hikube_local.source.nodes import Refused as NotRead

Wanted = Callable[[Form], bool]
DIFFERS = "differs from Hikube"
WARNINGS = 30
# What can be selected by beside name and namespace (Kubernetes' own lists, as far as these fields are here).
_SELECTABLE = {
    kinds.EVENTS: (
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.uid",
        "reason",
        "type",
    ),
    kinds.PODS: ("spec.nodeName", "status.phase", "spec.restartPolicy"),
    kinds.SECRETS: ("type",),
    kinds.NAMESPACES: ("status.phase",),
    kinds.VMIS: ("status.phase", "status.nodeName"),
}


async def body(request: web.Request) -> Any:
    """What a request carries, as JSON or, where it says so, as YAML or protobuf; Refused where it is neither."""
    raw = await request.read()
    if not raw:
        return {}
    kind = request.content_type
    if raw.startswith(protobuf.MAGIC):
        return protobuf.read(raw)
    try:
        # A half of a surrogate pair is no text: as Go reads JSON, it becomes the replacement character.
        value = json.loads(raw)
        return _text(value) if b"\\u" in raw else value
    except (ValueError, RecursionError):
        if "yaml" not in kind:
            raise Refused(
                415 if "protobuf" in kind else 400, f"the body of the request is not valid {kind or 'JSON'}"
            ) from None
    text = nodes.decode("the request", raw)  # within the bounds of every manifest
    for node in nodes.documents(nodes.Text("the request", text), text, []):
        return node.data
    return {}


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_text(k): _text(v) for k, v in value.items()}
    return [_text(v) for v in value] if isinstance(value, list) else value


def wanted_by(request: web.Request, resource: Resource) -> Wanted:
    """What the request's selectors ask for."""
    labels = selector(request.query.get("labelSelector", ""))
    by_field = field_selector(request.query.get("fieldSelector", ""), (*IDENTITY, *_SELECTABLE.get(resource, ())))

    def wanted(form: Form) -> bool:
        def at(path: str) -> str:
            found: Any = form.value
            for step in path.split("."):
                found = found.get(step) if isinstance(found, dict) else None
            return "" if found is None else str(found)

        return labels(form.value["metadata"].get("labels") or {}) and by_field(at)

    return wanted


def as_table(request: web.Request) -> bool:
    first = request.headers.get("Accept", "").partition(",")[0]
    return "as=Table" in first


def answer(
    request: web.Request, resource: Resource, values: list[dict[str, Any]], revision: str, plain: Any
) -> web.Response:
    """Objects in the form that the client asked for: a table, or `plain`."""
    if as_table(request) and request.method == "GET":
        plain = table(resource, values, revision, request.query.get("includeObject", "Metadata"))
    return web.json_response(plain)


def refusal(e: Refused) -> web.Response:
    """The answer that says why not."""
    return web.json_response(e.as_json(), status=e.code)


# What clients make of the engine's codes: a state that stands against it, a request that is wrong, a host that cannot now.
_CODES = {
    **{"HK804": 404, "HK807": 409, "HK809": 409, "HK805": 409, "HK806": 409, "HK812": 410, "HK810": 400, "HK510": 422},
    **{"HK604": 500, "HK608": 500, "HK609": 503, "HK610": 503},
}


def translated(e: HikubeError | NotRead) -> Refused:
    """An error of the engine's as a refusal."""
    if isinstance(e, NotRead):
        return Refused(400, e.finding.message)
    code = _CODES.get(e.code, 422)
    words = "; ".join(filter(None, (e.what, e.why, e.fix)))
    return Refused(code, f"{words} [{e.code}]")


def differs(code: str, text: str) -> str:
    """The text of a warning about a difference from Hikube."""
    return f"{DIFFERS} [{code}]: {text}"


def warn(response: web.StreamResponse, texts: Iterable[str]) -> None:
    """A Warning header for each text, which kubectl prints; clients take some hundred headers and no more."""
    every = list(dict.fromkeys(texts))
    shown = every if len(every) <= WARNINGS else [*every[: WARNINGS - 1], f"and {len(every) - WARNINGS + 1} more"]
    for text in shown:
        response.headers.add("Warning", f'299 - "{_quoted(text)}"')


def _quoted(text: str) -> str:
    """The text of a Warning header (RFC 7234, 5.5): one line, its quotes escaped."""
    line = " ".join(text.split())[:400].replace("\\", "\\\\").replace('"', '\\"')
    return line.encode("ascii", "replace").decode()
