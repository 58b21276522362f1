"""What a machine's QEMU may take at most, so that one that runs away takes neither the host nor its neighbours down."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hikube_local.backends.qemu import owners
from hikube_local.backends.qemu.context import Context
from hikube_local.render import growth
from hikube_local.run import run

# Beside the guest's memory: emulation's translated code, disks' caches, the screen (seen: 3.5 GiB mapped for 2 GiB of guest).
BESIDE = 8 << 30
# Of root's machines, each of which has a user of its own: vCPUs, I/O threads and at most 64 workers of QEMU's pool.
THREADS = 1024
EXPENDABLE = "500"  # oom_score_adj(5): before what a person works with


def bound(context: Context, name: str, xml: str, memory: int = 0) -> None:
    """Limit the QEMU of the domain `name`, by its live definition; one that is gone already has no need of it.

    `memory`: bytes that its guest is about to have. Up to the most that it may have its user can raise the limit.
    """
    soft = 2 * (memory or growth.capacity(xml).memory) + BESIDE
    hard = max(soft, 2 * growth.room_for(xml) + BESIDE)
    folder = context.sandbox.run / "libvirt" / "qemu"
    for path in (folder / f"{name}.pid", folder / "run" / f"{name}.pid"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text())
            words = ["prlimit", f"--pid={pid}", f"--as={soft}:{hard}", "--core=0"]
            if context.layout.root:
                # As the machine's own user: root itself may lack CAP_SYS_RESOURCE in a container.
                st = os.stat(f"/proc/{pid}")
                words = ["setpriv", f"--reuid={st.st_uid}", f"--regid={st.st_gid}", "--clear-groups", *words]
                if not owners.few():  # else all of them are one user's
                    words.append(f"--nproc={THREADS}")
            run(words, check=False)
            Path(f"/proc/{pid}/oom_score_adj").write_text(EXPENDABLE)
            return
