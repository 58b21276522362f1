"""docs/codes.md: each code with what it is about and, for those of manifests, an example with the very words it gives.

python -m tests.codes_page > docs/codes.md
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import yaml

from hikube_local.codes import CODES
from hikube_local.manifests.validate import Known, validate
from hikube_local.userdata.places import of_file
from tests.conftest import disk, instance
from tests.pure import test_manifests as cases
from tests.pure.test_hostile_yaml import CASES
from tests.pure.test_userdata import GALLERY

GROUPS = {
    "HK1": "Reading",
    "HK2": "Shape",
    "HK3": "Values and user-data",
    "HK4": "Objects together",
    "HK5": "Differences from Hikube",
    "HK6": "This host",
    "HK7": "Images and disks",
    "HK8": "The machine and its network",
    "HK9": "The guest",
}
USER_DATA = {code for code in CODES if "HK340" <= code <= "HK399"}
LONGEST = 600  # characters of an example


def examples() -> dict[str, tuple[str, str]]:
    """{code: (manifest, what is said about it)}, the shortest example of each."""
    texts: list[tuple[str, str]] = []
    for table, make in ((cases.ERRORS, instance), (cases.WARNINGS, instance), (cases.DISKS, disk)):
        for change, code in table.values():
            base = cases.BASE if make is instance else {}
            texts.append((code, _yaml(make(**{**base, **change}))))
    texts += [(code, raw.decode()) for raw, code in CASES.values() if _readable(raw)]
    texts += [
        (
            "HK5",
            _yaml(
                instance(
                    external=True,
                    instanceType="m1.large",
                    runStrategy="Always",
                    gpus=[{"name": "x"}],
                    networks=[{"name": "back"}],
                    cpuModel="Haswell",
                )
            ),
        ),
        ("HK5", _yaml(disk())),
    ]
    out = _userdata()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.yaml"
        for _, text in sorted(texts, key=lambda t: len(t[1])):
            if len(text) > LONGEST:
                continue
            path.write_text(text)
            for d in validate([str(path)], None, "default", Known.nothing()).findings.items:
                said = d.render().replace(f"{folder}/", "")
                out.setdefault(d.code, (text, said))
    return out


def _userdata() -> dict[str, tuple[str, str]]:
    """Of the gallery of user-data: what `cloudinit check` says."""
    out: dict[str, tuple[str, str]] = {}
    for text, expected in sorted(GALLERY.values(), key=lambda pair: len(pair[0])):
        if "\r" in text or len(expected) != 1:
            continue
        for d in of_file("user-data", text.encode()):
            if d.code in USER_DATA:
                out.setdefault(d.code, (text, d.render()))
    return out


def _yaml(text: str) -> str:
    return yaml.safe_dump(json.loads(text), sort_keys=False, width=100)


def _readable(raw: bytes) -> bool:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c == "\n" for c in text)


def page() -> str:
    found = examples()
    lines = [
        "# Codes",
        "",
        "Every finding and every error carries a code that stays the same. This page is written by `python -m tests.codes_page`:",
        "the examples are manifests of the tests, with what the program says about them.",
    ]
    for prefix, title in GROUPS.items():
        lines += ["", f"## {title}"]
        for code, about in CODES.items():
            if not code.startswith(prefix):
                continue
            lines += ["", f"### {code}: {about}"]
            if code in found:
                text, said = found[code]
                lines += ["", *(f"    {line}".rstrip() for line in text.rstrip().splitlines())]
                lines += ["", "says:", "", *(f"    {line}".rstrip() for line in said.splitlines())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
