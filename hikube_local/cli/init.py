"""`init`: a first manifest, with comments, that validates."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common, option
from hikube_local.errors import ExitCode, UsageError
from hikube_local.language import tr

IMAGE, TYPE = "debian-12", "s1.small"


def _images(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from hikube_local.catalogue import data

    return [n for n in data.images() if n.startswith(incomplete)]


def _types(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from hikube_local.catalogue import data

    return [n for n in data.instancetypes() if n.startswith(incomplete)]


@click.command("init")
@click.argument("file", default="", metavar="[FILE]")
@option("--name", default=None, help="Name of the machine (default: from the file, else web).")
@option("--image", default=None, shell_complete=_images, help=f"Image by name ({IMAGE}).")
@option("--type", "type_", default=None, shell_complete=_types, help=f"Instance type ({TYPE}).")
@option("--storage", default=None, help="Size of the system disk (default: 10Gi, or what the image needs).")
@option("--port", "ports", type=click.IntRange(1, 65535), multiple=True, help="An open TCP port; several times.")
@option("--ssh-key", "keys", multiple=True, help="A public key or its file; several times.")
@option("--package", "packages", multiple=True, help="A package to install; several times.")
@option("--yes", is_flag=True, help="Ask nothing: what is not given is the default.")
@common
def init(
    app: App,
    file: str,
    name: str | None,
    image: str | None,
    type_: str | None,
    storage: str | None,
    ports: tuple[int, ...],
    keys: tuple[str, ...],
    packages: tuple[str, ...],
    yes: bool,
) -> int:
    """Write a manifest with a disk and a machine, with comments; on a terminal it asks for what is not given.

    Without FILE, or with -, it is printed. A file that exists is never overwritten.
    """
    from hikube_local.catalogue import data
    from hikube_local.manifests import template
    from hikube_local.paths import document
    from hikube_local.text import size

    target = Path(file) if file not in ("", "-") else None
    if target is not None and target.exists():
        raise UsageError("HK810", f"{target} exists", fix="choose another name, or remove it first")
    asks = not yes and sys.stdin.isatty()
    guess = target.stem if target is not None else "web"
    name = name or _ask(asks, "Name of the machine", guess)
    image = image or _ask(asks, "Image (hikube-local catalog images)", IMAGE)
    type_ = type_ or _ask(asks, "Instance type (hikube-local catalog instancetypes)", TYPE)
    if asks and not ports:
        ports = tuple(_numbers(_ask(True, "Open TCP ports, with spaces between them", "22 80")))
    named, found = _one("image", image, data.images()), _one("instance type", type_, data.instancetypes())
    wanted = template.Wanted(
        name=_name(name),
        image=image,
        type=type_,
        type_words=f"{found.vcpu} vCPU, {size(found.memory)}",
        profile=_profile(image),
        storage=storage or size(max(named.smallest, 10 << 30)),
        user=named.user,
        ports=tuple(dict.fromkeys(ports)),
        ssh_keys=tuple(map(_key, keys)),
        packages=packages,
        schema=document("hikube.schema.json"),
    )
    text = template.manifest(wanted)
    _judged(text)
    if target is None:
        print(text, end="")
        return ExitCode.DONE
    try:
        with open(target, "x", encoding="utf-8") as out:  # not even one that appeared meanwhile
            out.write(text)
    except OSError as e:
        raise UsageError("HK810", f"{target} cannot be written: {e.strerror}", fix="choose another place") from None
    print(tr(f"{target} written: start it with hikube-local up {target}"), file=sys.stderr)
    return ExitCode.DONE


def _ask(asks: bool, question: str, default: str) -> str:
    return str(click.prompt(question, default=default, err=True)) if asks else default


def _numbers(text: str) -> list[int]:
    words = text.replace(",", " ").split()
    if not all(w.isascii() and w.isdigit() and 0 < int(w) < 65536 for w in words):
        raise UsageError("HK810", f"{text!r} are not TCP ports", fix="write numbers from 1 to 65535")
    return [int(w) for w in words]


def _one(what: str, name: str, known: dict[str, Any]) -> Any:
    from hikube_local.text import nearest

    if name not in known:
        near = nearest(name, list(known))
        fix = f"did you mean {near}?" if near else f"hikube-local catalog {what.replace(' ', '')}s"
        raise UsageError("HK302", f"there is no {what} {name!r}", fix=fix)
    return known[name]


def _name(name: str) -> str:
    from hikube_local.api.names import DNS_1123

    if not DNS_1123.fullmatch(name):
        fix = "write lower-case letters, digits and dashes, or give --name"
        raise UsageError("HK301", f"{name!r} is not a valid name", fix=fix)
    return name


def _profile(image: str) -> str:
    """The profile of the image's family that Hikube has; ubuntu, its default, where there is none."""
    from hikube_local.catalogue import data

    family, _, version = image.rpartition("-")
    likely = {
        **dict.fromkeys(("almalinux", "rocky", "oracle", "cloudlinux"), f"rhel.{version}"),
        "centos-stream": f"centos.stream{version}",
        "opensuse": "opensuse.leap",
    }.get(family, family)
    found = data.profiles().get(likely)
    return likely if found and found.hikube else "ubuntu"


def _key(word: str) -> str:
    """A public key as it is, or the one in a file."""
    from hikube_local.source.ssh_keys import KeyKind, examine

    path = Path(word).expanduser()
    there = " " not in word and path.is_file()
    text = path.read_text(encoding="utf-8", errors="replace").strip() if there else word.strip()
    if "PRIVATE KEY" in text:
        raise UsageError("HK810", f"{path} is a private key", fix=f"give the public one: {path}.pub")
    text = text.splitlines()[0] if text else ""
    if examine(text) is not KeyKind.GOOD:
        raise UsageError(
            "HK810", f"{word} is neither a public key nor the file of one", fix="give ~/.ssh/id_ed25519.pub"
        )
    return text


def _judged(text: str) -> None:
    """What was given is judged as every manifest is."""
    from hikube_local.cli.load import Invalid
    from hikube_local.manifests.load import Fetched
    from hikube_local.manifests.validate import Known, validate
    from hikube_local.source.finding import Severity

    result = validate([Fetched.of("init", text.encode())], None, "default", Known({}, frozenset()), for_plan=True)
    if result.findings.failed:
        for finding in result.findings.of(Severity.ERROR):
            print(finding.render(), file=sys.stderr)
        raise Invalid([f.as_json() for f in result.findings.items])
