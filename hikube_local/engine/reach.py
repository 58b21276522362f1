"""Whether a context leads somewhere, and what one may do there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hikube_local import contexts, files
from hikube_local.api.objects import Object
from hikube_local.backends.capabilities import Agents
from hikube_local.backends.remote.agent import answered as _answered
from hikube_local.backends.remote.link import PROTOCOL, Link
from hikube_local.contexts import Context
from hikube_local.engine.elsewhere import Elsewhere
from hikube_local.engine.session import Session
from hikube_local.errors import HikubeError
from hikube_local.host.check import HostCheck
from hikube_local.paths import Layout, make_runtime

# The command line imports the engine, not what is below it.
__all__ = ["PROTOCOL", "answered", "checks", "forget", "link"]

# What is asked in `context check`: words for a person, and the question (authorization.k8s.io, SelfSubjectAccessReview).
_MAY = (
    ("read machines and disks", "list", "apps.cozystack.io", "vminstances", ""),
    ("open consoles and ports (ssh)", "get", "subresources.kubevirt.io", "virtualmachineinstances", "portforward"),
    ("start and stop machines", "update", "subresources.kubevirt.io", "virtualmachines", "start"),
    ("make and delete machines and disks", "create", "apps.cozystack.io", "vminstances", ""),
)


def checks(session: Callable[[], Session]) -> list[HostCheck]:
    """Whether a context leads somewhere, and what one may do there. What is not allowed is told, and is no failure."""
    try:
        there = session()
        assert isinstance(there, Elsewhere)
        client, namespace = there.api.client, there.context.namespace or "default"
        version = client.get("/version")
        out = [HostCheck("server", True, f"{there.context.where} ({version.get('gitVersion', 'version not told')})")]
        for words, verb, group, resource, below in _MAY:
            about = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
            asked = {"resourceAttributes": about | ({"subresource": below} if below else {})}
            kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
            answer = client.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {**kind, "spec": asked})
            may = bool((answer.get("status") or {}).get("allowed"))
            out.append(HostCheck(words, True, "allowed" if may else "not allowed for this user"))
        return out
    except HikubeError as e:
        return [HostCheck("server", False, f"{e.what}: {e.why}" if e.why else e.what, e.fix)]


def link(layout: Layout, context: Context) -> Link:
    """The way to a box, for what its own command line does."""
    return Link(context.host, make_runtime(layout))


def forget(own: Layout, context: Context) -> None:
    """The context, the connection, and what was kept of it here: pinned host keys, a key of ours, logins."""
    contexts.remove(own, context.name)
    there = context.beside(own)
    if context.kind == "ssh" and there.runtime.exists():
        Link(context.host, there.runtime).close()
    for folder, under in ((there.state, own.state), (there.runtime, there.runtime.parent)):
        if folder.exists():
            files.remove_folder(folder, under)


def answered(session: Session, obj: Object, call: str, arguments: dict[str, Any]) -> Any:
    """On the box: what the agent in its guest says to one who asks from elsewhere."""
    able = session.able(obj, Agents)
    return _answered(able.agent(obj) if able else None, call, arguments)
