"""A folder with everything that `up --offline` needs on another machine: manifests, images, digests, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from hikube_local import files
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.images import checksums, intake
from hikube_local.images.cache import Cache, Entry
from hikube_local.images.settings import BUNDLED
from hikube_local.text import sanitize

FOLDER, INDEX = BUNDLED


def write(folder: Path, manifests: Iterable[tuple[str, str]], entries: dict[str, Entry], cache: Cache) -> None:
    """Lay it into an empty (or new) folder: `manifests` as (name, text), `entries` by their key."""
    if folder.exists() and any(folder.iterdir()):
        raise HikubeError("HK810", f"{folder} is not empty", fix="name a new folder")
    files.make_folder(folder / FOLDER, 0o755)
    for digest in sorted({e.digest for e in entries.values()}):
        with files.beside(folder / FOLDER / digest, 0o644) as temporary:
            shutil.copyfile(cache.path(digest), temporary)
    rows = {key: {"sha256": e.digest, "origin": e.origin} for key, e in sorted(entries.items())}
    files.write_json(folder / FOLDER / INDEX, rows, 0o644)
    for name, text in manifests:
        files.write(folder / name, text, 0o644)


def read(folder: Path, keys: Iterable[str], cache: Cache, emit: Emit) -> None:
    """Take the images for these keys of a bundle into the cache, each verified with its digest.

    A bundle may be somebody else's: it gives what the manifests ask for and is not here yet, and replaces nothing.
    """
    rows = files.read_json(folder / FOLDER / INDEX)
    for key in sorted(set(keys)):
        row = rows.get(key) if isinstance(rows, dict) else None
        if not isinstance(row, dict):
            continue
        given = checksums.parse(str(row.get("sha256", "")), "the bundle")
        with cache.lock(key, emit):
            if cache.lookup(key):
                continue
            emit(Event(EventType.PROGRESS, f"image {given.digest[:12]} from the bundle {folder}"))
            entry = next((e for e in cache.entries() if e.digest == given.digest), None)
            if entry:
                cache.name(entry, key)
            else:
                path = Path(os.path.abspath(folder / FOLDER / given.digest))
                intake.take(cache, path, key, sanitize(str(row.get("origin", "a bundle")))[:200], given)
