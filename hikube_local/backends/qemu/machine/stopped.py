"""Why QEMU stopped a machine: the log that libvirt keeps of what QEMU itself said."""

from __future__ import annotations

from pathlib import Path

from hikube_local.api import names
from hikube_local.api.objects import Object
from hikube_local.backends.qemu.context import Context

MOST = 1 << 16  # bytes of its end that are read


def log(context: Context, obj: Object) -> Path:
    """libvirt's log of this machine's QEMU: root's lies in the sandbox, a user's in libvirt's own cache."""
    folder = context.sandbox.run / "libvirtlog" if context.layout.root else context.layout.cache / "libvirt" / "libvirt"
    name = f"{names.domain(obj.namespace, obj.name)}.log"
    return folder / "qemu" / name if context.layout.root else folder / "qemu" / "log" / name


def text(path: Path | None) -> str:
    """The end of the log since QEMU's last start, or an empty string."""
    if path is None:
        return ""
    try:
        with open(path, "rb") as f:
            f.seek(max(0, path.stat().st_size - MOST))
            said = f.read(MOST).decode("utf-8", "replace")
    except OSError:
        return ""
    return said.rpartition(": starting up libvirt version")[2]
