"""Which image a VMDisk stands on: a URL, a name of the catalogue, of the configuration or of one's own, a recipe of ours."""

from __future__ import annotations

import contextlib
from typing import assert_never

from hikube_local.api.objects import Object
from hikube_local.api.sources import Blank, CopyOf, FromImage, FromUpload, FromUrl
from hikube_local.catalogue import data
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.images import build, checksums, fetch, http
from hikube_local.images.cache import Cache, Entry, own_key
from hikube_local.images.settings import Settings
from hikube_local.records import dataclass
from hikube_local.text import mask_url, nearest

CHECKSUM = "hikube.local/checksum"  # annotation of a VMDisk: sha256:… or sha512:…


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch, and the recipe that serves where it cannot be reached."""

    key: str
    url: str = ""
    recipe: str = ""
    checksum: str = ""
    who_says: str = ""
    name: str = ""


def named(name: str, settings: Settings, cache: Cache) -> Wanted:
    """An image by its name: one's own wins over the configuration, that over the catalogue; HK312 when it cannot be had."""
    if cache.lookup(own_key(name)):
        return Wanted(own_key(name), name=name)
    if row := settings.own.get(name):
        return Wanted(row["url"], row["url"], "", row.get("checksum", ""), "the configuration", name)
    image = data.images().get(name)
    if image is None or not image.url:
        known = [*data.images(), *settings.own, *cache.own_names()]
        near = None if image else nearest(name, known)
        why = f"it has no public image: {image.reason}" if image else "no image has that name"
        raise HikubeError(
            "HK312",
            f"image {name}: {why}",
            fix=(f"did you mean {near}? Otherwise " if near else "")
            + f"set a URL under images: in the configuration, or run: hikube-local images import FILE --name {name}",
        )
    return Wanted(image.url, image.url, image.recipe, image.checksum, "the catalogue", name)


def wanted(obj: Object, settings: Settings, cache: Cache) -> Wanted | None:
    """The image of a disk, or None for a disk without one."""
    said = obj.annotations.get(CHECKSUM, "")
    match obj.disk.content:
        case FromUrl(url):
            return Wanted(url, url, checksum=said, who_says=f"the annotation {CHECKSUM}")
        case FromImage(name):
            want = named(name, settings, cache)
            if said:
                return Wanted(want.key, want.url, want.recipe, said, f"the annotation {CHECKSUM}", want.name)
            return want
        case CopyOf() | FromUpload() | Blank():
            return None
        case other:
            assert_never(other)


def keys(obj: Object, settings: Settings, cache: Cache) -> set[str]:
    """The cache's keys that an image of this disk may be found under."""
    content = obj.disk.content
    if isinstance(content, FromImage):
        found = {own_key(content.name)}
        with contextlib.suppress(HikubeError):
            found.add(named(content.name, settings, cache).key)
        return found
    want = wanted(obj, settings, cache)
    return {want.key} if want else set()


def obtain(
    obj: Object,
    cache: Cache,
    settings: Settings,
    emit: Emit,
    storage: int = 0,
    offline: bool = False,
    pull: bool = False,
) -> Entry | None:
    """The image of a disk in the cache: from there, downloaded, or built where the vendor cannot be reached."""
    want = wanted(obj, settings, cache)
    return None if want is None else get(want, cache, settings, emit, obj.ref, obj.namespace, storage, offline, pull)


def get(
    want: Wanted,
    cache: Cache,
    settings: Settings,
    emit: Emit,
    about: str,
    namespace: str = "",
    storage: int = 0,
    offline: bool = False,
    pull: bool = False,
) -> Entry:
    entry = cache.lookup(want.key)
    if entry and (offline or not want.url):
        if want.checksum:
            given = checksums.parse(want.checksum, want.who_says)
            have = fetch.came_as(cache, entry, given.algorithm)
            if have != given.digest:
                what = f"image {want.name or mask_url(want.url)} in the cache"
                raise checksums.mismatch(what, given, have or "(not noted when it was unpacked)")
        cache.touch(entry)
        return entry
    if offline:
        if want.recipe and (entry := build.built(cache, want.recipe)):
            return entry
        raise HikubeError(
            "HK706",
            f"offline, and {want.name or mask_url(want.url)} is not in the cache",
            fix="run it once online, or copy the image here with hikube-local bundle",
        )
    ask = fetch.Request(want.url, about, want.checksum, want.who_says, storage, pull, settings.mirrors)
    try:
        entry = fetch.request(cache, ask, emit)
    except http.Unreachable as e:
        if not want.recipe:
            raise
        found = build.built(cache, want.recipe)
        word = "taken from the cache, built earlier" if found else "built here from Debian's packages"
        emit(Event(EventType.DIFFERENCE, f"image {want.name} is {word}: {e.what}", about, namespace))
        entry = found or build.build(cache, want.recipe, emit)
    cache.touch(entry)
    return entry
