"""`images build|pull|import|list|rm|verify|prune`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from hikube_local.cli.app import App, confirm
from hikube_local.cli.options import common, option, output_option
from hikube_local.errors import ExitCode, HikubeError, NotFound, UsageError
from hikube_local.language import tr


@click.group("images")
def images() -> None:
    """Images: build, pull, import, list, rm, verify, prune."""


@images.command("build")
@click.argument("name")
@option("--force", is_flag=True, help="Also when this recipe was built before.")
@common
def build(app: App, name: str, force: bool) -> int:
    """Build an image from Debian's packages: images build debian-12."""
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.images.build import build

    app.layout.make()
    with ProgressPrinter(app) as progress:
        entry = build(app.cache, name, progress, force)
        say_progress(progress, f"image/{name}", "built", done=True)
    _told(name, entry)
    return ExitCode.DONE


def _told(name: str, entry: Any) -> None:
    from hikube_local.text import size

    print(f"{name}: {entry.format}, {size(entry.size)}, sha256:{entry.digest}")


@images.command("pull")
@click.argument("names", metavar="NAME|URL...", nargs=-1, required=True)
@option("--checksum", default="", help="sha256:… or sha512:… of the one image named.")
@common
def pull(app: App, names: tuple[str, ...], checksum: str) -> int:
    """Fetch images, or ask their servers whether they changed: images pull debian-12 https://…"""
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.engine.together import Together
    from hikube_local.events import Emit, Event, EventType
    from hikube_local.images import sources

    if checksum and len(names) != 1:
        raise UsageError("HK810", "--checksum needs exactly one image")
    app.layout.make()
    cache, settings = app.cache, app.image_settings

    def one(name: str, tell: Emit) -> Any:
        try:
            if name.startswith(("http://", "https://")):
                want = sources.Wanted(name, name, checksum=checksum, who_says="--checksum")
            else:
                want = sources.named(name, settings, cache)
            entry = sources.get(want, cache, settings, tell, f"image/{name}", pull=True)
        except HikubeError as e:
            tell(Event(EventType.FAILED, e.what, f"image/{name}", code=e.code, data={"why": e.why, "fix": e.fix}))
            return None
        say_progress(tell, f"image/{name}", "in the cache", done=True)
        return entry

    with ProgressPrinter(app) as progress, Together(progress, workers=4) as work:
        waits = [(name, work.submit(one, name, work.heeding(progress))) for name in dict.fromkeys(names)]
    done = [(name, future.result()) for name, future in waits]
    for name, entry in done:
        if entry:
            _told(name, entry)
    return ExitCode.DONE if all(entry for _, entry in done) else ExitCode.FAILED


@images.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@option("--url", default="", help="Import the file as if it was downloaded from this URL.")
@option("--name", default="", help="A name of your own for source.image.name.")
@option("--checksum", default="", help="sha256:… or sha512:… that it must have.")
@common
def import_(app: App, file: Path, url: str, name: str, checksum: str) -> int:
    """Copy an image file of this host into the cache; the file itself is not changed."""
    from hikube_local.api.names import DNS_1123
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.images import checksums, intake
    from hikube_local.images.cache import own_key

    if not name and not url:
        name = _stem(file)
    if name and not DNS_1123.fullmatch(name):
        raise UsageError(
            "HK301", f"{name!r} is not a valid image name", fix="write lower-case letters, digits and dashes"
        )
    app.layout.make()
    given = checksums.parse(checksum, "--checksum") if checksum else None
    cache = app.cache
    keys = [*([url] if url else []), *([own_key(name)] if name else [])]
    with ProgressPrinter(app) as progress, cache.lock(keys[0], progress):
        say = partial(say_progress, progress, f"image/{name or file.name}")
        entry = intake.take(cache, file.absolute(), keys[0], f"imported from {file.name}", given, say=say)
        say("imported", done=True)
    for key in keys[1:]:
        cache.name(entry, key)
    _told(name or url, entry)
    return ExitCode.DONE


def say_progress(progress: Any, about: str, message: str, done: bool = False, **data: Any) -> None:
    from hikube_local.events import Event, EventType

    progress(Event(EventType.DONE if done else EventType.PROGRESS, message, about, data=data))


def _stem(file: Path) -> str:
    """A name for an image out of its file's: debian-12.qcow2.xz is debian-12; HK810 where none can be made."""
    from hikube_local.api.names import DNS_1123

    stem = re.sub(r"(\.(qcow2|img|raw|vmdk|vdi|vhdx?|iso|gz|xz|bz2|zst))+$", "", file.name.lower())
    name = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:63].strip("-")
    if not DNS_1123.fullmatch(name):
        raise UsageError("HK810", f"no name can be made of {file.name!r}", fix="add --name NAME or --url URL")
    return name


@images.command("list")
@output_option("json", "wide")
@common
def list_(app: App, output: str) -> int:
    """List the images in the cache, the disks that use them, and when they were last used."""
    from hikube_local.cli import tables
    from hikube_local.engine.space import users
    from hikube_local.images.cache import own_name
    from hikube_local.text import age, size, timestamp

    by, now = users(app.layout), time.time()
    rows: list[tuple[dict[str, Any], Sequence[str]]] = []
    for e in app.cache.entries():
        row = {
            "name": own_name(e.key),
            "digest": e.digest,
            "format": e.format,
            "size": e.size,
            "virtualSize": e.virtual_size,
            "origin": e.origin,
            "verified": e.verified,
            "fetched": timestamp(e.fetched),
            "used": timestamp(e.used or e.fetched),
            "usedBy": by.get(e.digest, []),
            "sources": e.sources,
        }
        shown: list[str] = [
            str(row["name"]) or e.origin.rpartition("/")[2] or e.origin,
            size(e.size),
            size(e.virtual_size),
            ",".join(by.get(e.digest, [])) or "<none>",
            "imported" if row["name"] else e.verified or "first use",
            age(now - (e.used or e.fetched)),
        ]
        rows.append((row, [*shown, e.digest[:12], e.format, e.origin] if output == "wide" else shown))
    header = ["NAME", "SIZE", "VIRTUAL", "USED BY", "VERIFIED", "LAST USE"]
    header += ["DIGEST", "FORMAT", "ORIGIN"] if output == "wide" else []
    print(tables.show([r for r, _ in rows], output, lambda: tables.table(header, [c for _, c in rows])))
    return ExitCode.DONE


@images.command("rm")
@click.argument("names", metavar="NAME|URL|DIGEST...", nargs=-1, required=True)
@option("--yes", is_flag=True, help="Answer questions with yes.")
@common
def rm(app: App, names: tuple[str, ...], yes: bool) -> int:
    """Remove images by name, URL or digest; images that disks use are refused."""
    from hikube_local.cli.system import waits
    from hikube_local.engine.space import users
    from hikube_local.images.cache import own_name

    cache, by = app.cache, users(app.layout)
    doomed: dict[str, str] = {}
    for word in names:
        found = [
            e
            for e in cache.entries()
            if word in (own_name(e.key), e.key, e.origin.rpartition("/")[2])
            or (len(word) >= 8 and e.digest.startswith(word.removeprefix("sha256:")))
        ]
        if not found:
            raise NotFound("HK804", f"there is no image {word!r}", fix="hikube-local images list")
        for e in found:
            if e.digest in by:
                what = f"the image {word} is used by the disks {', '.join(by[e.digest])}"
                raise HikubeError("HK806", what, fix="delete them first")
            doomed[e.digest] = word
    confirm(f"Remove {', '.join(dict.fromkeys(doomed.values()))}?", yes)
    with cache.alone(waits):
        for digest in doomed.keys() - users(app.layout).keys():
            cache.forget(digest)
    for word in dict.fromkeys(doomed.values()):
        print(f"{word} removed")
    return ExitCode.DONE


@images.command("verify")
@option("--remote", is_flag=True, help="Whether the catalogue's URLs still answer.")
@common
def verify(app: App, remote: bool) -> int:
    """Check the digest of every image; damaged ones are listed, and downloaded again when next needed."""
    bad = _verify_remote(app) if remote else _verify_kept(app)
    return ExitCode.FAILED if bad else ExitCode.DONE


def _verify_kept(app: App) -> int:
    from hikube_local.cli.system import waits
    from hikube_local.engine.space import users
    from hikube_local.images.cache import digest_of

    cache = app.cache
    bad = 0
    for digest in sorted({e.digest for e in cache.entries()}):
        if digest_of(cache.path(digest)) == digest:
            print(f"{digest[:12]}  ok")
            continue
        bad += 1
        with cache.alone(waits):
            by = users(app.layout)
            cache.forget(digest, keep=digest in by)
        stand = (
            f"; used by the disks {', '.join(by[digest])}: stop their machines, then pull it" if digest in by else ""
        )
        print(tr(f"{digest[:12]}  DAMAGED: its content has another digest{stand}"))
    return bad


def _verify_remote(app: App) -> int:
    from hikube_local.catalogue import data
    from hikube_local.images import http
    from hikube_local.images.fetch import mirrored

    bad = 0
    for name, image in sorted(data.images().items()):
        if not image.url:
            print(tr(f"{name:<22}  no public image: {image.reason}"))
            continue
        try:
            with http.get(mirrored(image.url, app.config.mirrors), {"Range": "bytes=0-511"}):
                print(f"{name:<22}  ok")
        except (HikubeError, http.Again) as e:
            bad += 1
            print(f"{name:<22}  {e.error.what if isinstance(e, http.Again) else e.what}")
    return bad


@images.command("prune")
@option("--dry-run", is_flag=True, help="Say what would be removed, and do nothing.")
@option("--all", "everything", is_flag=True, help="Also remove imported images, which cannot be downloaded again.")
@option("--yes", is_flag=True, help="Answer questions with yes.")
@common
def prune(app: App, dry_run: bool, everything: bool, yes: bool) -> int:
    """Remove images that no disk uses, and incomplete downloads."""
    from hikube_local.cli.system import waits
    from hikube_local.engine import space
    from hikube_local.text import size

    spare = space.unused(app.session, everything)
    for digest, (count, origin) in sorted(spare.images.items()):
        print(f"{digest[:12]}  {size(count):>8}  {origin}")
    for path, count in sorted(spare.files.items()):
        print(tr(f"{path.name[:12]}  {size(count):>8}  {path.parent.name}: not in use"))
    if not spare.size and not spare.files:
        print(tr("nothing to remove"), file=sys.stderr)
        return ExitCode.DONE
    if dry_run:
        print(tr(f"{size(spare.size)} would be freed"))
        return ExitCode.DONE
    confirm(f"Remove these ({size(spare.size)})?", yes)
    kept = space.drop_unused(app.session, spare, everything, waits)
    print(tr(f"{kept} kept: now in use" if kept else f"{size(spare.size)} freed"))
    return ExitCode.DONE
