"""ssh into a machine through the system's ssh: whatever `external` says, with pinned host keys, never adding in silence."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import assert_never

from hikube_local import files, log, mux
from hikube_local.access import keys
from hikube_local.api.objects import DISK, Key, Object
from hikube_local.api.sources import Blank, CopyOf, FromImage, FromUpload, FromUrl
from hikube_local.backends.capabilities import Agents, Dials, GuestAgent, Logs
from hikube_local.catalogue.data import default_user
from hikube_local.engine.session import Session
from hikube_local.errors import ExitCode, HikubeError
from hikube_local.osdep import UNIX, shell_words
from hikube_local.paths import Layout, make_runtime
from hikube_local.run import find, program
from hikube_local.store.db import logins
from hikube_local.text import one_line
from hikube_local.userdata.requested import login

HOST_KEY_FILES = tuple(f"/etc/ssh/ssh_host_{kind}_key.pub" for kind in ("ed25519", "ecdsa", "rsa"))


# Characters of a folder with sockets of ssh's: /ssh- and 40 of %C come behind.
CONTROL_MOST = mux.MOST - 5 - 40
# Seconds for a log-in without a person: a guest that is switched off in the middle of one says nothing any more, and ssh's own
# ConnectTimeout is over by then.
OPENING = 120.0
# Their images' default users are named as they are.
SYSTEMS = ("debian", "ubuntu", "rocky", "almalinux", "fedora", "alpine", "cirros", "opensuse")
# A user's name as a guest may have it; what begins with a dash would be an option of ssh's.
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@$+-]{0,255}")


def proxy_command(session: Session, obj: Object, login: bool = False) -> str:
    """A way in that needs no port on the host; with `login` it also lets ssh's user in. Percent signs are ssh's own."""
    words = [*program(), *session.flags, "-n", obj.namespace, "port-forward", obj.name, "22", "--stdio"]
    if (home := os.environ.get("HIKUBE_LOCAL_HOME")) and UNIX:  # Windows has no `env`: there ssh hands its own on
        words = ["env", f"HIKUBE_LOCAL_HOME={Path(home).expanduser().absolute()}", *words]
    return shell_words(words).replace("%", "%%") + (" --login %r" if login else "")


def user_of(session: Session, obj: Object) -> str:
    """The user that the user-data makes instead; else the image's: by the first disk's image, or by the profile."""
    if _USER.fullmatch(named := login(obj.instance.cloudInit)):
        return named
    for ref in obj.instance.disks[:1]:
        disk = session.store.get(Key(DISK, obj.namespace, ref.name))
        match disk.disk.content if disk else Blank():
            case FromImage(image):
                own = session.config.images.get(image, {}).get("user")
                return own or default_user(obj.instance.instanceProfile, image)
            case FromUrl(url):
                if system := next((word for word in SYSTEMS if word in url.lower()), ""):
                    return system
            case CopyOf() | FromUpload() | Blank():
                pass
            case other:
                assert_never(other)
    return default_user(obj.instance.instanceProfile)


def _same_system(session: Session, obj: Object) -> None:
    """Another first disk is another system: what was pinned and authorised for the one before is dropped."""
    first = obj.instance.disks[0].name if obj.instance.disks else ""
    disk = session.store.get(Key(DISK, obj.namespace, first)) if first else None
    uid = disk.uid if disk else ""
    if session.store.allocation(logins(obj.key)).get("disk") != uid:
        if keys.pinned(session.layout, obj):
            keys.pin(session.layout, obj, [])
        session.store.note(logins(obj.key), users=None, disk=uid)


def learn_host_keys(session: Session, obj: Object) -> None:
    """Pin the machine's host keys, once: asked of the agent, else read on the console of its first boot."""
    _same_system(session, obj)
    if keys.pinned(session.layout, obj):
        return
    agent = _agent(session, obj)
    found: list[str] = []
    if agent is not None:
        for path in HOST_KEY_FILES:
            if raw := agent.read(path, 4096):
                found += keys.host_keys(raw.decode("utf-8", "replace"))
    if not found and (logs := session.able(obj, Logs)):
        text = logs.log(obj).first_boot(4_000_000).decode("utf-8", "replace")
        _, _, block = text.rpartition("-----BEGIN SSH HOST KEY KEYS-----")
        found = keys.host_keys(block) if block != text else []
    if found:
        keys.pin(session.layout, obj, found)


def forget(session: Session, obj: Object) -> None:
    """Its host keys and who got in: the machine is gone for good."""
    keys.pin(session.layout, obj, [])
    session.store.note(logins(obj.key), users=None, disk=None)


def options(session: Session, obj: Object, identities: list[Path]) -> list[str]:
    """ssh's options for this machine, for a connection that is made now."""
    dials = session.able(obj, Dials)
    direct = dials.direct(obj, 22) if dials else []
    proxy = shlex.join(direct).replace("%", "%%") if direct else proxy_command(session, obj)
    strict = "yes" if keys.pinned(session.layout, obj) else "accept-new"
    words = [
        f"HostKeyAlias={keys.alias(obj)}",
        f"UserKnownHostsFile={shlex.quote(str(session.layout.known_hosts))}",
        "GlobalKnownHostsFile=/dev/null",
        f"StrictHostKeyChecking={strict}",
        "CheckHostIP=no",
        f"ProxyCommand={proxy}",
        "LogLevel=ERROR",
    ]
    out = [w for word in words for w in ("-o", word)]
    for path in identities:
        out += ["-i", str(path)]
    return out


def _works(argv: list[str]) -> bool:
    import subprocess

    probe = [*argv[:-1], "-o", "BatchMode=yes", "-o", "ConnectTimeout=30", argv[-1], "true"]
    begin = time.monotonic()
    try:
        code = subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, timeout=OPENING).returncode
    except subprocess.TimeoutExpired:
        code = 255
    log.ended(probe, code, begin)
    return code != 255


def prepare(
    session: Session,
    obj: Object,
    user: str,
    identity: Path | None,
    say: Callable[[str], None],
    boot: float | None = None,
) -> tuple[str, list[str], Path | None]:
    """(user, ssh's options, shared connection): -i, else ~/.ssh's keys if one of them gets in, else our own key, let in
    by the agent.

    `boot`: when the guest's boot began: then there is a connection to be shared, and while it is open nothing is asked.
    """
    user = user or user_of(session, obj)
    if not _USER.fullmatch(user):
        raise HikubeError("HK810", f"{user[:60]!r} is not a user name", exit_code=ExitCode.USAGE)
    shared = mux.path(session.layout, obj.uid, boot, user, identity or "") if boot is not None else None
    if shared is not None and mux.is_open(shared):
        # Should it end just now.
        own_one = [p for p in (session.layout.own_key,) if p.exists()]
        keys_of = [identity] if identity else [*keys.user_keys(), *own_one]
        return user, options(session, obj, keys_of), shared
    learn_host_keys(session, obj)
    return user, _entered(session, obj, user, identity, say), shared


def _entered(session: Session, obj: Object, user: str, identity: Path | None, say: Callable[[str], None]) -> list[str]:
    """ssh's options with which this user gets in."""
    ssh = find("ssh")
    if identity is not None:
        return options(session, obj, [identity])
    own = session.layout.own_key
    if own.exists() and noted(session, obj, user) and let_in(session, obj, user, say):
        return options(session, obj, [*keys.user_keys(), own])
    plain = options(session, obj, keys.user_keys())
    if (
        (keys.user_keys() or os.environ.get("SSH_AUTH_SOCK"))
        and any(obj.instance.sshKeys)
        and _works([ssh, *plain, f"{user}@{obj.name}"])
    ):
        return plain
    if authorise(session, obj, user, say):
        return options(session, obj, [*keys.user_keys(), keys.own_key(session.layout)])
    return plain


def noted(session: Session, obj: Object, user: str) -> bool:
    """Whether our key was added for this user since the machine was made, or went back to a checkpoint."""
    return user in session.store.allocation(logins(obj.key)).get("users", [])


def let_in(session: Session, obj: Object, user: str, say: Callable[[str], None]) -> bool:
    """Have our key let this user in: as noted, unless the guest says that it does not have it (any more)."""
    if noted(session, obj, user) and authorised(session, obj, user) is not False:
        return True
    return authorise(session, obj, user, say)


def authorised(session: Session, obj: Object, user: str) -> bool | None:
    """Whether the guest has our key for this user; None when nobody can say."""
    agent = _agent(session, obj)
    if not session.layout.own_key.exists() or agent is None or (listed := agent.ssh_keys(user)) is None:
        return None
    blob = keys.public(session.layout).split()[1]
    return any(blob in line.split() for line in listed)


def authorise(session: Session, obj: Object, user: str, say: Callable[[str], None]) -> bool:
    """Add our key to a user of the guest, through the guest agent; said in one line."""
    agent = _agent(session, obj)
    if agent is None:
        return False
    key = keys.public(session.layout)
    try:
        agent.add_ssh_key(user, key)
    except HikubeError as e:
        say(f"{e.what}: {one_line(e.why)[:160]}")
        return False
    say(f"added hikube-local's SSH key for {user} (through the guest agent)")
    users = sorted({*session.store.allocation(logins(obj.key)).get("users", []), user})
    session.store.note(logins(obj.key), users=users)
    return True


def _agent(session: Session, obj: Object) -> GuestAgent | None:
    """The agent in the running guest, if it answers."""
    backend = session.able(obj, Agents)
    agent = backend.agent(obj) if backend else None
    return agent if agent is not None and agent.connected() else None


def log_in(session: Session, obj: Object, user: str, say: Callable[[str], None]) -> None:
    """Before plain ssh connects (ssh-config): its user is let in, and the host's keys are pinned."""
    if not _USER.fullmatch(user):
        return
    learn_host_keys(session, obj)
    let_in(session, obj, user, say)


def config(session: Session, obj: Object) -> str:
    """The Host block of ssh's configuration for a machine."""
    own = keys.own_key(session.layout)
    lines = [
        f"Host {keys.alias(obj)}",
        f"  User {user_of(session, obj)}",
        f"  HostKeyAlias {keys.alias(obj)}",
        f'  UserKnownHostsFile "{session.layout.known_hosts}"',
        "  GlobalKnownHostsFile /dev/null",
        "  StrictHostKeyChecking accept-new",  # pinned by the ProxyCommand, where the guest tells its keys
        "  CheckHostIP no",
        f"  ProxyCommand {proxy_command(session, obj, login=True)}",
    ]
    folder = str(make_runtime(session.layout))
    if UNIX and len(folder) <= CONTROL_MOST:  # the next one within a minute shares the connection
        lines += ["  ControlMaster auto", f'  ControlPath "{folder}/ssh-%C"', f"  ControlPersist {mux.LASTS}"]
    lines += [f'  IdentityFile "{p}"' for p in [*keys.user_keys(), own]]
    return "\n".join(lines) + "\n"


def write_config(layout: Layout, blocks: Iterable[str]) -> Path:
    path = layout.ssh_config
    files.write(
        path, "# written by hikube-local ssh-config --install, kept current by up and down\n" + "\n".join(blocks)
    )
    return path


def include_line(layout: Layout) -> str:
    return f'Include "{layout.ssh_config}"'


def user_config() -> Path:
    """The user's own ssh configuration; a link (dotfiles) is written through, never replaced."""
    path = Path.home() / ".ssh" / "config"
    return path.resolve() if path.is_symlink() else path


def include(layout: Layout) -> Path:
    """Name our file in the user's own; at its top, since ssh takes the first value of each option."""
    main, line = user_config(), include_line(layout).encode()
    before = main.read_bytes() if main.exists() else b""  # whatever its encoding is
    if line not in before.splitlines():
        files.make_folder(main.parent)
        mode = main.stat().st_mode & 0o777 if main.exists() else 0o600
        files.write(main, line + b"\n\n" + before if before else line + b"\n", mode)
    return main


def forget_config(layout: Layout) -> bool:
    """Take our line out of the user's configuration again; whether it was there."""
    main, line = user_config(), include_line(layout).encode()
    layout.ssh_config.unlink(missing_ok=True)
    before = main.read_bytes().splitlines() if main.exists() else []
    kept = [row for row in before if row != line]
    if len(kept) == len(before):
        return False
    text = b"\n".join(kept).lstrip(b"\n")
    files.write(main, text + b"\n" if text else b"", main.stat().st_mode & 0o777)
    return True
