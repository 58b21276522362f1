"""What a request is about, read from its path as Kubernetes reads it (apiserver's RequestInfo); pure."""

from __future__ import annotations

from collections.abc import Mapping

from hikube_local.kube import kinds
from hikube_local.kube.kinds import Resource
from hikube_local.kube.query import flag
from hikube_local.records import dataclass

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True, slots=True)
class Target:
    """`namespace` and `name`: empty where the path has none; `subresource`: what comes after the name, with its slashes."""

    verb: str
    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def resource(self) -> Resource | None:
        """The kind, where it is one that we serve."""
        return next(
            (r for r in kinds.ALL if (r.group, r.version, r.plural) == (self.group, self.version, self.plural)), None
        )

    @property
    def what(self) -> str:
        """The resource as access is granted to it: with its subresource, of a port to forward but the first word."""
        below = self.subresource
        if below.startswith("portforward/"):
            below = "portforward"
        return f"{self.plural}/{below}" if below else self.plural


def parse(method: str, path: str, query: Mapping[str, str]) -> Target | None:
    """None where the path is not one of a resource."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, rest = "", parts[1:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, rest = parts[1], parts[2:]
    else:
        return None
    version, rest = rest[0], rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    plural, name, sub = rest[0], rest[1] if len(rest) > 1 else "", "/".join(rest[2:])
    if method in ("GET", "HEAD"):
        verb = "watch" if flag(query, "watch") else "get" if name else "list"
    elif method == "DELETE":
        verb = "delete" if name else "deletecollection"
    else:
        verb = _VERBS.get(method, method.lower())
    return Target(verb, group, version, plural, namespace, name, sub)
