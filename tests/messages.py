"""What the program says, out of its own code: each text of two words or more in the modules that speak to people, with a hole where
something is put in. `python -m tests.messages` lists those that hikube_local/catalogue/fr.po lacks,
which a test forbids, and says what the other languages lack.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

PACKAGE = Path(__file__).parent.parent / "hikube_local"
# What speaks to clients of the API, to a browser, to programs or to nobody.
SILENT = (
    "kube/",
    "page/",
    "catalogue/",
    "language.py",
    *(
        f"render/{name}.py"
        for name in ("domain", "firewall", "kubevirt", "machine", "seed", "tenant", "layout", "growth", "addresses")
    ),
    "api/",
    "codes.py",
    "log.py",
    "records.py",
    "pytest_plugin.py",
    "lab/facts.py",
    "store/file.py",
    "manifests/template.py",
    "manifests/schema.py",
    "userdata/template.py",
    "backends/qemu/network/enter.py",
)
_WORDS = re.compile(r"[A-Za-z]{2,}")
# No sentence: commands, patterns, SQL, rules of nftables, parts of files.
_NONE = re.compile(
    r"^(SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA|ALTER|BEGIN)\b|\\[dwsb(]|\(\?[:P=!]|^\s*(<|\[|\{\{)|^(GET|CONNECT|Host:|Upgrade:|Connection:|Authorization:|sh -c|curl|sudo|printf|cat|ps|test|systemctl|journalctl|ip|nft|exec|command -v|id -un;) |^(Sec-WebSocket|portforward/)"
)


def template(node: ast.AST) -> str | None:
    """A text of the code with {0}, {1} … for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("{", "{{").replace("}", "}}")
    if not isinstance(node, ast.JoinedStr):
        return None
    out, count = "", 0
    for part in node.values:
        if isinstance(part, ast.Constant):
            out += str(part.value).replace("{", "{{").replace("}", "}}")
        else:
            out, count = out + f"{{{count}}}", count + 1
    return out


def _of(tree: ast.AST) -> Iterator[str]:
    skip: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            first = body[0]
            command = isinstance(node, ast.FunctionDef) and any(
                "command" in ast.unparse(d) or "group" in ast.unparse(d) for d in node.decorator_list
            )
            if isinstance(first, ast.Expr):
                skip.add(id(first.value))
                if command and isinstance(first.value, ast.Constant):  # a command's help, paragraph by paragraph
                    for part in str(first.value.value).split("\n\n"):
                        yield " ".join(part.split()).replace("{", "{{").replace("}", "}}")
        if isinstance(node, ast.JoinedStr):
            skip |= {id(part) for part in node.values}
    for node in ast.walk(tree):
        if id(node) not in skip and (text := template(node)) is not None:
            yield text


def _clicks() -> Iterator[tuple[str, str]]:
    """What click says of words that it does not understand, and where: its texts have names in their holes."""
    for name in ("exceptions", "parser", "types", "core"):
        path = Path(click.__file__).with_name(f"{name}.py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("_", "ngettext"):
                for text in (str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)):
                    count = iter(range(9))
                    text += " {param}." if text.startswith("Missing ") and "{" not in text else ""
                    if name == "core" and not text.startswith("Got "):
                        continue  # what is said to who writes a program
                    yield re.sub(r"\{\w+(![rs])?\}", lambda _, n=count: f"{{{next(n)}}}", text), f"click/{name}.py"


def says(text: str) -> bool:
    bare = re.sub(r"\{\d+\}", " ", text).strip()
    return (
        len(_WORDS.findall(bare)) > 1
        and " " in bare
        and not _NONE.search(text)
        and "\n" not in text.strip()
        and not text.startswith(("/", "/proc/", "hostfwd", "layer-", "disk-", "dnsmasq-"))
    )


def told() -> dict[str, str]:
    """Each text, and where it stands."""
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        here = path.relative_to(PACKAGE).as_posix()
        if not here.startswith(SILENT):
            for text in _of(ast.parse(path.read_text())):
                if says(text):
                    found.setdefault(text, here)
    found |= {
        text: where for text, where in _clicks() if says(text) and text != "{0} is not {1}."
    }  # that is any sentence
    return found


if __name__ == "__main__":
    from hikube_local.language import LANGUAGES, messages

    said = told()
    for where, text in sorted((where, text) for text, where in said.items() if text not in messages("fr")):
        print(f"{where}: {text!r}")
    same = {text for text, french in messages("fr").items() if text == french}
    for which in sorted({*LANGUAGES} - {"en", "fr"}):  # told in English until somebody translates it
        if lacking := sorted({*messages("fr")} - same - {*messages(which)}):
            print(f"{which}: {len(lacking)} texts are told in English: {'; '.join(map(repr, lacking[:5]))}")
    sys.exit(any(text not in messages("fr") for text in said))
