"""Whether user-data wants something new at each first boot, so that the state after an earlier one is no stand-in; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hikube_local.userdata import tree
from hikube_local.userdata.parts import INCLUDE
from hikube_local.userdata.requested import all_parts, configs, exploded
from hikube_local.userdata.whole import merged

# Keys of cloud-config that ask somebody else each time, or give what nobody else has; what they do, in words.
_KEYS = {
    "phone_home": "phone_home reports each first boot",
    "reporting": "reporting tells somebody of each boot",
    "random_seed": "random_seed gives it randomness of its own",
    "ssh_import_id": "ssh_import_id fetches keys",
    "rh_subscription": "rh_subscription registers the machine",
    "spacewalk": "spacewalk registers the machine",
    "ubuntu_advantage": "ubuntu_advantage registers the machine",
    "ubuntu_pro": "ubuntu_pro registers the machine",
    "landscape": "landscape registers the machine",
    "chef": "chef registers the machine",
    "puppet": "puppet registers the machine",
    "salt_minion": "salt_minion registers the machine",
    "mcollective": "mcollective registers the machine",
    "ansible": "ansible fetches what it plays",
    "rightscale_userdata": "rightscale_userdata is fetched",
}
_UPGRADES = ("package_upgrade", "apt_upgrade")
_TRUE = ("true", "1", "on", "yes")  # as cloud-init reads a text (util.is_true)
_RANDOM = re.compile(r"^[^:\n]+:(R|RANDOM)$", re.M)


def anew(user_data: str) -> str:
    """Why a first boot with it is to be a real one each time, in words; empty where nothing says so.

    What a script does is not known: whoever asks for a warm start says that the state after it may be of an earlier day.
    """
    return next(_reasons(user_data), "")


def _reasons(user_data: str) -> Iterator[str]:
    parts = all_parts(user_data)
    if user_data.strip() and not parts:
        yield "its user-data cannot be read"
    if any(part.kind in INCLUDE for whole in parts for part in exploded(whole)):
        yield "#include fetches user-data"
    if any(config.template and config.branches for config in configs(user_data)):
        yield "its template has branches"
    root = merged(user_data)
    found = tree.data(root) if root is not None else None
    if not isinstance(found, dict):
        return
    yield from (words for key, words in _KEYS.items() if found.get(key))
    yield from (f"{key} wants the newest packages" for key in _UPGRADES if str(found.get(key)).lower() in _TRUE)
    yield from _users(found.get("users"), found.get("user"))
    yield from _passwords(found.get("chpasswd"))
    files = found.get("write_files")
    if any(isinstance(row, dict) and row.get("source") for row in (files if isinstance(files, list) else ())):
        yield "write_files fetches a file"


def _users(users: object, user: object) -> Iterator[str]:
    """users: is a list of mappings, or a mapping by name; user: is one more."""
    listed = users if isinstance(users, list) else list(users.values()) if isinstance(users, dict) else []
    for row in (*listed, user):
        if isinstance(row, dict) and (row.get("ssh_import_id") or row.get("ssh-import-id")):
            yield "ssh_import_id fetches keys"


def _passwords(chpasswd: object) -> Iterator[str]:
    """cc_set_passwords.py: a user of type RANDOM, or R or RANDOM behind a name in the older list."""
    if not isinstance(chpasswd, dict):
        return
    users, lines = chpasswd.get("users"), chpasswd.get("list")
    rows = [row for row in users if isinstance(row, dict)] if isinstance(users, list) else []
    text = "\n".join(map(str, lines)) if isinstance(lines, list) else str(lines or "")
    if any(row.get("type", "hash") == "RANDOM" for row in rows) or _RANDOM.search(text):
        yield "chpasswd makes a random password"
