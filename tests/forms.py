"""The forms of docs/schemas: whether what a command printed has the one that is promised."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from referencing import Registry, Resource

from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "schemas"
FORMS = {p.name.removesuffix(".schema.json"): json.loads(p.read_text()) for p in sorted(FOLDER.glob("*.schema.json"))}
_REGISTRY = Registry().with_resources((f"{name}.schema.json", Resource.from_contents(s)) for name, s in FORMS.items())


def valid(form: str, value: Any) -> Any:
    """The value, which has this form; AssertionError with all that it lacks."""
    checker = jsonschema.Draft202012Validator(FORMS[form], registry=_REGISTRY)
    wrong = [f"{e.json_path}: {e.message[:200]}" for e in checker.iter_errors(value)]
    assert wrong == [], (form, wrong[:8])
    return value
