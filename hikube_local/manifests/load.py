"""Files, folders and standard input to objects with places; every finding of every document, nothing changed."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import field
from pathlib import Path

from hikube_local.api.objects import Object
from hikube_local.manifests import kinds, shape
from hikube_local.osdep import BINARY
from hikube_local.records import dataclass
from hikube_local.source import nodes
from hikube_local.source.finding import Finding, Findings, Place, Severity
from hikube_local.source.nodes import Node, Refused, Text

SUFFIXES = (".yaml", ".yml", ".json")


class Fetched(str):
    """The URL of a manifest, with what was read there."""

    content: bytes

    @classmethod
    def of(cls, url: str, content: bytes) -> Fetched:
        made = cls(url)
        made.content = content
        return made


@dataclass(frozen=True, slots=True)
class Loaded:
    """One object of the input with its place."""

    object: Object
    node: Node
    text: Text
    judged: frozenset[str] = frozenset()  # fields of its spec of which everything was told

    def place(self, *path: str | int, key: bool = False) -> Place:
        """The place of the value (or the key) at `path`, or of the nearest parent that stands in the file."""
        for n in range(len(path), -1, -1):
            found = self.node.key(*path[:n]) if key and n == len(path) and n else self.node.get(*path[:n])
            if found is not None:
                return self.text.place(found.line, found.column)
        return self.text.place(self.node.line, self.node.column)


@dataclass(slots=True)
class Input:
    """What was read."""

    objects: list[Loaded] = field(default_factory=list)
    broken: list[Loaded] = field(default_factory=list)  # with errors; looked at for more, and for nothing else
    findings: Findings = field(default_factory=Findings)
    documents: int = 0


def load(sources: Iterable[str], namespace: str | None, default_namespace: str, unknown: str = "strict") -> Input:
    """Read manifests from files, folders and `-`; `namespace` is -n, which may not contradict an object's own."""
    result = Input()
    return parse(contents(sources, result.findings), namespace, default_namespace, unknown, result)


def parse(
    files: Iterable[tuple[str, bytes]],
    namespace: str | None,
    default_namespace: str,
    unknown: str = "strict",
    result: Input | None = None,
) -> Input:
    """As `load`, of what was read already: (name, content)."""
    result = result or Input()
    for name, raw in files:
        found: list[Finding] = []
        try:
            content = nodes.decode(name, raw)
            text = Text(name, content)
            for node in nodes.documents(text, content, found):
                result.documents += node.value is not None
                _document(result, text, node, namespace, default_namespace, unknown)
        except Refused as e:
            found.append(e.finding)
        for finding in found:
            result.findings.add(finding)
    if not result.objects and not result.findings.failed:
        what = "no VMInstance or VMDisk in the input"
        result.findings.add(Finding("HK112", Severity.ERROR, what, help="name a file, a folder or -"))
    return result


def contents(sources: Iterable[str], findings: Findings) -> Iterator[tuple[str, bytes]]:
    """(name, content) of files, of the manifests in folders, and of standard input; what cannot be read is a finding."""
    for source in sources:
        if isinstance(source, Fetched):
            yield str(source), source.content
            continue
        if source == "-":
            yield "<stdin>", sys.stdin.buffer.read(nodes.MAX_BYTES + 1)
            continue
        path = Path(source)
        try:
            if path.is_dir():
                files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and p.is_file())
                if not files:
                    what = f"no manifest ({', '.join(SUFFIXES)}) in the folder {source}"
                    findings.add(Finding("HK112", Severity.ERROR, what, Place(source)))
                for file in files:
                    yield str(file), _bytes(file)
            else:
                yield source, _bytes(path)
        except OSError as e:
            why = e.strerror or str(e)
            findings.add(Finding("HK101", Severity.ERROR, f"cannot read {source}: {why}", Place(source)))
        except ValueError as e:
            findings.add(Finding("HK101", Severity.ERROR, f"cannot read {source!r}: {e}", Place(source)))


def texts(sources: Iterable[str], findings: Findings) -> list[tuple[str, str]]:
    """(name, text) of the manifests that `load` reads, under names that differ: for a copy of them elsewhere."""
    out: dict[str, str] = {}
    for n, (name, raw) in enumerate(contents(sources, findings), 1):
        short = Path(name).name if name != "<stdin>" else "stdin.yaml"
        try:
            out[short if short not in out else f"{n}-{short}"] = nodes.decode(name, raw)
        except Refused as e:
            findings.add(e.finding)
    return sorted(out.items())


def _bytes(path: Path) -> bytes:
    """The file's content; a pipe is read as bash's <(…) gives it, a device is not."""
    fd = os.open(path, os.O_RDONLY | BINARY)
    with os.fdopen(fd, "rb") as f:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise ValueError("neither a file nor a pipe")
        return f.read(nodes.MAX_BYTES + 1)


def _document(result: Input, text: Text, node: Node, namespace: str | None, default: str, unknown: str) -> None:
    if node.value is None:
        return
    place = text.place(node.line, node.column)
    if not isinstance(node.value, dict):
        what = f"a manifest is a mapping with apiVersion and kind, not {nodes.value_words(node.value)}"
        result.findings.add(Finding("HK201", Severity.ERROR, what, place))
        return
    words = {}
    for name in ("apiVersion", "kind"):
        part = node.get(name)
        if part is None or not isinstance(part.value, str) or not part.value:
            at = text.place(part.line, part.column) if part else place
            near = shape.near_key(name, node)
            help = f"did you mean {name}: instead of {near}:?" if near else f"write {name}: at the top of the document"
            result.findings.add(Finding("HK206", Severity.ERROR, f"{name} is missing or not text", at, help=help))
        else:
            words[name] = part.value
    if len(words) < 2:
        return
    role = kinds.judge(words["apiVersion"], words["kind"])
    if role is kinds.Role.LIST:
        items = node.get("items")
        if items is not None and isinstance(items.value, list):
            for one in items.value:
                _document(result, text, one, namespace, default, unknown)
        return
    field = role.at if isinstance(role, Finding) and isinstance(role.at, tuple) else ("kind",)
    part = node.get(*field) or node
    where = text.place(part.line, part.column)
    if isinstance(role, Finding):
        result.findings.add(role.placed(where))
    elif role is kinds.Role.OTHER:
        named = node.get("metadata", "name")
        label = f"{words['kind']}/{named.value}" if named and isinstance(named.value, str) else words["kind"]
        what = f"{label[:80]} ({words['apiVersion'][:60]}) is skipped: hikube-local does not handle this kind"
        result.findings.add(Finding("HK207", Severity.DIFFERENCE, what, where, ref=label[:80]))
    else:
        built = shape.build(node, text, words["kind"], namespace, default, result.findings, unknown)
        if built is not None:
            loaded = Loaded(built.object, node, text, built.judged)
            (result.objects if built.whole else result.broken).append(loaded)
