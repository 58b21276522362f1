"""What programs read has the form that docs/schemas promises, and docs/json.md names each form."""

from __future__ import annotations

import json

import jsonschema
import pytest

from tests.conftest import PAIR, ROOT, Program
from tests.forms import FORMS, valid

# form: a command that prints it, with a machine there.
SHOWN = {
    "findings": ["validate", "CHANGED", "-o", "json"],
    "plan": ["plan", "CHANGED", "-o", "json"],
    "events": ["events", "-o", "json"],
    "images": ["images", "list", "-o", "json"],
    "snapshots": ["snapshot", "list", "-o", "json"],
    "ports": ["ports", "-o", "json"],
    "top": ["top", "-o", "json"],
    "history": ["top", "--history", "1h", "-o", "json"],
    "doctor": ["doctor", "-o", "json"],
    "version": ["version", "-o", "json"],
    "config": ["config", "view", "-o", "json"],
    "config-origins": ["config", "view", "--show-origin", "-o", "json"],
    "space": ["system", "df", "-o", "json"],
}
ELSEWHERE = {"event", "test"}  # below; in tests/e2e


def test_each_form_is_a_schema_is_told_and_is_tried():
    page = (ROOT / "docs" / "json.md").read_text()
    for name, schema in FORMS.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert f"schemas/{name}.schema.json" in page, name
    assert {*SHOWN, *ELSEWHERE} == set(FORMS)


@pytest.fixture
def made(hikube: Program) -> Program:
    assert hikube("up", "--backend", "simulator", hikube.file("m.yaml", PAIR)).code == 0
    return hikube


@pytest.mark.parametrize("form", SHOWN)
def test_a_command_prints_the_form(made: Program, form: str):
    changed = made.file("changed.yaml", PAIR.replace("u1.medium", "u1.small").replace("hostname: web", "packges: [a]"))
    words = [str(changed) if w == "CHANGED" else w for w in SHOWN[form]]
    found = valid(form, made(*words).json)
    if form in ("findings", "plan", "events", "ports", "doctor"):
        assert found, "an empty list proves nothing"


def test_each_line_of_up_is_an_event(made: Program):
    other = made.file(
        "n.yaml",
        PAIR.replace("name: web", "name: api").replace("name: sys", "name: api-sys").replace("- sys", "- api-sys"),
    )
    lines = [json.loads(line) for line in made("up", "--backend", "simulator", other, "-o", "json").out.splitlines()]
    assert [valid("event", line)["type"] for line in lines][-1] == "result" and len(lines) > 3


@pytest.mark.parametrize("form", FORMS)
def test_a_form_refuses_what_lacks_a_key(form: str):
    """A schema that takes everything would hold nothing."""
    schema = FORMS[form]
    wrong = [{}] if schema.get("type") == "array" else {"a": 1}
    if form == "events":
        wrong = [{"type": "step"}]
    with pytest.raises(AssertionError):
        valid(form, wrong)
