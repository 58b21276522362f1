"""Who may do what: the roles of a tenant's users on Hikube, and an operator who may do everything; pure.

After Cozystack's packages/system/cozystack-basics (August 2026): each role has what the one before it has.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from hikube_local.kube import kinds
from hikube_local.kube.paths import Target
from hikube_local.kube.status import Refused
from hikube_local.records import dataclass

WATCHED = frozenset(kinds.LOOKS)
WRITES = frozenset(("create", "update", "patch", "delete"))


class Role(StrEnum):
    VIEW = "view"
    USE = "use"
    ADMIN = "admin"
    SUPER = "super-admin"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Rule:
    """These verbs on these resources of a group; `prefix`: on objects whose name begins so alone."""

    group: str
    resources: frozenset[str]
    verbs: frozenset[str]
    prefix: str = ""

    def covers(self, target: Target) -> bool:
        return (
            target.group == self.group
            # A tenant's roles are bound in its namespaces: nobody lists all of them at once.
            and (bool(target.namespace) or self in _BASIC)
            and ("*" in self.resources or target.what in self.resources)
            and ("*" in self.verbs or target.verb in self.verbs)
            and target.name.startswith(self.prefix)
        )

    def as_json(self) -> dict[str, Any]:
        """As `kubectl auth can-i --list` shows it."""
        return {"verbs": sorted(self.verbs), "apiGroups": [self.group], "resources": sorted(self.resources)}


def _rule(group: str, resources: str, verbs: str | frozenset[str], prefix: str = "") -> Rule:
    found = frozenset(verbs.split()) if isinstance(verbs, str) else verbs
    return Rule(group, frozenset(resources.split()), found, prefix)


# Everybody who is known may ask what he may.
_BASIC = (_rule("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", "create"),)
_ADDED: dict[Role, tuple[Rule, ...]] = {
    Role.VIEW: (
        _rule(kinds.GROUP, "*", WATCHED),
        _rule(kinds.OPTIONS.group, "options", WATCHED),
        _rule("", "pods services persistentvolumes endpoints events resourcequotas", WATCHED),
    ),
    Role.USE: (
        _rule(kinds.SUBRESOURCES, "virtualmachineinstances/console virtualmachineinstances/vnc", "get list"),
        _rule(kinds.SUBRESOURCES, "virtualmachineinstances/portforward", "get update"),
        _rule(
            kinds.SUBRESOURCES,
            "virtualmachines/start virtualmachines/stop virtualmachines/restart",
            "update",
        ),
        _rule("cdi.kubevirt.io", "datavolumes", WATCHED, "vm-disk-"),
    ),
    Role.ADMIN: (
        _rule(kinds.GROUP, "vminstances vmdisks", WRITES),
        _rule("kubevirt.io", "virtualmachines", "get list"),
        _rule("", "pods services events", "delete"),
    ),
    Role.SUPER: (_rule(kinds.GROUP, "*", "*"), _rule("kubevirt.io", "virtualmachines", "*")),
}


def rules(role: Role) -> tuple[Rule, ...]:
    """All that a role has; empty for the operator, who needs none."""
    if role is Role.OPERATOR:
        return ()
    order = list(_ADDED)
    return (*_BASIC, *(r for each in order[: order.index(role) + 1] for r in _ADDED[each]))


def allowed(role: Role, target: Target) -> bool:
    return role is Role.OPERATOR or any(r.covers(target) for r in rules(role))


def beyond(target: Target) -> bool:
    """Whether no role of a tenant's on Hikube has this."""
    return not allowed(Role.SUPER, target)


def refusal(role: Role, target: Target) -> Refused:
    """As Kubernetes says it."""
    full = f"{target.plural}.{target.group}" if target.group else target.plural
    named = f'{full} "{target.name}"' if target.name else full
    where = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
    words = (
        f'{named} is forbidden: User "hikube-local:{role}" cannot {target.verb} resource "{target.what}" '
        f'in API group "{target.group}" {where}'
    )
    details = {"name": target.name, "kind": target.plural, **({"group": target.group} if target.group else {})}
    return Refused(403, words, details={k: v for k, v in details.items() if v})


def access_review(role: Role, body: Any) -> dict[str, Any]:
    """The answer to a SelfSubjectAccessReview."""
    spec = body.get("spec") if isinstance(body, dict) else None
    spec = spec if isinstance(spec, dict) else {}
    asked = spec.get("resourceAttributes")
    yes = role is Role.OPERATOR
    if isinstance(asked, dict):
        at = {k: str(v) for k, v in asked.items() if isinstance(v, str)}
        target = Target(
            at.get("verb", ""),
            at.get("group", ""),
            at.get("version", ""),
            at.get("resource", ""),
            at.get("namespace", ""),
            at.get("name", ""),
            at.get("subresource", ""),
        )
        yes = allowed(role, target)
    elif isinstance(other := spec.get("nonResourceAttributes"), dict) and isinstance(path := other.get("path"), str):
        yes = yes or path.split("/")[1:2] in (["api"], ["apis"], ["openapi"], ["version"], ["livez"], ["readyz"])
    reason = "" if yes else f"the role {role} of a tenant on Hikube does not allow this"
    status = {"allowed": yes, **({"reason": reason} if reason else {})}
    return {"kind": kinds.ACCESS.kind, "apiVersion": kinds.ACCESS.api_version, "spec": spec, "status": status}


def rules_review(role: Role, body: Any) -> dict[str, Any]:
    """The answer to a SelfSubjectRulesReview."""
    every = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    rows = every if role is Role.OPERATOR else [r.as_json() for r in rules(role)]
    paths = ["/api", "/api/*", "/apis", "/apis/*", "/livez", "/openapi", "/openapi/*", "/readyz", "/version"]
    status = {
        "resourceRules": rows,
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": paths}],
        "incomplete": False,
    }
    spec = body.get("spec", {}) if isinstance(body, dict) else {}
    return {"kind": kinds.RULES.kind, "apiVersion": kinds.RULES.api_version, "spec": spec, "status": status}
