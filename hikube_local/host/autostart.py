"""systemd units: of what brings the machines up with the host, and of `serve`. Nothing is written here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hikube_local.errors import HikubeError
from hikube_local.paths import Layout
from hikube_local.records import dataclass
from hikube_local.run import program

_PLACES = ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")  # where a user's state root is looked for


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of whoever runs this: root's is the system's, a user's is the user's own."""

    path: Path
    text: str
    user: bool

    def systemctl(self, *words: str) -> list[str]:
        return ["systemctl", *(["--user"] if self.user else []), *words]


def unit(layout: Layout, home: str | None = None) -> Unit:
    """The unit for this state root. `home`: HIKUBE_LOCAL_HOME where it names the root."""
    user = not layout.root
    folder = Path.home() / ".config" / "systemd" / "user" if user else Path("/etc/systemd/system")
    target = "default.target" if user else "multi-user.target"
    after = "" if user else "After=network-online.target\nWants=network-online.target\n"
    name = f"hikube-local-{layout.id}.service" if home else "hikube-local.service"  # each state root has its own
    text = (
        "[Unit]\n"
        "Description=hikube-local: the machines whose runStrategy is Always\n"
        f"{after}"
        "\n[Service]\n"
        # The machines stay when the command is done, and belong to this unit: systemd ends them with the host.
        "Type=oneshot\nRemainAfterExit=yes\nTimeoutStartSec=infinity\n"
        f"{_command(home, user, 'autostart', 'run')}"
        f"\n[Install]\nWantedBy={target}\n"
    )
    return Unit(folder / name, text, user)


def serving(layout: Layout, home: str | None, words: Sequence[str]) -> str:
    """The text of a unit that runs `serve` with these words."""
    user = not layout.root
    return (
        "[Unit]\n"
        "Description=hikube-local: the Kubernetes endpoint\n"
        # Machines that it started are not of this service: they go on when it ends.
        "\n[Service]\nKillMode=process\nRestart=on-failure\n"
        f"{_command(home, user, 'serve', *words)}"
        f"\n[Install]\nWantedBy={'default.target' if user else 'multi-user.target'}\n"
    )


def _command(home: str | None, user: bool, *words: str) -> str:
    """Environment and command of a unit. `home`: HIKUBE_LOCAL_HOME where it names the root."""
    given = {"HIKUBE_LOCAL_HOME": home or "", **{n: os.environ.get(n, "") for n in _PLACES if user}}
    environment = "".join(f"Environment={_quoted(f'{n}={v}', False)}\n" for n, v in given.items() if v)
    # Whatever `context use` chooses.
    command = " ".join(map(_quoted, (*program(), "--context", "local", *words)))
    return f"{environment}ExecStart={command}\n"


def _quoted(word: str, command: bool = True) -> str:
    """A word as systemd.service(5) reads it; in a command's words `$` stands for a variable, too."""
    out = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + (out.replace("$", "$$") if command else out) + '"'


def require_systemd() -> None:
    if not Path("/run/systemd/system").is_dir():
        fix = "call `hikube-local autostart run` from what starts services here"
        raise HikubeError("HK601", "this host is not run by systemd", fix=fix)


def lingers(name: str) -> bool:
    """Whether systemd keeps a user's services, and the runtime folder, when the user is not logged in (loginctl)."""
    return Path("/var/lib/systemd/linger", name).exists()


def needs_linger(layout: Layout) -> bool:
    """Whether machines of this user end with the last login."""
    import pwd

    if layout.root or not Path("/run/systemd/system").is_dir():
        return False
    return not lingers(pwd.getpwuid(os.geteuid()).pw_name) and str(layout.runtime).startswith("/run/user/")
