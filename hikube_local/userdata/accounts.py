"""Users, groups and keys of a cloud-config: who is made, and whether anybody can log in; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hikube_local.catalogue import data
from hikube_local.manifests.userdata import known
from hikube_local.source import ssh_keys
from hikube_local.source.finding import Finding, Severity
from hikube_local.source.nodes import Node
from hikube_local.userdata import schema, tree

_ELSEWHERE = re.compile(
    r"/authorized_keys|\bssh-import-id\b(?!\s*:)|\bchpasswd\b(?!\s*:)|\bssh-copy-id\b|\bpasswd\s+-d\b"
)


def of_users(root: Node, keys_given: bool, bare: bool, text: str) -> Iterator[Finding]:
    """Users of whom nobody could log in. `keys_given`: the manifest has sshKeys; `bare`: there is no manifest."""
    node = root.get("users")
    if node is None or tree.data(node) is None:
        return
    users, rest = listed(tree.data(node)), tree.data(root)
    # With `user:` cloud-init adds the default user by itself (ug_util.py).
    if isinstance(rest.get("user"), dict | str):
        return
    if _has_default(users):
        return
    if keys_given:
        yield known("HK317", node, "users")
    named = [u for u in users if isinstance(u, dict)]
    words = ("passwd", "hashed_passwd", "plain_text_passwd")
    locked = [
        u for u in named if any(u.get(w) for w in words) and schema.truth(u.get("lock_passwd", True)) is not False
    ]
    change = rest.get("chpasswd")
    given = rest.get("password") or (isinstance(change, dict) and (change.get("list") or change.get("users")))
    opened = [u for u in named if u not in locked and any(u.get(w) for w in words)]
    keyed = any(u.get(w) for u in named for w in ("ssh_authorized_keys", "ssh_import_id"))
    root_keys = rest.get("ssh_authorized_keys") and schema.truth(rest.get("disable_root", True)) is False
    # Keys may come another way: by a file, or by a command.
    elsewhere = _ELSEWHERE.search(_without_comments(text))
    enter = given or opened or keyed or root_keys or elsewhere
    if not enter and (bare or not keys_given):
        what = "users: has no `default`, and none of these users has a key or a password: nobody can log in"
        help = "add `- default`, or ssh_authorized_keys to a user"
        if locked:
            what = f"users: the password of {locked[0].get('name', '')} is locked, which is cloud-init's default: nobody can log in"
            help = "add `lock_passwd: false`, or ssh_authorized_keys"
        yield Finding("HK317", Severity.WARNING, what, node, path="users", help=help)


def of_groups(root: Node) -> Iterator[Finding]:
    """A group is made before the users: one of a user's own name makes useradd refuse that user."""
    node = root.get("groups")
    if node is None:
        return
    rows: list[tuple[str, Node]] = []
    for item in node.value if isinstance(node.value, list) else [node]:
        if isinstance(item.value, dict):
            rows += [(name, key) for name, (key, _) in item.value.items()]
        elif isinstance(item.value, str):
            rows += [(name.strip(), item) for name in item.value.split(",")]
    users = listed(tree.data(root).get("users", ["default"]))
    fine = ("primary_group", "no_user_group")
    made = {
        u["name"]
        for u in users
        if isinstance(u, dict) and isinstance(u.get("name"), str) and not any(u.get(k) for k in fine)
    }
    made |= {u for u in users if isinstance(u, str)} - {"default"}
    made |= default_users(users)
    for name, at in rows:
        if name in made:
            what = f"groups: {name} is created before the user of that name, so useradd fails for that user"
            help = f"leave the group out (each user has one), or write primary_group: {name} for the user"
            yield Finding("HK359", Severity.WARNING, what, at, path="groups", help=help)


def of_keys(root: Node) -> Iterator[Finding]:
    """Keys that let nobody in: those of users, and the default user's at the top."""
    users = root.get("users")
    rows = users.value if users is not None and isinstance(users.value, list) else []
    for owner in [root, *(r for r in rows if isinstance(r.value, dict))]:
        for name in (n for n in owner.value if n.replace("-", "_") == "ssh_authorized_keys"):
            node = owner.get(name)
            texts = node.value if node is not None and isinstance(node.value, list) else [node] if node else []
            for item in texts:
                if not isinstance(text := tree.value(item), str):
                    continue
                kind = ssh_keys.examine(text)
                if kind is ssh_keys.KeyKind.PRIVATE:
                    what = f"{name} contains a private key: the guest and everyone who reads this file can read it"
                    yield Finding(
                        "HK314",
                        Severity.ERROR,
                        what,
                        item,
                        path=name,
                        help="use the line of the .pub file, and replace this key pair",
                    )
                elif kind is ssh_keys.KeyKind.MALFORMED:
                    what = f"{name}: not a public key that sshd accepts (a placeholder?)"
                    yield Finding(
                        "HK313",
                        Severity.WARNING,
                        what,
                        item,
                        path=name,
                        help="paste the content of ~/.ssh/id_ed25519.pub here",
                    )


def listed(users: object) -> list[Any]:
    """users: as a list of names and mappings, whichever of its forms was written; the mappings' keys with underscores."""
    out: list[Any] = []
    if isinstance(users, list):
        for u in users:
            out += listed(u) if isinstance(u, list | str) else [_plain(u)]
    elif isinstance(users, str):
        out += [u.strip() for u in users.split(",") if u.strip()]
    elif isinstance(users, dict):
        rows = {k: v for k, v in users.items() if isinstance(v, dict) or schema.truth(v) is True}
        out += [{"name": k, **(_plain(v) if isinstance(v, dict) else {})} for k, v in rows.items()]
    return out


def _plain(user: Any) -> Any:
    return {str(k).replace("-", "_"): v for k, v in user.items()} if isinstance(user, dict) else user


def _has_default(users: list[Any]) -> bool:
    return any(u == "default" or (isinstance(u, dict) and u.get("name") == "default") for u in users)


def default_users(users: list[Any]) -> set[str]:
    """The names that the image's own user may have, where it is among these."""
    return {image.user for image in data.images().values() if image.user} if _has_default(users) else set()


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
