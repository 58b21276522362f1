"""How an ordinary user comes by namespaces: `unshare`, or rootlesskit where AppArmor lets only a program with a profile
make them (Ubuntu 24.04, which ships one for /usr/bin/rootlesskit).

rootlesskit hands over root's ids. A program that must be the user again, without capabilities, runs in one more user
namespace inside; it is made when the namespaces are, since nobody but what rootlesskit started may make it there.
"""

from __future__ import annotations

import contextlib
import os
from enum import StrEnum
from pathlib import Path

from hikube_local.errors import HikubeError
from hikube_local.run import run
from hikube_local.text import sanitize

ROOTLESSKIT = "/usr/bin/rootlesskit"  # profiles go by path: a copy elsewhere does not count


class UsernsLauncher(StrEnum):
    """What makes the namespaces of a user."""

    UNSHARE = "unshare"
    ROOTLESSKIT = "rootlesskit"

    def as_root(self, folder: Path | None = None) -> list[str]:
        """Words before a command that is to have root's ids, and the user's further ones; `folder` for rootlesskit's state."""
        if self is UsernsLauncher.UNSHARE:
            return ["unshare", "--map-root-user", "--map-auto"]
        return [ROOTLESSKIT, *([f"--state-dir={folder}"] if folder else [])]

    def holder(self, folder: Path) -> list[str]:
        """The command that keeps a network namespace: a `sleep` with the user's own ids."""
        if self is UsernsLauncher.UNSHARE:
            return ["unshare", "-U", "-n", "--map-current-user", "--keep-caps", "sleep", "infinity"]
        back = ["unshare", "-U", f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}"]
        return [*self.as_root(folder), "unshare", "-n", *back, "sleep", "infinity"]

    @property
    def owner(self) -> str:
        """The user's id as the user namespace that owns the network has it."""
        return str(os.geteuid()) if self is UsernsLauncher.UNSHARE else "0"


def probe(words: list[str]) -> str:
    """Why no bridge can be made in the network namespace that `words` make; empty when one can.

    An exit code of unshare alone proves nothing: AppArmor lets it through and takes every capability away.
    """
    try:
        done = run([*words, "ip", "link", "add", "hktest", "type", "bridge"], timeout=10, check=False)
    except HikubeError as e:
        return e.what
    return "" if done.returncode == 0 else sanitize(done.stderr).strip()[-160:] or f"exit code {done.returncode}"


def find() -> tuple[UsernsLauncher | None, str]:
    """What makes namespaces for this user, or None, and why unshare does not."""
    shut = probe(["unshare", "-r", "-n"])
    if not shut:
        return UsernsLauncher.UNSHARE, ""
    if not os.access(ROOTLESSKIT, os.X_OK):
        return None, shut
    other = probe([*UsernsLauncher.ROOTLESSKIT.as_root(), "unshare", "-n"])
    return (None, f"{shut}; through rootlesskit: {other}") if other else (UsernsLauncher.ROOTLESSKIT, shut)


# The kernel's own switches, and what opens them: Debian's, and everybody's (user_namespaces(7)).
SWITCHES = {
    "/proc/sys/kernel/unprivileged_userns_clone": "sudo sysctl kernel.unprivileged_userns_clone=1",
    "/proc/sys/user/max_user_namespaces": "sudo sysctl user.max_user_namespaces=15000",
}


def remedy() -> str:
    """The command that opens the way: a switch of the kernel that is off; where all are on it is AppArmor that forbids them,
    and rootlesskit has a profile: its package, or ids for this user that nobody else has (subuid(5))."""
    for path, command in SWITCHES.items():
        with contextlib.suppress(OSError):
            if Path(path).read_text().strip() == "0":
                return command
    if not os.access(ROOTLESSKIT, os.X_OK):
        return "sudo apt-get install rootlesskit uidmap"
    first = 100_000
    for name in ("subuid", "subgid"):
        with contextlib.suppress(OSError):
            for row in Path("/etc", name).read_text(errors="replace").splitlines():
                words = row.split(":")
                if len(words) == 3 and words[1].isdigit() and words[2].isdigit():
                    first = max(first, int(words[1]) + int(words[2]))
    ids = f"{first}-{first + 65535}"
    return f"sudo usermod --add-subuids {ids} --add-subgids {ids} $USER"
