"""What the cloud-configs of user-data come to together, as cloud-init merges them, and what of them is lost; pure.

Without words of its own a later part's key takes the place of an earlier one's, lists too (cloud_config.py, DEF_MERGERS).
"""

from __future__ import annotations

import re

from hikube_local.records import dataclass
from hikube_local.source.nodes import Node
from hikube_local.userdata import schema, tree
from hikube_local.userdata.requested import Config, configs


@dataclass(frozen=True, slots=True)
class Replaced:
    """A key of an earlier part that a later one takes the place of; lines of the whole user-data, parts from 1."""

    key: str
    part: int
    line: int
    by_part: int
    by_line: int

    @property
    def words(self) -> str:
        return f"{self.key} of part {self.part} is replaced by part {self.by_part} (line {self.by_line}): it is lost"


def _mappings(user_data: str) -> list[tuple[int, Config, Node]]:
    """(number from 1, config, its mapping) of those that can be read."""
    return [(n, c, c.mapping) for n, c in enumerate(configs(user_data), 1) if c.mapping is not None]


def replaced(user_data: str) -> list[Replaced]:
    """What is lost, in the order of the lines; of templates with branches nothing can be said."""
    seen: dict[str, tuple[int, int, object]] = {}
    lost = []
    for n, config, root in _mappings(user_data):
        for key, (at, node) in root.value.items():
            value = tree.data(node)
            if schema.aside(key) or value is None:
                continue
            before = seen.get(key)
            if before and not config.merges and not config.branches and before[2] != value:
                lost.append(Replaced(key, before[0], before[1], n, config.line(at.line)))
            seen[key] = (n, config.line(at.line), None if config.branches else value)
    return sorted(lost, key=lambda r: r.line)


def merged(user_data: str) -> Node | None:
    """The one configuration that they come to, with lines of the whole user-data; None where there is none.

    Lists of parts that say how they merge stand one behind the other.
    """
    out: dict[str, tuple[Node, Node]] = {}
    rows = _mappings(user_data)
    for _, config, root in rows:
        for key, (at, node) in tree.shifted(root, config.line).value.items():
            old = out[key][1] if key in out else None
            if old is not None and config.merges and isinstance(old.value, list) and isinstance(node.value, list):
                node = Node([*old.value, *node.value], old.line, old.column)
            out[key] = (at, node)
    return Node(out, 1, 1) if rows else None


@dataclass(frozen=True, slots=True)
class Ending:
    """What the user-data does with the guest when cloud-init is done: `how` (reboot, poweroff or halt), what says so, and
    the seconds within which it begins."""

    how: str
    why: str
    patience: float


SOON = 60.0  # seconds: power_state waits for cloud-init's own end first (cc_power_state_change.py)
MAYBE = 10.0  # for a command that may or may not come to be run
# At the place of a command: a line's beginning, or behind what ends another one.
_POWER = re.compile(
    r"(?:^|[;&|({]|\bthen\b|\bdo\b)\s*(?:sudo\s+(?:-\w+\s+)*)?(?:/\S{1,40}/)?"
    r"(?:systemctl\s+(?:-\S+\s+)*)?(reboot|poweroff|shutdown)(?![\w./=-])([^;&|\n)}#]*)",
    re.M,
)


def _power(commands: object) -> str:
    """reboot or poweroff where a command of runcmd asks for it, soon; empty where none does."""
    for command in commands if isinstance(commands, list) else ():
        text = " ".join(map(str, command)) if isinstance(command, list) else str(command)
        for match in _POWER.finditer(text):
            word, rest = match[1], match[2].split()
            times = [w.lstrip("+") for w in rest if not w.startswith("-")][:1]
            if word != "shutdown":
                return word
            if "-c" not in rest and all(t in ("now", "0", "1") for t in times):
                return "reboot" if any(w in ("-r", "--reboot") for w in rest) else "poweroff"
    return ""


def ending(user_data: str) -> Ending | None:
    """Whether the guest goes down at the end of its first boot; None where nothing says so, or only much later."""
    root = merged(user_data)
    row = root.get("power_state") if root is not None else None
    if row is not None and isinstance(row.value, dict):
        value = tree.data(row)
        delay = str(value.get("delay") or "now").lstrip("+")
        soon = delay in ("now", "0", "1")
        if soon and value.get("mode") in ("reboot", "poweroff", "halt") and value.get("condition", True) is not False:
            return Ending(str(value["mode"]), "power_state", SOON + (60.0 if delay == "1" else 0.0))
        return None
    commands = root.get("runcmd") if root is not None else None
    how = _power(tree.data(commands)) if commands is not None else ""
    return Ending(how, "a command of runcmd", MAYBE) if how else None
