"""Where commands act: this machine, a box over ssh, or a tenant of a cluster. Kept beside the configuration, each pinned to
what it led to when it was made.

One that leads elsewhere now is refused, never followed: a kubeconfig is replaced by whoever logs in somewhere, and the same
name then means another cluster.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hikube_local import files
from hikube_local.errors import NotFound, UsageError
from hikube_local.locks import locked
from hikube_local.osdep import require_unix
from hikube_local.paths import Layout, below
from hikube_local.records import dataclass
from hikube_local.text import nearest

if TYPE_CHECKING:  # every command asks where it acts, and few need a kubeconfig
    from hikube_local.kubeclient.kubeconfig import Target

LOCAL = "local"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
# What ssh takes as [USER@]HOST: never an option, a blank or a character of a shell's.
_HOST = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.+-]*@)?[A-Za-z0-9\[][A-Za-z0-9_.:\[\]%-]*")


@dataclass(frozen=True, slots=True)
class Context:
    """One place. `kind`: local, ssh or kube. Of a tenant: the kubeconfig files, the context's name in them, and the pins
    (server, CA's SHA-256, namespace); of a box: [USER@]HOST[:PORT] as ssh takes it."""

    name: str
    kind: str = LOCAL
    host: str = ""
    files: tuple[str, ...] = ()
    context: str = ""
    server: str = ""
    ca: str = ""
    namespace: str = ""
    server_name: str = ""
    written: str = ""  # the namespace that the kubeconfig's context had then

    @property
    def once(self) -> bool:
        """Given by --host, and kept nowhere."""
        return self.name.startswith("ssh://")

    @property
    def folder(self) -> str:
        """Of what is kept here: one for each host that was given for once, with a name that no context can have."""
        return f"_{hashlib.sha256(self.host.encode()).hexdigest()[:16]}" if self.once else self.name

    def beside(self, own: Layout) -> Layout:
        """What is kept here of it: of this machine all, of another one keys and pinned host keys."""
        return own if self.local else below(own, own.state / "contexts" / self.folder)

    @property
    def local(self) -> bool:
        return self.kind == LOCAL

    @property
    def where(self) -> str:
        """Where it leads, in words."""
        if self.kind == "ssh":
            return f"ssh://{self.host}"
        return f"{self.server}, namespace {self.namespace}" if self.kind == "kube" else "this machine"


def _path(layout: Layout) -> Path:
    return layout.config.with_name("contexts.json")


def _read(layout: Layout) -> dict[str, Any]:
    """HK820 for a file that cannot be read: without it commands would act on this machine."""
    path = _path(layout)
    if not path.exists():
        return {}
    row = files.read_json(path)
    if not isinstance(row, dict) or not all(isinstance(r, dict) for r in row.get("contexts", {}).values()):
        raise UsageError("HK820", f"{path} is damaged", fix="mend it, or remove it and make the contexts anew")
    return row


def known(layout: Layout) -> dict[str, Context]:
    """By their names, `local` first."""
    out = {LOCAL: Context(LOCAL)}
    rows = _read(layout).get("contexts")
    names = {f.name for f in fields(Context)}
    for name, row in sorted(rows.items() if isinstance(rows, dict) else ()):
        kept = {k: tuple(v) if k == "files" else v for k, v in row.items() if k in names}
        out[name] = Context(**{**kept, "name": name})
    return out


def used(layout: Layout) -> str:
    """The one that `context use` chose."""
    return str(_read(layout).get("use") or LOCAL)


def named(layout: Layout, name: str) -> Context:
    """HK820 with the nearest name where there is no such context."""
    have = known(layout)
    if name not in have:
        near = nearest(name, list(have))
        fix = f"did you mean {near}?" if near else "hikube-local context ls"
        raise NotFound("HK820", f"there is no context {name!r}", f"there are: {', '.join(have)}", fix)
    return have[name]


def of_host(url: str) -> Context:
    """A box for once: ssh://[USER@]HOST[:PORT]. HK611 on Windows, whose OpenSSH shares no connections (Win32-OpenSSH#405)."""
    require_unix("a box over ssh")
    scheme, found, rest = url.partition("://")
    host = (rest if found else scheme).rstrip("/")
    if (found and scheme != "ssh") or not _HOST.fullmatch(host):
        raise UsageError("HK810", f"{url[:80]!r} is not a host", fix="write ssh://[USER@]HOST")
    return Context(f"ssh://{host}", "ssh", host)


def create(layout: Layout, context: Context) -> None:
    """HK820 where the name is taken or not one."""
    if not _NAME.fullmatch(context.name) or context.name == LOCAL:
        fix = "lower-case letters, digits and dashes, at most 40; local is this machine"
        raise UsageError("HK820", f"{context.name[:60]!r} cannot be a context's name", fix=fix)
    with _changing(layout):
        row = _read(layout)
        have = row.setdefault("contexts", {})
        if context.name in have:
            fix = f"hikube-local context rm {context.name} first, or choose another name"
            raise UsageError("HK820", f"there is a context {context.name} already", fix=fix)
        have[context.name] = {k: v for k, v in asdict(context).items() if v and k != "name"}
        files.write_json(_path(layout), row)


def remove(layout: Layout, name: str) -> None:
    """It is forgotten; what it leads to stays as it is."""
    named(layout, name)
    if name == LOCAL:
        raise UsageError("HK820", "local is this machine: it cannot be removed")
    with _changing(layout):
        row = _read(layout)
        row.get("contexts", {}).pop(name, None)
        if row.get("use") == name:
            del row["use"]
        files.write_json(_path(layout), row)


def use(layout: Layout, name: str) -> None:
    named(layout, name)
    with _changing(layout):
        files.write_json(_path(layout), {**_read(layout), "use": name})


def _changing(layout: Layout) -> Any:
    files.make_folder(_path(layout).parent)
    return locked(layout.make().locks / "contexts")


def default_files() -> list[Path]:
    """kubectl's own kubeconfig files."""
    named = os.environ.get("KUBECONFIG", "")
    found = [Path(p).expanduser() for p in named.split(os.pathsep) if p]
    return found or [Path.home() / ".kube" / "config"]


def tenant(name: str, paths: list[Path], chosen: str, namespace: str) -> Context:
    """A context for a cluster: of several in the files one is named, never taken because it is the current one."""
    from hikube_local.kubeclient import kubeconfig

    have = kubeconfig.names(paths)
    if not chosen:
        if len(have) != 1:
            why = f"there are: {', '.join(have) or 'none'}; the file's own current-context is never used"
            raise UsageError("HK820", "the kubeconfig has several contexts", why, "add --kube-context NAME")
        chosen = have[0]
    target = kubeconfig.read(paths, chosen)
    where = namespace or target.namespace
    if not where:
        why = "a tenant of Hikube is one namespace"
        raise UsageError("HK820", f"context {chosen} names no namespace", why, "add --namespace tenant-NAME")
    absolute = tuple(str(p.expanduser().absolute()) for p in paths)
    return Context(
        name,
        "kube",
        "",
        absolute,
        chosen,
        target.server,
        target.fingerprint,
        where,
        target.server_name,
        target.namespace,
    )


def target(context: Context) -> Target:
    """Where a tenant's context leads now; HK820 where that is elsewhere than when it was made."""
    from hikube_local.kubeclient import kubeconfig

    found = kubeconfig.read([Path(p) for p in context.files], context.context)
    now = {
        "server": found.server,
        "CA": found.fingerprint,
        "namespace": found.namespace,
        "tls-server-name": found.server_name,
    }
    then = {
        "server": context.server,
        "CA": context.ca,
        "namespace": context.written,
        "tls-server-name": context.server_name,
    }
    other = [
        f"its {what} was {then[what] or 'none'}, and is {now[what] or 'none'}"
        for what in now
        if now[what] != then[what]
    ]
    if other:
        fix = (
            f"if you mean the new one: hikube-local context rm {context.name}, then context create {context.name} again"
        )
        raise UsageError(
            "HK820", f"the context {context.name} leads elsewhere than when it was made", "; ".join(other), fix
        )
    return found
