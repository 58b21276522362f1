"""Which image a VMDisk stands on: a URL, a name of the catalogue or of the configuration, a recipe of ours."""

from __future__ import annotations

from dataclasses import dataclass

from hikube_local.api.objects import Object
from hikube_local.catalogue import data
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, Event, EventType
from hikube_local.images import build, fetch
from hikube_local.images.cache import Cache, Entry
from hikube_local.text import mask_url


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch, and the recipe that serves where it cannot be reached."""

    url: str
    recipe: str = ""
    checksum: str = ""
    name: str = ""


def wanted(obj: Object, own_images: dict[str, dict[str, str]]) -> Wanted | None:
    """The image of a disk, or None for a disk without one."""
    source = obj.disk.source
    if source.http:
        return Wanted(source.http.url)
    if source.image is None:
        return None
    name = source.image.name
    if name in own_images:
        row = own_images[name]
        return Wanted(row["url"], checksum=row.get("checksum", ""), name=name)
    image = data.images().get(name)
    if image is None or not image.url:
        why = image.reason if image else "it is in neither catalogue"
        raise HikubeError(
            "HK312", f"image {name} cannot be had: {why}", fix="name a URL under images: in the configuration"
        )
    return Wanted(image.url, image.recipe, image.checksum, name)


def obtain(obj: Object, cache: Cache, own_images: dict[str, dict[str, str]], emit: Emit, offline: bool) -> Entry | None:
    """The image of a disk in the cache: from there, downloaded, or built where the vendor cannot be reached."""
    want = wanted(obj, own_images)
    if want is None:
        return None
    if entry := cache.lookup(want.url):
        return entry
    if offline:
        if want.recipe and (entry := build.built(cache, want.recipe)):
            return entry
        raise HikubeError(
            "HK706",
            f"offline, and {want.name or mask_url(want.url)} is not in the cache",
            fix="run it once with a network",
        )
    try:
        return fetch.fetch(cache, want.url, emit, obj.ref, want.checksum)
    except fetch.Unreachable as e:
        if not want.recipe:
            raise
        entry = build.built(cache, want.recipe)
        word = "taken from the cache, built earlier" if entry else "built here from Debian's packages"
        emit(Event(EventType.DIFFERENCE, f"image {want.name} is {word}: {e.what}", obj.ref, obj.namespace))
        return entry or build.build(cache, want.recipe, emit)
