"""`serve --faithful`: what Hikube's API server accepts and its chart refuses later is accepted, and fails as there; pure.

The chart runs minutes after the API server has answered, and what it says stands in the condition Ready of the object.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hikube_local.api.objects import Object
from hikube_local.kube import objects
from hikube_local.source.finding import Finding, Severity

if TYPE_CHECKING:  # it is loaded when a write is judged: the endpoint is to answer at once
    from hikube_local.manifests.validate import Known

# Findings about values: Cozystack's API server takes spec as free JSON. Names, shapes and what one object means for another
# are refused there as here.
LATER = frozenset(
    f"HK{number}" for number in (302, 303, 304, 305, 306, 307, 309, 310, 311, 312, 315, 319, 321, 322, 323, 327)
)


def accepted(errors: list[Finding]) -> bool:
    """Whether Hikube's API server would take the object all the same."""
    return all(e.code in LATER for e in errors)


def failure(obj: Object, known: Known) -> str:
    """Why the chart of an object that was accepted fails; nothing where it does not."""
    if obj.deletion:
        return ""
    from hikube_local.manifests.validate import validate_one

    others = replace(known, objects={k: o for k, o in known.objects.items() if k != obj.key})
    found = validate_one(objects.plain(obj), obj.ref, obj.namespace, others, "ignore")
    return "; ".join(f"{e.message} [{e.code}]" for e in found.findings.of(Severity.ERROR) if e.code in LATER)
