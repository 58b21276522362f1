"""The pages of the documentation that are written from the program itself; each stays equal to it (tests/simulator/test_pages.py).

python -m tests.pages commands > docs/commands.md, and so for manifests and differences;
python -m tests.pages man FOLDER writes a man page of the program and one of each command.
"""

from __future__ import annotations

import gzip
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import yaml

from hikube_local import __version__
from hikube_local.api.objects import API_VERSION
from hikube_local.catalogue import data
from hikube_local.cli.main import cli
from hikube_local.cli.verbs import SECTIONS, Verb
from hikube_local.codes import CODES
from hikube_local.config import KEYS
from hikube_local.manifests.schema import explain
from hikube_local.text import size

PROGRAM = "hikube-local"
DOCS = Path(__file__).parent.parent / "docs"


def command(verb: Verb) -> click.Command:
    module = importlib.import_module(f"hikube_local.cli.{verb.module}")
    found = getattr(module, verb.name.replace("-", "_"), None) or getattr(module, verb.name.replace("-", "_") + "_")
    assert isinstance(found, click.Command), verb.name
    return found


def commands() -> Iterator[tuple[str, Verb, click.Command]]:
    """(section, the row, the command) of every verb."""
    for section, verbs in SECTIONS.items():
        for verb in verbs:
            yield section, verb, command(verb)


def below(name: str, made: click.Command) -> Iterator[tuple[str, click.Command]]:
    """A command and the commands in it, with their full names."""
    yield name, made
    if isinstance(made, click.Group):
        for word, inner in sorted(made.commands.items()):
            yield from below(f"{name} {word}", inner)


def within(made: click.Command, name: str = "") -> click.Context:
    """The context that the program itself gives a command: click keeps a command's --help as the first context had it."""
    return click.Context(made, info_name=name, parent=click.Context(cli, info_name=PROGRAM, **cli.context_settings))


def usage(name: str, made: click.Command) -> str:
    context = within(made, name)
    return " ".join(made.get_usage(context).removeprefix("Usage: ").split())


def options(made: click.Command) -> list[tuple[str, str]]:
    """(as it is written, what it does) of the command's own options."""
    context = within(made)
    records = [p.get_help_record(context) for p in made.get_params(context) if isinstance(p, click.Option)]
    return [(words, " ".join(about.split())) for words, about in filter(None, records)]


def text(made: click.Command) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (made.help or "").split("\n\n"))


def commands_page() -> str:
    lines = [
        "# Command line",
        "",
        "Every command with its options; written by `python -m tests.pages commands` from the program itself. `hikube-local help COMMAND`",
        "says the same. Each option can be given as an environment variable, too: `--timeout` as HIKUBE_LOCAL_TIMEOUT.",
    ]
    last = ""
    for section, verb, made in commands():
        if section != last:
            lines += ["", f"## {section}"]
            last = section
        for name, one in below(verb.name, made):
            lines += ["", f"### {name}", "", text(one) or verb.help, "", f"    {usage(name, one)}"]
            if rows := options(one):
                lines += ["", "| option | |", "|---|---|"]
                lines += [
                    f"| `{words.replace('|', chr(92) + '|')}` | {about.replace('|', chr(92) + '|')} |"
                    for words, about in rows
                ]
        if verb.also:
            lines += ["", f"Also as: {', '.join(f'`{w}`' for w in verb.also)}."]
        if verb.examples:
            lines += ["", *(f"    {PROGRAM} {e}" for e in verb.examples)]
    return "\n".join(lines) + "\n"


def differences_page() -> str:
    """docs/differences.md, from the table beside it and the codes."""
    tables = yaml.safe_load((DOCS / "differences.yaml").read_text())
    lines = [
        "# What differs from Hikube",
        "",
        "Each difference of a manifest is told when it is used, with its code ([codes.md](codes.md)); `--no-differences` mutes",
        "them. Every field: [manifests.md](manifests.md). What a client of the API sees: [kubernetes.md](kubernetes.md). Each",
        "element of a machine beside KubeVirt's own: `tests/pure/test_beside_kubevirt.py`.",
    ]
    for title, rows in tables.items():
        lines += ["", f"## {title}", "", "| on Hikube | here | told as |", "|---|---|---|"]
        for row in rows:
            codes = [f"[{code}](codes.md#{code.lower()}-{_anchor(CODES[code])})" for code in row.get("codes", ())]
            lines.append(f"| {row['hikube']} | {row['here']} | {', '.join(codes)} |")
    lines += [
        "",
        "## Where it was tried",
        "",
        "Under emulation on Debian 12 (libvirt 9.0, QEMU 7.2), as root and as an ordinary user; under KVM on an emulated",
        "Debian 13 host (libvirt 11.3, QEMU 10.0; `make test-host`). Not tried: KVM on real hardware, Ubuntu 24.04, Fedora.",
        "",
        "Where AppArmor keeps users from making namespaces (Ubuntu 24.04) and rootlesskit is installed, it makes them, and",
        "nothing is lost. Where a user may make none at all (default container profiles) `up` says so (HK518), `doctor` says",
        "what mends it, `docs/trials/network.sh` answers yes or no. Names under `.local` are refused by guests with",
        "systemd-resolved, as on Hikube.",
    ]
    return "\n".join(lines) + "\n"


def _anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def manifests_page() -> str:
    lines = [
        "# Manifests",
        "",
        f"Every field of the two kinds of {API_VERSION}: what it means on Hikube, and what differs here. Written by",
        "`python -m tests.pages manifests` from the program's own data; `hikube-local explain vminstance.spec.FIELD` says the same, and",
        "`hikube-local validate FILE` judges a file. [codes.md](codes.md) has each finding with an example.",
    ]
    for kind in ("VMInstance", "VMDisk"):
        lines += ["", f"## {kind}"]
        for path in data.fields()[kind.lower()]["spec"]:
            found = explain(f"{kind.lower()}.spec.{path}")
            assert found is not None, path
            lines += ["", f"### {kind.lower()}.spec.{path}", "", f"`{found.type}` {found.description}".strip()]
            lines += ["", f"On Hikube: {found.hikube}"] if found.hikube else []
            lines += ["", f"Here: {found.here}"] if found.here else []
    lines += ["", "## Annotations", "", "| annotation | |", "|---|---|"]
    lines += [f"| `{name}` | {about} |" for name, about in annotations().items()]
    lines += ["", "## Instance types", "", "| name | vCPU | memory | on Hikube |", "|---|---|---|---|"]
    lines += [
        f"| {t.name} | {t.vcpu} | {size(t.memory)} | {'yes' if t.hikube else 'no'} |"
        for t in data.instancetypes().values()
    ]
    lines += [
        "",
        "## Profiles",
        "",
        "| name | system | firmware | disk | NIC | least vCPU | least memory | on Hikube |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for p in data.profiles().values():
        cells = (
            p.name,
            p.os,
            p.firmware,
            p.disk_bus,
            p.nic,
            str(p.min_vcpu),
            size(p.min_memory),
            "yes" if p.hikube else "no",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Images", "", "| name | user | smallest | on Hikube |", "|---|---|---|---|"]
    lines += [
        f"| {n} | {i.user or '–'} | {size(i.smallest)} | {'yes' if i.hikube else 'no'} |"
        for n, i in data.images().items()
    ]
    return "\n".join(lines) + "\n"


def annotations() -> dict[str, str]:
    """What each annotation of ours does."""
    return {str(name): str(about) for name, about in data.fields()["annotations"].items()}


def _roff(line: str) -> str:
    line = line.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{line}" if line.startswith((".", "'")) else line


def man(name: str, made: click.Command, about: str, examples: tuple[str, ...] = ()) -> str:
    """A page of section 1."""
    title = f"{PROGRAM}-{name}" if name else PROGRAM
    lines = [f'.TH "{title.upper()}" "1" "" "{PROGRAM} {__version__}" "User Commands"', ".SH NAME"]
    lines += [f"{_roff(title)} \\- {_roff(about.rstrip('.'))}", ".SH SYNOPSIS"]
    for full, one in below(name, made) if name else [("", made)]:
        lines += [".PP", f"\\fB{_roff(usage(full, one))}\\fR"]
    lines.append(".SH DESCRIPTION")
    if not name:
        lines += [
            ".PP",
            _roff("Runs the virtual machines of Hikube's manifests on this machine, with QEMU and libvirt."),
        ]
        for section, verbs in SECTIONS.items():
            lines.append(f".SS {_roff(section)}")
            for verb in verbs:
                lines += [".TP", f"\\fB{_roff(verb.name)}\\fR", _roff(verb.help)]
    for full, one in below(name, made) if name else []:
        if full != name:
            lines.append(f".SS {_roff(full)}")
        lines += [x for part in (text(one) or about).split("\n\n") for x in (".PP", _roff(part))]
        for words, what in options(one):
            lines += [".TP", f"\\fB{_roff(words)}\\fR", _roff(what)]
    if examples:
        lines += [".SH EXAMPLES", ".nf", *(_roff(f"{PROGRAM} {e}") for e in examples), ".fi"]
    lines += [
        ".SH FILES",
        ".TP",
        _roff("/etc/hikube-local/config.yaml, ~/.config/hikube-local/config.yaml"),
        "The configuration: " + _roff(", ".join(sorted(KEYS)) + "."),
    ]
    lines += [".SH SEE ALSO", _roff(f"{PROGRAM}(1)" if name else "virsh(1), qemu-system-x86_64(1), cloud-init(1)")]
    return "\n".join(lines) + "\n"


def man_pages() -> dict[str, str]:
    """Each page by its file's name."""
    from hikube_local.cli.main import cli

    found = {f"{PROGRAM}.1": man("", cli, "virtual machines of Hikube's manifests on this machine")}
    for _, verb, made in commands():
        found[f"{PROGRAM}-{verb.name}.1"] = man(verb.name, made, verb.help, verb.examples)
    return found


PAGES = {"commands": commands_page, "manifests": manifests_page, "differences": differences_page}


def main(words: list[str]) -> None:
    match words:
        case [name] if name in PAGES:
            print(PAGES[name](), end="")
        case ["man", folder]:
            for name, page in man_pages().items():
                (Path(folder) / f"{name}.gz").write_bytes(gzip.compress(page.encode(), 9, mtime=0))
        case _:
            sys.exit(re.sub(r"\n.*", "", __doc__ or ""))


if __name__ == "__main__":
    main(sys.argv[1:])
