"""Where a disk's content comes from: one class a kind. Whoever tells them apart ends with `assert_never`, so that a kind
that is forgotten somewhere is an error of its types."""

from __future__ import annotations

from typing import assert_never

from hikube_local.records import dataclass


@dataclass(frozen=True, slots=True)
class Blank:
    """Nothing: an empty disk, or an empty CD-ROM drive."""


@dataclass(frozen=True, slots=True)
class FromUrl:
    """A download."""

    url: str


@dataclass(frozen=True, slots=True)
class FromImage:
    """One of the platform's images, or of the configuration's, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class CopyOf:
    """Another disk of the same namespace."""

    disk: str


@dataclass(frozen=True, slots=True)
class FromUpload:
    """A file that the user brings (`image-upload`); until then the disk waits."""


Content = Blank | FromUrl | FromImage | CopyOf | FromUpload


def url_of(content: Content) -> str | None:
    """The address that a manifest has it fetched from, which is somebody's word; None where it names none."""
    match content:
        case FromUrl(url):
            return url
        case FromImage() | CopyOf() | FromUpload() | Blank():
            return None
        case other:
            assert_never(other)


def fetched(content: Content) -> bool:
    """Whether an image is fetched for it, of which nothing is known before."""
    match content:
        case FromUrl() | FromImage():
            return True
        case CopyOf() | FromUpload() | Blank():
            return False
        case other:
            assert_never(other)
