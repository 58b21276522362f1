"""Tables, JSON, YAML, names and kubectl's jsonpath; plain text, never cut or wrapped."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hikube_local.api.objects import VMDiskSpec
from hikube_local.errors import UsageError
from hikube_local.text import UNSAFE, age, columns, moment, one_line, size


def table(header: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> str:
    """Columns with three blanks between them, as kubectl has them; with fewer where a terminal would wrap the lines."""
    lines = [*([list(header)] if header else []), *([one_line(str(c)) for c in row] for row in rows)]
    if not lines:
        return ""
    if (sys.stdout.encoding or "").lower().replace("-", "") not in ("utf8", "utf16"):
        lines = [[c.replace("→", ">") for c in line] for line in lines]
    widths = [max(columns(line[i]) for line in lines) for i in range(len(lines[0]))]
    gap = 3
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns - sum(widths)
        gap = max(1, min(3, room // max(1, len(widths) - 1)))
    return "\n".join(
        (" " * gap).join(c + " " * (w - columns(c)) for c, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_json(value: Any) -> str:
    return re.sub(UNSAFE, lambda m: f"\\u{ord(m[0]):04x}", json.dumps(value, indent=4, ensure_ascii=False))


def as_yaml(value: Any) -> str:
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        pass

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    plain = not re.search(UNSAFE, json.dumps(value, ensure_ascii=False, default=str))  # else all of it by numbers
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=plain, default_flow_style=False).rstrip("\n")


def as_list(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}


def created(resource: dict[str, Any]) -> float:
    return moment(resource["metadata"]["creationTimestamp"])


PORTS_SHOWN = 6


def ports(resource: dict[str, Any], every: bool) -> str:
    """The open ports: `22,80`, `22→10022` where one stands elsewhere on this host, `*` for all; a few unless `every`."""
    access = resource["status"].get("access", [])
    if resource["status"].get("bridge") and not access and _address(resource, "ExternalIP") != "<none>":
        return "*"
    seen = [str(a["port"]) if a["port"] == a["hostPort"] else f"{a['port']}→{a['hostPort']}" for a in access]
    seen = list(dict.fromkeys(seen))  # TCP and UDP of one number
    more = [] if every or len(seen) <= PORTS_SHOWN else [f"+{len(seen) - PORTS_SHOWN + 1}"]
    return ",".join([*(seen[: PORTS_SHOWN - 1] if more else seen), *more]) or "<none>"


def _status(status: dict[str, Any]) -> str:
    """virtctl's word, with the phase while a machine that runs is not ready."""
    word = status["printableStatus"]
    if word != "Running" or status["ready"]:
        return word
    phase = status.get("phase", "")
    if status.get("failed"):
        return f"Failed: {phase}" if phase else "Failed"
    return f"Booting: {'cloud-init' if phase.startswith('cloud') else phase}" if phase else "Booting"


def _address(resource: dict[str, Any], kind: str) -> str:
    found = [a["address"] for a in resource["status"].get("addresses", []) if a["type"] == kind]
    return found[0] if found else "<none>"


def accelerator(status: dict[str, Any], none: str = "<none>") -> str:
    """kvm or tcg, and what overruled this host's own verdict."""
    by = status.get("acceleratorSetBy")
    return (status.get("accelerator") or none) + (f" ({by})" if by else "")


def machine_row(r: dict[str, Any], wide: bool) -> list[str]:
    status, spec = r["status"], r["spec"]
    external, internal = _address(r, "ExternalIP"), _address(r, "InternalIP")
    row = [
        r["metadata"]["name"],
        _status(status),
        str(status["ready"]),
        spec.get("instanceType") or ("<resources>" if spec.get("resources") else "u1.medium"),
        external if external != "<none>" else internal,
        ports(r, wide),
        age(time.time() - created(r)),
    ]
    if wide:
        row += [
            status.get("phase") or "<none>",
            spec.get("instanceProfile") or "ubuntu",
            status["backend"],
            accelerator(status),
            external,
            internal,
            _address(r, "Hostname"),
            status.get("tap", "<none>"),
        ]
    return row


MACHINE_HEADER = ["NAME", "STATUS", "READY", "TYPE", "IP", "PORTS", "AGE"]
MACHINE_WIDE = ["PHASE", "PROFILE", "BACKEND", "ACCELERATOR", "EXTERNAL-IP", "INTERNAL-IP", "HOSTNAME", "TAP"]
DISK_HEADER = ["NAME", "STATUS", "SIZE", "STORAGECLASS", "AGE"]
DISK_WIDE = ["ACTUAL", "FORMAT", "IMAGE", "BACKEND"]


def disk_row(r: dict[str, Any], wide: bool) -> list[str]:
    status, spec = r["status"], r["spec"]
    phase = status["phase"]
    progress = status.get("progress", "N/A")
    phase = next((c["reason"] for c in status["conditions"] if c["reason"] == "ImportFailed"), phase)
    word = "Ready" if phase == "Succeeded" else phase + (f" {progress}" if progress != "N/A" else "")
    row = [
        r["metadata"]["name"],
        word,
        str(spec.get("storage", VMDiskSpec().storage)),
        spec.get("storageClass", VMDiskSpec().storageClass),
        age(time.time() - created(r)),
    ]
    if wide:
        actual = status.get("actualSize")
        image = status.get("imageDigest", "<none>")[:19]
        row += [size(actual) if actual else "<none>", status.get("format") or "<none>", image, status["backend"]]
    return row


# jsonpath, as much of kubectl's as people paste


def jsonpath(template: str, value: Any) -> str:
    """The text of a kubectl jsonpath template; a form that is not known is a usage error."""
    out, rest = "", template
    parts = re.split(r"(\{(?:[^{}\"']|\"[^\"]*\"|'[^']*')*\})", rest)
    tokens = [p for p in parts if p]
    out, at = _render(tokens, 0, value, value)
    if at != len(tokens):
        raise UsageError("HK810", f"jsonpath: {{end}} without {{range}} in {template!r}")
    return out


def _render(tokens: list[str], at: int, root: Any, here: Any) -> tuple[str, int]:
    out = ""
    while at < len(tokens):
        token = tokens[at]
        if not token.startswith("{"):
            out += token
        else:
            inner = token[1:-1].strip()
            if inner == "end":
                return out, at
            if inner.startswith("range "):
                items = _select(inner[6:].strip(), root, here)
                after = at
                for item in items or [None]:
                    text, after = _render(tokens, at + 1, root, item)
                    out += text if items else ""
                at = after
            elif inner[:1] in "\"'":
                out += _literal(inner)
            else:
                out += " ".join(_text(v) for v in _select(inner, root, here))
        at += 1
    return out, at


def _literal(word: str) -> str:
    """The text of a quoted word, with its escapes."""
    body = word[1:-1] if word[0] == '"' else word[1:-1].replace("\\'", "'").replace('"', '\\"')
    try:
        return json.loads(f'"{body}"')
    except ValueError:
        raise UsageError(
            "HK810", f"jsonpath: the text {word} is not understood", fix='write {"\\n"} or {"a text"}'
        ) from None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


_STEP = re.compile(
    r"\.(?P<deep>\.)?(?P<name>(?:\\.|[A-Za-z0-9_*/-])+)|\[(?P<index>-?\d+|\*)\]|\['(?P<key>[^']*)'\]"
    r"|\[\?\(@\.(?P<field>[\w.]+)\s*==\s*(?P<quote>[\"'])(?P<want>.*?)(?P=quote)\)\]"
)


def _select(path: str, root: Any, here: Any) -> list[Any]:
    start = root if path.startswith("$") else here
    path = path.removeprefix("$").removeprefix("@")
    if not path.startswith((".", "[")):
        path = "." + path
    values, at = [start], 0
    if path == ".":
        return values
    while at < len(path):
        match = _STEP.match(path, at)
        if not match:
            raise UsageError(
                "HK810", f"jsonpath: {path[at:]!r} is not understood", fix="write {.items[*].metadata.name}"
            )
        if match["deep"]:
            values = [v for value in values for v in _below(value)]
        values = [v for value in values for v in _step(match, value)]
        at = match.end()
    return values


def _below(value: Any) -> list[Any]:
    """The value and everything in it (`..`)."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(v for child in inner for v in _below(child))]


def _step(match: re.Match[str], value: Any) -> list[Any]:
    if (name := match["name"] or match["key"]) is not None:
        if name == "*":
            return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        name = re.sub(r"\\(.)", r"\1", name)
        return [value[name]] if isinstance(value, dict) and name in value else []
    if match["index"]:
        if not isinstance(value, list):
            return []
        if match["index"] == "*":
            return value
        i = int(match["index"])
        return [value[i]] if -len(value) <= i < len(value) else []
    found = []
    for item in value if isinstance(value, list) else []:
        got = item
        for step in match["field"].split("."):
            got = got.get(step) if isinstance(got, dict) else None
        if _text(got) == match["want"]:
            found.append(item)
    return found


def custom(spec: str, value: Any, headers: bool) -> str:
    """kubectl's custom-columns=NAME:.path,NAME:.path as a table."""
    pairs = [part.partition(":")[::2] for part in spec.split(",")]
    if not spec or any(not name or not path for name, path in pairs):
        raise UsageError(
            "HK810", f"custom-columns: {spec!r} is not understood", fix="NAME:.metadata.name,AGE:.status.phase"
        )
    items = value["items"] if isinstance(value, dict) and value.get("kind") == "List" else [value]

    def cell(path: str, item: Any) -> str:
        path = path.removeprefix("{").removesuffix("}")
        found = _select(path, item, item)
        return ",".join(_text(v) for v in found) if found else "<none>"

    rows = [[cell(path, item) for _, path in pairs] for item in items]
    return table([name for name, _ in pairs] if headers else None, rows)


def show(value: Any, format: str, text: Callable[[], str], no_headers: bool = False) -> str:
    """`value` in the format asked for; an empty one is the command's own text."""
    if format in ("", "wide", "table"):
        return text()
    if format == "json":
        return as_json(value)
    if format == "yaml":
        return as_yaml(value)
    if format == "name":
        items = value["items"] if isinstance(value, dict) and value.get("kind") == "List" else [value]
        names = (f"{i['kind'].lower()}.apps.cozystack.io/{i['metadata']['name']}" for i in items if "metadata" in i)
        return "\n".join(names)
    if format.startswith("custom-columns="):
        return custom(format.removeprefix("custom-columns="), value, not no_headers)
    return jsonpath(format.removeprefix("jsonpath="), value)
