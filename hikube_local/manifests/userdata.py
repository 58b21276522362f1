"""What can be said of user-data without a machine: whether the chart carries it, its header, the users trap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hikube_local.api.objects import VMInstanceSpec
from hikube_local.manifests.diagnostics import Diagnostic, Severity
from hikube_local.render.seed import UserDataRefused, chart_text

# What cloud-init recognises at the start of the first line.
HEADERS = (
    "#!",
    "#cloud-config",
    "#cloud-boothook",
    "#include",
    "#part-handler",
    "#upstart-job",
    "## template:",
    "Content-Type: multipart/",
    "MIME-Version:",
)
SECRET_LIMIT = 1 << 20


def parsed(text: str) -> Any:
    """The mapping of a #cloud-config, read within the manifest reader's bounds; None where it is none."""
    from hikube_local.manifests import nodes

    if not text.startswith("#cloud-config"):
        return None
    found: list[Diagnostic] = []
    try:
        for node in nodes.documents(nodes.Text("user-data", text), text, found):
            return node.data
    except nodes.Refused:
        return None
    return None


def userdata_rules(spec: VMInstanceSpec) -> Iterator[Any]:
    from hikube_local.manifests.rules import Finding

    text = spec.cloudInit
    if not text:
        return
    where = ("cloudInit",)
    try:
        carried = chart_text(text)
    except UserDataRefused as e:
        yield Finding("HK315", Severity.ERROR, str(e), where, "indent every line at least as far as the first one")
        return
    if len(carried.encode()) > SECRET_LIMIT:
        yield Finding("HK327", Severity.ERROR, "cloudInit is larger than a Secret may be (1 MiB)", where)
        return
    if not carried.startswith(HEADERS):
        what = "user-data has no header that cloud-init knows: cloud-init will ignore it"
        yield Finding("HK316", Severity.WARNING, what, where, "begin with #cloud-config or #!/bin/sh")
    config = parsed(carried)
    users = config.get("users") if isinstance(config, dict) else None
    if any(spec.sshKeys) and isinstance(users, list) and users:
        has_default = any(u == "default" or (isinstance(u, dict) and u.get("name") == "default") for u in users)
        if not has_default:
            what = "users: has no `default`, so cloud-init makes no default user and sshKeys reach nobody"
            yield Finding("HK317", Severity.WARNING, what, where, "add `- default` as the first of users:")
