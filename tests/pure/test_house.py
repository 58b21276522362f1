"""The house keeps its shape: imports go one way, codes stand in one table, files stay readable."""

from __future__ import annotations

import ast
import re
import tokenize
from pathlib import Path

import pytest

from hikube_local.codes import CODES
from tests.conftest import ROOT

PACKAGE = ROOT / "hikube_local"
# From the bottom up; a room imports from its own row and the rows before it.
ORDER = [
    {"errors", "codes", "text", "urls", "language", "timings", "osdep", "sockets", "records"},
    {"events", "files"},
    {"locks", "log", "paths"},
    {"run", "kubeclient"},
    {"mux"},
    {"api"},
    {"source"},
    {"catalogue"},
    {"readiness"},
    {"render"},
    {"manifests"},
    {"config", "contexts"},
    {"userdata"},
    {"host"},
    {"store"},
    {"plan"},
    {"images"},
    {"disks"},
    {"backends"},
    {"engine"},
    {"lab"},
    {"page"},
    {"access", "kube"},
    {"cli"},
    {"__main__", "pytest_plugin"},
]
RANK = {room: i for i, row in enumerate(ORDER) for room in row}
ALLOWED: set[tuple[str, str]] = set()


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "_recipes" not in p.parts)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    mine = room(path)
    if mine == "__init__":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hikube_local."):
            names = [node.module.split(".")[1]]
        elif isinstance(node, ast.ImportFrom) and node.module == "hikube_local":
            names = [a.name for a in node.names if a.name in RANK]
        for other in names:
            assert RANK[other] <= RANK[mine] or (mine, other) in ALLOWED, f"{path}:{node.lineno} imports {other}"


# Inside backends/qemu, from the bottom up: nobody imports what stands on it, and nobody the facade.
QEMU = [
    {"libvirt", "owners", "firmware", "boot_marks"},
    {"agent"},
    {"network.enter", "network.helpers", "network.processes", "network.mounts"},
    {"network.namespace"},
    {"network.slirp", "network.daemon", "network.lan", "network.listening", "network.port_forwards"},
    {"network.sandbox"},
    {"network.user_network", "network.leftovers", "network.checks"},
    {"network.tenants"},
    {"network.tenant_exec"},
    {"connection"},
    {"context"},
    {
        "machine.sizes",
        "machine.hotplug",
        "machine.usage",
        "machine.screen",
        "machine.logs",
        "machine.stopped",
        "machine.limits",
    },
    {"machine.spec", "machine.follow", "machine.disks"},
    {"machine.definition", "machine.observe", "machine.resize"},
    {"machine.view", "machine.power", "machine.refresh"},
    {"checkpoints.records"},
    {"checkpoints.memory", "checkpoints.merge"},
    {"checkpoints.operations"},
    {"checkpoints.warm"},
    {"backend"},
]
INSIDE = {name: i for i, row in enumerate(QEMU) for name in row}


def test_backends_qemu_has_no_circles():
    folder, prefix = PACKAGE / "backends" / "qemu", "hikube_local.backends.qemu"
    files = {".".join(p.relative_to(folder).with_suffix("").parts): p for p in folder.rglob("*.py")}
    files = {name: p for name, p in files.items() if not name.endswith("__init__")}
    assert set(files) == set(INSIDE), "each file has its rank"
    for mine, path in files.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(prefix):
                continue
            base = (node.module or "").removeprefix(prefix).lstrip(".")
            for alias in node.names:
                if alias.name == "NAME":
                    continue
                other = base if base in INSIDE else f"{base}.{alias.name}".lstrip(".")
                assert INSIDE[other] < INSIDE[mine], f"{mine} imports {other}"
    for path in (PACKAGE / "backends").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            circle = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            circle = circle and "hikube_local" in ast.unparse(node)
            assert not circle, f"{path}:{node.lineno}: an import for types alone hides a circle"


def test_a_backend_is_known_by_its_name_in_one_place():
    """Whoever asks what a backend can do asks for a capability: no name is compared, no class is looked for."""
    for path in modules():
        here = path.relative_to(PACKAGE)
        text = path.read_text()
        inside = here.parts[:2] == ("backends", "qemu") or here.name in ("simulator.py", "registry.py")
        assert inside or not re.search(r"backends(\.| import )(qemu|simulator)", text), (
            f"{path} names a backend's modules"
        )
        found = re.findall(r"""backend\s*[!=]=\s*["']\w+["']|isinstance\([^)]*(?:Qemu|Simulator)""", text)
        assert not found, f"{path}: {found}"


def test_what_an_error_offers_is_true():
    """HK510 offers the default backend: it has every capability that is ever required (Switches is asked for by who can do without)."""
    from hikube_local.backends.capabilities import NOUNS, Switches
    from hikube_local.backends.qemu.backend import QemuBackend

    assert [c for c in NOUNS if not issubclass(QemuBackend, c)] == [Switches]


def imported(path: Path) -> set[str]:
    """The rooms that a module imports from, also inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hikube_local."):
            found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda p: p.name)
def test_the_command_line_asks_the_engine(path):
    """Options in, one call, output: what is stored and what carries machines is not the command line's to know."""
    assert imported(path) & {"store", "backends"} == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "engine").glob("*.py")), ids=lambda p: p.name)
def test_the_engine_knows_no_terminal(path):
    text = path.read_text()
    assert not re.search(r"^\s*(import|from) (click|rich)|\bprint\(|sys\.(argv|std)", text, re.M), path


def test_every_code_that_is_used_is_in_the_table_and_the_other_way_round():
    used = set()
    for path in modules():
        if path.name != "codes.py":
            used |= set(re.findall(r'"(HK\d{3})"', path.read_text()))
    assert used - set(CODES) == set()
    # Codes are never given away twice: one that no code uses any more is taken out of the table.
    assert set(CODES) - used == set()


def test_programs_are_started_in_few_places_and_never_through_a_shell():
    for path in modules():
        text = path.read_text()
        assert "shell=True" not in text and "os.system" not in text, path


def explained(path: Path) -> str:
    """What a module says of itself: its docstrings and comments."""
    with tokenize.open(path) as f:
        said = [t.string for t in tokenize.generate_tokens(f.readline) if t.type == tokenize.COMMENT]
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return "\n".join(
        [*said, *(ast.get_docstring(n) or "" for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, kinds))]
    )


def test_no_module_cites_a_document_that_is_not_here():
    """A newcomer can open what a docstring or a comment names; UIDS-GIDS.md is systemd's."""
    have = {p.name for p in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))} | {"UIDS-GIDS.md"}
    for path in (*modules(), *(ROOT / "tests").rglob("*.py")):
        cited = set(re.findall(r"\b[a-zA-Z][a-zA-Z-]*\.md\b", explained(path)))
        assert cited <= have, f"{path} cites {cited - have}"


def test_modules_can_be_read_in_one_sitting():
    long = {str(p): n for p in modules() if (n := len(p.read_text().splitlines())) > 500}
    assert long == {}


def test_the_page_of_codes_is_the_one_that_is_written():
    from tests.codes_page import page

    assert (ROOT / "docs" / "codes.md").read_text() == page(), "python -m tests.codes_page > docs/codes.md"
