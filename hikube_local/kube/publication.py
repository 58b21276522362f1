"""The endpoint's own pages: versions, discovery, OpenAPI."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

from aiohttp import web

from hikube_local.kube import discovery, openapi
from hikube_local.kube.status import MISSING, Refused

# With a dot where clients ask with an at sign: Go refuses to read that one.
_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


class Publication:
    """GET of a path that is none of a resource. What is large is made once, when it is first asked for."""

    def answer(self, request: web.Request) -> web.Response:
        """The page, or 404; 405 for another verb."""
        if request.method not in ("GET", "HEAD"):
            raise Refused(405 if request.path.strip("/") else 404, f"{request.method} is not allowed at {request.path}")
        accept = request.headers.get("Accept", "")
        as_version = discovery.aggregated_as(accept)
        match request.path.strip("/").split("/"):
            case ["version"]:
                found: Any = discovery.version()
            case ["api" | "apis" as word] if as_version:
                kind = f"application/json;g=apidiscovery.k8s.io;v={as_version};as=APIGroupDiscoveryList"
                body = json.dumps(discovery.aggregated(word == "api", as_version)).encode()
                return web.Response(body=body, headers={"Content-Type": kind})
            case ["api"]:
                found = discovery.core_versions()
            case ["apis"]:
                found = discovery.groups()
            case ["api", version]:
                found = discovery.resources("", version)
            case ["apis", group]:
                found = discovery.group(group)
            case ["apis", group, version]:
                found = discovery.resources(group, version)
            case ["openapi", "v2"] if "proto" in accept:  # an empty document: kubectl looks at v3 for the rest
                return web.Response(body=b"", headers={"Content-Type": _PROTOBUF})
            case ["openapi", "v2"]:
                return web.Response(body=self._v2, content_type="application/json")
            case ["openapi", "v3"]:
                found = openapi.index(self._hash)
            case ["openapi", "v3", "api", version]:
                found = self._v3("", version)
            case ["openapi", "v3", "apis", group, version]:
                found = self._v3(group, version)
            case _:
                found = None
        if found is None:
            raise Refused(404, MISSING)
        return web.json_response(found)

    @functools.cached_property
    def _v2(self) -> bytes:
        return json.dumps(openapi.v2()).encode()

    @functools.cached_property
    def _hash(self) -> str:
        return hashlib.sha256(self._v2).hexdigest()[:16]

    @staticmethod
    @functools.cache
    def _v3(group: str, version: str) -> Any:
        return openapi.v3(group, version)
