"""User-data checked without a machine: parts, syntax, keys, types, traps; and which table was used. Pure but for the host's schema."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hikube_local.catalogue import data
from hikube_local.catalogue.cloudconfig import CLOUD_CONFIG, SECRET_LIMIT
from hikube_local.manifests.userdata import known
from hikube_local.source.finding import Finding, Place, Severity
from hikube_local.source.nodes import Node
from hikube_local.text import nearest
from hikube_local.userdata import parts, schema, template, traps, tree, whole

SCHEMA = Path("/usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json")
_HEADERS = ["#cloud-config", "#include", "#cloud-boothook", "#part-handler", "#cloud-config-archive"]


def check(raw: bytes, keys_given: bool = False, bare: bool = True) -> list[Finding]:
    """Everything that is found, in the order of lines. `bare`: a file of its own, not a manifest's cloudInit."""
    found: list[Finding] = []
    if len(raw) > SECRET_LIMIT:
        what = f"the user-data has {len(raw)} bytes, a Secret takes 1 MiB"
        return [Finding("HK327", Severity.ERROR, what, 1)]
    try:
        found_parts = list(parts.take_apart(raw))
        handled = any(p.kind == parts.HANDLER for p in found_parts)  # one that may take types of its own
        for part in found_parts:
            if handled and not parts.known(part.kind):
                continue
            for note in _part(part):
                line = part.offset + 1 if part.encoded else note.line + part.offset
                found.append(replace(note, at=line) if part.offset or part.encoded else note)
        found += _together(raw, keys_given, bare)
    except parts.Unreadable as e:
        found.append(Finding("HK340", Severity.ERROR, f"the user-data cannot be read: {e}", 1))
    except RecursionError:
        found.append(Finding("HK340", Severity.ERROR, "the user-data is nested too deeply", 1))
    return sorted(_once(found), key=lambda n: (n.line, n.column))


def _together(raw: bytes, keys_given: bool, bare: bool) -> Iterator[Finding]:
    """What is found when the parts are merged as cloud-init merges them."""
    text = raw.decode("utf-8", "replace")
    for lost in whole.replaced(text):
        help = "put both into one part, or write merge_how: [{name: list, settings: [append]}, {name: dict, settings: [recurse_array]}]"
        yield Finding("HK357", Severity.WARNING, f"{lost.words}", lost.line, path=lost.key, help=help)
    root = whole.merged(text)
    if root is not None:
        for note in traps.of_whole(root, keys_given, bare, text):
            if not _hole(note):
                yield replace(note, message=note.message.replace(parts.HOLE, ""))


def used() -> str:
    """Which tables stand behind the answer."""
    own = f"hikube-local's own table of cloud-init's keys (Debian 12 has {schema.HERE})"
    both = SCHEMA.exists() and importlib.util.find_spec("jsonschema") is not None
    return f"{own} and the schema of this host's cloud-init" if both else own


def _once(found: list[Finding]) -> Iterator[Finding]:
    """Where a trap explains a type error, the error itself is left out."""
    explained = {n.path for n in found if n.code in ("HK345", "HK353", "HK340")}
    seen = set()
    for note in found:
        if note.code == "HK342" and note.path in explained:
            continue
        key = (note.code, note.line, note.message)
        if key not in seen:
            seen.add(key)
            yield note


def _part(part: parts.Part) -> Iterator[Finding]:
    text = part.text
    if text.startswith("\ufeff"):
        yield Finding(
            "HK344",
            Severity.WARNING,
            "it begins with a byte order mark, so cloud-init sees no header",
            1,
            help="save it without the byte order mark",
        )
    if not text.strip():
        yield Finding("HK316", Severity.WARNING, "the user-data is empty", 1)
        return
    yield from _header(part)
    script = part.kind.startswith(parts.SCRIPT) or part.kind == "text/cloud-boothook"
    gone = data.headers()["gone"]
    if part.kind == "text/upstart-job":
        version = gone.get("#upstart-job", "")
        yield Finding(
            "HK343",
            Severity.WARNING,
            f"#upstart-job was removed in cloud-init {version}",
            1,
            help="write a systemd unit",
        )
        return
    if part.kind in parts.INCLUDE:
        named = re.match(r"(?i)\s*#include(?:-once)?[ \t]+\S", text)  # behind the word itself it is read as well
        if not named and not any(line.strip() and not line.startswith("#") for line in text.splitlines()):
            what = "#include without a URL below it: nothing is read"
            yield Finding("HK316", Severity.WARNING, what, 1, help="write each URL on its own line")
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                yield Finding("HK350", Severity.DIFFERENCE, f"needs the internet: {line.strip()[:80]}", number)
        return
    if part.kind == parts.JINJA:
        what = "a template: the values of {{ }} and {% %} are known only on the machine"
        yield Finding("HK356", Severity.DIFFERENCE, what, 1)
        yield from _template(text)
        return
    yield from traps.of_text(text, script)
    if part.kind == CLOUD_CONFIG:
        yield from _config(text)
    elif part.kind == parts.ARCHIVE:
        yield from _archive(text)


def _template(text: str) -> Iterator[Finding]:
    """What is wrong whatever the expressions come to."""
    if (wrong := template.refused(text)) is not None:
        line, why = wrong
        what = f"jinja cannot parse the template ({why}): cloud-init ignores all of it"
        yield Finding(
            "HK340", Severity.ERROR, what, line, help="write {% raw %} … {% endraw %} around what is not a template"
        )
        return
    kind, plain = parts.under_template(text)
    if kind == CLOUD_CONFIG and (shown := template.rendered(text)) is not None:
        _, found = tree.read(shown)
        if worst := next((d for d in found if d.code != "HK104"), None):
            what = f"the rendered template is invalid: {worst.message}"
            place = f"with placeholder values, line {worst.place.line}: {worst.place.text.strip()[:80]}"
            yield Finding("HK340", Severity.ERROR, what, 1, help=place)
            return
    for note in _part(parts.Part(kind, plain)):
        if note.code not in ("HK104", "HK340") and not _hole(note):  # branches of a condition stand side by side
            yield replace(note, message=note.message.replace(parts.HOLE, ""))


def _hole(note: Finding) -> bool:
    """Whether it is about a value that a template's expression makes."""
    return isinstance(note.at, Node) and parts.HOLE in json.dumps(tree.data(note.at), default=str, ensure_ascii=False)


def _header(part: parts.Part) -> Iterator[Finding]:
    lines = part.text.lstrip().splitlines()
    first = lines[0] if lines else ""
    if part.kind == CLOUD_CONFIG and (more := re.match(r"(?i)#cloud-config[ \t]+(\S.*)", first)):
        below = any(line.strip() and not line.lstrip().startswith("#") for line in lines[1:])
        if ":" in more[1] and not below:
            what = "everything is on the header line, so it is a comment: the line breaks were lost"
            yield Finding("HK355", Severity.WARNING, what, 1, help="write `cloudInit: |`, not `>`, in the manifest")
        return
    if part.kind:
        if not parts.known(part.kind):
            what = f"a part of the type {part.kind[:60]}, which cloud-init does not know: it is ignored"
            yield Finding("HK344", Severity.WARNING, what, 1, help="write text/cloud-config, text/x-shellscript …")
        return
    squeezed = re.sub(r"[\s_]+", "-", first.lower().strip())
    near = nearest(squeezed, _HEADERS) if first.startswith("#") else None
    if near or re.match(r"#-?cloud", squeezed):
        what = f"the first line {first[:60]!r} is not a header that cloud-init knows: everything is ignored"
        yield Finding("HK344", Severity.WARNING, what, 1, help=f"write {near or '#cloud-config'}")
        return
    yield known("HK316", 1)


def _config(text: str) -> Iterator[Finding]:
    root, found = tree.read(text)
    for wrong in found:
        # PyYAML takes the last of two equal keys without a word, as cloud-init does.
        severity = Severity.WARNING if wrong.code == "HK104" else Severity.ERROR
        code = "HK104" if wrong.code == "HK104" else "HK340"
        at = Place("", max(1, wrong.place.line), max(1, wrong.place.column))
        yield replace(wrong, code=code, severity=severity, at=at)
    if root is None or root.value is None:
        if not found:
            yield Finding("HK316", Severity.WARNING, "the cloud-config is empty: there is nothing to do", 1)
        return
    if not isinstance(root.value, dict):
        what = "a cloud-config must be a mapping of keys: cloud-init rejects anything else"
        yield Finding("HK340", Severity.ERROR, what, root, help="each line of the top level is `key: value`")
        return
    notes = list(schema.check(root))
    for note in notes:
        word = traps.yaml_word(note.at) if note.code == "HK342" else ""
        yield replace(note, help=word) if word else note
    yield from _host_schema(root, {n.path for n in notes})
    yield from traps.of_config(root, text)


def _host_schema(root: Node, told: set[str]) -> Iterator[Finding]:
    """What cloud-init's own schema on this host finds beyond ours."""
    try:
        import jsonschema

        rules = json.loads(SCHEMA.read_bytes())
    except (ImportError, OSError, ValueError):
        return
    for error in jsonschema.Draft4Validator(rules).iter_errors(tree.data(root)):
        steps = list(error.absolute_path)
        path = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps).lstrip(".")
        if path and not any(path == t or t.startswith(path) or path.startswith(t) for t in told):
            what = f"{path}: {error.message[:160]} (the schema of this host's cloud-init)"
            yield Finding("HK342", Severity.WARNING, what, root.get(*steps) or 1, path=path)


def _archive(text: str) -> Iterator[Finding]:
    root, found = tree.read(text)
    if found or root is None or not isinstance(root.value, list):
        yield Finding("HK340", Severity.ERROR, "a cloud-config-archive is a list of parts with type and content", 1)
        return
    for item, content, kind in tree.archived(root):
        if content is None:
            yield Finding("HK340", Severity.ERROR, "a part of the archive has no content", item)
            continue
        if kind in parts.INCLUDE:
            what = "an #include in an archive is not fetched: cloud-init drops this part"
            yield Finding(
                "HK344", Severity.WARNING, what, item, help="put the #include in user-data by itself, or in a MIME part"
            )
            continue
        for note in _part(parts.Part(kind, content.value)):
            yield replace(note, at=content.line + note.line)
