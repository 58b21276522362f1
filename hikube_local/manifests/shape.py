"""The shape of one object: fields, types, names; pydantic's errors in our words, at their places."""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import ValidationError

from hikube_local.api import names
from hikube_local.api.objects import INSTANCE, SPECS, Object
from hikube_local.api.shapes import Shape
from hikube_local.manifests.models import Metadata, read_metadata, read_spec
from hikube_local.records import dataclass
from hikube_local.source.finding import Finding, Findings, Severity
from hikube_local.source.nodes import Node, Text, value_words
from hikube_local.text import nearest

# Mistakes that get copied from Hikube's documentation, with their cure.
CURES = {
    ("VMDisk", "size"): "the field is storage; Hikube ignores size and makes a disk of 5Gi",
    ("VMDisk", "image"): "write source: {image: {name: …}}",
    ("VMDisk", "url"): "write source: {http: {url: …}}",
    ("VMInstance", "systemDisk"): "a field of the retired kind: describe a VMDisk and name it in disks",
    ("VMInstance", "image"): "an image belongs to a VMDisk (source.image.name)",
    ("VMInstance", "storage"): "storage belongs to a VMDisk",
    ("VMInstance", "userData"): "the field is cloudInit",
}
TOP = ("apiVersion", "kind", "metadata", "spec", "status")
PRINTED = ("appVersion",)  # what the platform's API server adds to what it hands out
_WANTED = {
    "bool_type": "a boolean (true or false)",
    "int_type": "a whole number",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
}


def near_key(wanted: str, node: Node) -> str | None:
    """A key of the mapping that was probably meant to be `wanted`."""
    found = nearest(wanted, [k for k in node.value if k != wanted])
    return found if found and found not in TOP else None


def without_nulls(value: Any) -> Any:
    """Null means absent, for every field."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_nulls(v) for v in value]
    return value


def path_text(path: tuple[str | int, ...]) -> str:
    out = ""
    for step in path:
        out += f"[{step}]" if isinstance(step, int) else f".{step}" if out else step
    return out


def build(
    node: Node, text: Text, kind: str, namespace: str | None, default: str, findings: Findings, unknown: str = "strict"
) -> Built | None:
    """The object of a document of ours, or None where there is none to speak of; its findings are added.

    `unknown` says what unknown keys are, in kubectl's words: strict (errors), warn, ignore.
    """
    before = len([d for d in findings.items if d.severity is Severity.ERROR])
    report = _Reporter(node, text, kind, findings, unknown)
    report.top()
    meta = report.metadata()
    spec = report.spec()
    own = meta.namespace if meta else ""
    chosen = own or namespace or default
    if meta:
        report.names(meta, chosen)
    if own and namespace and own != namespace:
        report.error(
            "HK406",
            f"the namespace {own!r} of the object contradicts -n {namespace}",
            ("metadata", "namespace"),
            "leave one of them out: the namespace is part of the machine's identity",
        )
    if meta is None or spec is None:
        return None
    whole = len([d for d in findings.items if d.severity is Severity.ERROR]) == before
    made = Object(
        kind=kind,
        namespace=chosen,
        name=meta.name,
        labels=meta.labels,
        annotations={k: v for k, v in meta.annotations.items() if k != names.LAST_APPLIED},
        spec=spec,
    )
    return Built(made, whole, frozenset(report.judged))


_KEY_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def _shown(text: str) -> str:
    return repr(text[:40])


@dataclass(frozen=True, slots=True)
class Built:
    """An object; not `whole`: errors were told of it, and what they are about was left out. `judged`: fields of the spec
    that were told already, of which nothing more is to be said."""

    object: Object
    whole: bool
    judged: frozenset[str]


def _drop(data: Any, path: tuple[str | int, ...]) -> None:
    """Take a value out; one of a list with the whole list, so that the others keep their places."""
    for at, step in enumerate(path[:-1]):
        if isinstance(path[at + 1], int):
            data.pop(step, None)
            return
        data = data.get(step, {}) if isinstance(data, dict) else {}
    if isinstance(data, dict):
        data.pop(path[-1], None)


class _Reporter:
    """Findings of one document."""

    def __init__(self, node: Node, text: Text, kind: str, findings: Findings, unknown: str) -> None:
        self.node, self.text, self.kind, self.findings, self.mode = node, text, kind, findings, unknown
        self.judged: set[str] = set()
        name = node.get("metadata", "name")
        self.ref = f"{kind}/{name.value}" if name and isinstance(name.value, str) else kind

    def error(self, code: str, message: str, path: tuple[str | int, ...], help: str = "", key: bool = False) -> None:
        at = None
        for n in range(len(path), -1, -1):
            at = self.node.key(*path[:n]) if key and n == len(path) and n else self.node.get(*path[:n])
            if at is not None:
                break
        at = at or self.node
        place = self.text.place(at.line, at.column)
        severity = Severity.WARNING if code == "HK204" and self.mode == "warn" else Severity.ERROR
        if not (code == "HK204" and self.mode == "ignore"):
            self.findings.add(Finding(code, severity, message, place, ref=self.ref, path=path_text(path), help=help))

    def top(self) -> None:
        for key in self.node.value:
            if key not in TOP and key not in PRINTED:
                near = nearest(key, list(TOP))
                in_spec = key in SPECS[self.kind].names()
                help = "it belongs under spec:" if in_spec else f"did you mean {near}?" if near else ""
                self.error("HK204", f"unknown field {key[:60]!r}", (key,), help, key=True)

    def metadata(self) -> Metadata | None:
        part = self.node.get("metadata")
        if part is None or not isinstance(part.value, dict):
            self.error("HK206", "metadata.name is missing", ("metadata",))
            return None
        if part.get("name") is None and part.get("generateName") is not None:
            self.error("HK206", "generateName is not supported: give the object a name", ("metadata", "generateName"))
            return None
        try:
            meta = read_metadata(without_nulls(part.data))
            self.labels(meta)
            return meta
        except ValidationError as e:
            self.pydantic(e, ("metadata",), "HK320")
            return None

    def labels(self, meta: Metadata) -> None:
        """What the API server refuses in labels and annotations (apimachinery's validation)."""
        for key, value in meta.labels.items():
            if not _LABEL_VALUE.fullmatch(value) or len(value) > 63:
                what = f"the label {_shown(key)} has the value {_shown(value)}"
                help = "at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends"
                self.error("HK320", what, ("metadata", "labels", key), help)
        for kind, keys in (("labels", meta.labels), ("annotations", meta.annotations)):
            for key in keys:
                prefix, slash, name = key.rpartition("/")
                good = _KEY_NAME.fullmatch(name) and len(name) <= 63
                if not good or (slash and (len(prefix) > 253 or not _PREFIX.fullmatch(prefix))):
                    what = f"{_shown(key)} is not a valid {'annotation' if kind == 'annotations' else 'label'} name"
                    self.error("HK320", what, ("metadata", kind, key), "write example.org/name or name", key=True)

    def names(self, meta: Metadata, namespace: str) -> None:
        limit = names.INSTANCE_MAX if self.kind == INSTANCE else names.DISK_MAX
        where = ("metadata", "name")
        if not names.DNS_1035.fullmatch(meta.name):
            self.error(
                "HK301",
                f"the name {meta.name[:60]!r} is not a DNS-1035 label",
                where,
                "a lower-case letter first, then letters, digits and -, no dot, no - at the end",
            )
        elif len(meta.name) > limit:
            self.error(
                "HK301",
                f"the name has {len(meta.name)} characters: must be no more than {limit} characters "
                "(release prefix and name share Helm's 53)",
                where,
            )
        if not names.DNS_1123.fullmatch(namespace) or len(namespace) > 63:
            self.error("HK301", f"the namespace {namespace[:70]!r} is not a DNS label", ("metadata", "namespace"))

    def spec(self) -> Any:
        part = self.node.get("spec")
        if part is not None and part.value is not None and not isinstance(part.value, dict):
            self.error("HK205", f"spec is {value_words(part.value)}, expected a mapping", ("spec",))
            return None
        data = without_nulls(part.data) if part is not None and part.value is not None else {}
        try:
            return read_spec(self.kind, data)
        except ValidationError as e:
            self.pydantic(e, ("spec",), "HK205")
            # What is left is judged too, so that everything is told at once. Unknown keys the platform leaves out as well.
            for item in e.errors(include_url=False):
                path = tuple(s for s in item["loc"] if s != "[key]")
                if not path:
                    return None
                if item["type"] != "extra_forbidden":
                    self.judged.add(str(path[0]))
                _drop(data, path if item["type"] == "extra_forbidden" else path[:1])
        try:
            return read_spec(self.kind, data)
        except ValidationError:
            return None  # told already

    def pydantic(self, error: ValidationError, prefix: tuple[str | int, ...], type_code: str) -> None:
        for item in error.errors(include_url=False, include_input=True):
            path = (*prefix, *(s for s in item["loc"] if s != "[key]"))
            name = path_text(path)
            if item["type"] == "extra_forbidden":
                self.unknown(path)
            elif item["type"] == "missing":
                self.error("HK206", f"{name} is missing", path)
            else:
                wanted = _WANTED.get(item["type"], "another type")
                found = self.node.get(*path)
                shown = value_words(found.value) if found is not None else value_words(item["input"])
                help = ""
                if wanted == "text" and isinstance(getattr(found, "value", None), dict) and path[-1] == "cloudInit":
                    help = "it is text for cloud-init: write `cloudInit: |` and indent its lines by two more spaces"
                elif wanted.startswith("text") and found is not None and found.plain:
                    help = f'quote it: "{found.text[:40]}"'
                elif wanted.startswith(("a boolean", "a whole")) and found is not None and isinstance(found.value, str):
                    help = "take the quotes off" if not found.plain else ""
                self.error(type_code, f"{name} is {shown}, expected {wanted}", path, help)

    def unknown(self, path: tuple[str | int, ...]) -> None:
        key = str(path[-1])
        known = list(self.fields(path[:-1]))
        cure = CURES.get((self.kind, key)) if len(path) == 2 else None
        near = nearest(key, known)
        help = cure or (f"did you mean {near}?" if near else "Hikube would silently ignore it")
        what = f"unknown field {path_text(path)[:80]}"
        if key.startswith("_") and len(path) == 2:
            what = f"keys of spec may not begin with _: {key[:60]}"
        self.error("HK204", what, path, help, key=True)

    def fields(self, path: tuple[str | int, ...]) -> tuple[str, ...]:
        """The known keys of the mapping at `path`, which begins with `spec`."""
        shape: type[Shape] | None = SPECS[self.kind]
        for step in path[1:]:
            if isinstance(step, str) and shape is not None:
                shape = shape.part(step)
        return shape.names() if shape else ()
