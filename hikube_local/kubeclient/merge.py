"""What a client changes of an object that others change, too: kubectl's three-way merge; pure."""

from __future__ import annotations

from typing import Any


def three_way(last: Any, wanted: dict[str, Any], live: dict[str, Any]) -> dict[str, Any]:
    """A merge patch (RFC 7386) for `live`: what is wanted and is not so, and away with what was wanted `last` and is not now.

    What neither names stays: a default of the server's, or a field of somebody else's. Lists are taken as one.
    """
    before = last if isinstance(last, dict) else {}
    patch: dict[str, Any] = {name: None for name in before if name not in wanted and name in live}
    for name, value in wanted.items():
        have = live.get(name)
        if isinstance(value, dict) and isinstance(have, dict):
            if inner := three_way(before.get(name), value, have):
                patch[name] = inner
        elif have != value or name not in live:
            patch[name] = value
    return patch
