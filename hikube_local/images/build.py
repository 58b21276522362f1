"""Build an image from a recipe (images/NAME/recipe.yaml): packages, one ext4 partition, GRUB, a compressed qcow2.

No mount, no loop device, no privileges: mmdebstrap makes the tree, `mkfs.ext4 -d` fills the partition, GRUB's boot.img and
core.img are laid before it. As an ordinary user the steps that need root's ids run in a user namespace (uidmap).
"""

from __future__ import annotations

import hashlib
import io
import os
import shlex
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import yaml

from hikube_local import files
from hikube_local.api.quantities import in_bytes
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.host import userns
from hikube_local.images import intake
from hikube_local.images.cache import Cache, Entry
from hikube_local.records import dataclass
from hikube_local.run import clean_environment, run

SECTOR = 512
START = 1 << 20  # the partition begins at 1 MiB, as everywhere
GRUB = Path("/usr/lib/grub/i386-pc")
_FILL = Path(__file__).with_name("fill.py")
_MODULES = [
    "biosdisk",
    "part_msdos",
    "ext2",
    "normal",
    "linux",
    "echo",
    "serial",
    "terminal",
    "configfile",
    "search",
    "search_label",
    "minicmd",
    "ls",
    "test",
]
_GRUB_EARLY = "search --label root --set root\nset prefix=($root)/boot/grub\nconfigfile ($root)/boot/grub/grub.cfg\n"
_GRUB_MENU = """serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=0
set default=0
menuentry "{name}" {{
  linux /vmlinuz {command_line}
  initrd /initrd.img
}}
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe and the digest that names what it builds."""

    name: str
    values: dict[str, Any]
    digest: str


def folder() -> Path:
    """The recipes: beside the package in a wheel, at the top of a checkout."""
    packaged = Path(__file__).parent.parent / "_recipes"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent.parent / "images"


def recipes() -> dict[str, Recipe]:
    found = {}
    for path in sorted(folder().glob("*/recipe.yaml")):
        raw = path.read_bytes()
        values = yaml.safe_load(raw)
        if like := values.pop("like", ""):  # the same but for what it says itself
            base = folder().joinpath(like, "recipe.yaml").read_bytes()
            raw, values = base + raw, {**yaml.safe_load(base), **values}
        # What the builder does is part of what comes out.
        digest = hashlib.sha256(raw + b"".join(p.read_bytes() for p in (Path(__file__), _FILL))).hexdigest()
        found[values["name"]] = Recipe(values["name"], values, digest)
    return found


def built(cache: Cache, name: str) -> Entry | None:
    """The image that this recipe built before, if it is in the cache."""
    recipe = recipes().get(name)
    return cache.lookup(f"recipe:{recipe.name}:{recipe.digest}") if recipe else None


def build(cache: Cache, name: str, emit: Emit, force: bool = False) -> Entry:
    """Build the image, or hand back the one that this very recipe built before."""
    recipe = recipes().get(name)
    if recipe is None:
        raise HikubeError("HK705", f"there is no recipe {name!r}", fix=f"recipes: {', '.join(recipes())}")
    key = f"recipe:{recipe.name}:{recipe.digest}"
    with cache.lock(key, emit):
        if not force and (entry := cache.lookup(key)):
            return entry
        for program in ("mmdebstrap", "mkfs.ext4", "grub-mkimage", "qemu-img"):
            _need(program)
        # A path that an ordinary user's namespace can enter; not under a 0700 home.
        with tempfile.TemporaryDirectory(prefix="build-", dir=_space(cache)) as work:
            image = _build(recipe, Path(work), emit)
            return intake.adopt(cache, image, key, f"built from {recipe.name}", verified="built here")


def _need(program: str) -> None:
    from hikube_local.run import find

    find(program)
    if program == "grub-mkimage" and not (GRUB / "boot.img").exists():
        raise HikubeError("HK601", "GRUB's BIOS files are not installed", fix="sudo apt-get install grub-pc-bin")


def _space(cache: Cache) -> Path:
    cache.make()
    free = shutil.disk_usage(cache.folder).free
    if free < 4 << 30:
        raise HikubeError("HK604", f"building needs 4 GiB free in {cache.folder}, there are {free >> 20} MiB")
    return cache.folder / "partial"


def _as_root(argv: list[str]) -> list[str]:
    """The command, with root's ids where we have none."""
    if os.geteuid() == 0:
        return argv
    found, _ = userns.find()
    return [*(found or userns.UsernsLauncher.UNSHARE).as_root(), *argv]


def _say(emit: Emit, recipe: Recipe, message: str) -> None:
    emit(Event(EventType.PROGRESS, message, f"image/{recipe.name}"))


def _build(recipe: Recipe, work: Path, emit: Emit) -> Path:
    values = recipe.values
    tree, tar = work / "root", work / "root.tar"
    _say(emit, recipe, "1/4 packages from Debian (about a minute)")
    argv = ["mmdebstrap", "--variant=minbase", "--format=tar", "--quiet", '--aptopt=Acquire::Languages "none"']
    early = _early(values["early_files"], work)
    argv += [f"--setup-hook={shlex.join(['tar-in', str(early), '/'])}", f"--include={','.join(values['packages'])}"]
    argv += [values["suite"], str(tar), *_mirrors(values)]
    try:
        run(argv, timeout=1800)
    except HikubeError as e:
        raise HikubeError(
            "HK705",
            f"the packages of {recipe.name} could not be installed",
            e.why,
            "is Debian's mirror reachable? run it again; apt's proxy settings are honoured",
        ) from e
    _say(emit, recipe, "2/4 file system")
    size = in_bytes(values["size"])
    partition = work / "partition.ext4"
    script = work / "fill.py"
    shutil.copy(_FILL, script)
    files.write_json(
        work / "fill.json",
        {
            "tar": str(tar),
            "tree": str(tree),
            "partition": str(partition),
            "size": size - START,
            "files": laid(values),
        },
    )
    python = shutil.which("python3", path="/usr/bin:/bin") or "python3"
    try:
        # An ordinary user's PATH may lack /usr/sbin, where mkfs.ext4 is.
        run(_as_root([python, "-I", str(script), str(work / "fill.json")]), timeout=600, env=clean_environment())
    finally:
        # The tree's owners are ids that only the namespace may delete; it is gone already when all went well.
        run(_as_root(["rm", "-rf", "--one-file-system", str(tree)]), check=False)
    _say(emit, recipe, "3/4 boot loader")
    disk = work / "disk.raw"
    _assemble(disk, partition, work, size)
    _say(emit, recipe, "4/4 compressing")
    image = work / "image.qcow2"
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-W", "-m", "8", disk, image], timeout=600)
    return image


def laid(values: dict[str, Any]) -> dict[str, str]:
    """The files that are laid into the tree when its packages are installed."""
    texts = {path: text.replace("{suite}", values["suite"]) for path, text in values["files"].items()}
    return {**texts, "/boot/grub/grub.cfg": _GRUB_MENU.format(**values)}


def _early(texts: dict[str, str], work: Path) -> Path:
    """A tar of the files that are there before the packages are installed."""
    path = work / "early.tar"
    with tarfile.open(path, "w") as tar:
        for name, text in texts.items():
            entry = tarfile.TarInfo(f".{name}")
            entry.size, entry.mode = len(text.encode()), 0o755 if text.startswith("#!") else 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


def _mirrors(values: dict[str, Any]) -> list[str]:
    """The recipe's mirror, with updates and security where its host serves them."""
    base, suite = values["mirror"], values["suite"]
    security = base.rsplit("/", 1)[0] + "/debian-security"
    return [f"deb {base} {suite} main", f"deb {base} {suite}-updates main", f"deb {security} {suite}-security main"]


def _assemble(disk: Path, partition: Path, work: Path, size: int) -> None:
    """MBR with GRUB's boot.img, core.img behind it, one active Linux partition from 1 MiB on."""
    early = work / "early.cfg"
    early.write_text(_GRUB_EARLY)
    core = work / "core.img"
    run(["grub-mkimage", "-O", "i386-pc", "-d", GRUB, "-c", early, "-p", "/boot/grub", "-o", core, *_MODULES])
    code = core.read_bytes()
    if len(code) > START - SECTOR:
        raise HikubeError("HK705", f"GRUB's core image has {len(code)} bytes, which does not fit before the partition")
    mbr = bytearray(SECTOR)
    mbr[:440] = (GRUB / "boot.img").read_bytes()[:440]
    mbr[440:444] = hashlib.sha256(code).digest()[:4]
    sectors = (size - START) // SECTOR
    entry = bytes([0x80, 0xFE, 0xFF, 0xFF, 0x83, 0xFE, 0xFF, 0xFF])
    mbr[446:462] = entry + (START // SECTOR).to_bytes(4, "little") + sectors.to_bytes(4, "little")
    mbr[510:512] = b"\x55\xaa"
    with open(disk, "wb") as out:
        out.truncate(size)
        out.write(mbr)
        out.write(code)
        copy_sparse(partition, out, START)


def copy_sparse(source: Path, out: Any, offset: int) -> None:
    """Copy the data of a sparse file, not its holes."""
    with open(source, "rb") as f:
        end = os.fstat(f.fileno()).st_size
        at = 0
        while at < end:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            hole = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            f.seek(at)
            out.seek(offset + at)
            left = hole - at
            while left:
                block = f.read(min(left, 1 << 20))
                if not block:
                    break
                out.write(block)
                left -= len(block)
            at = hole
