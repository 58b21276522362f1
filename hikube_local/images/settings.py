"""What the configuration says about images; light, since every command makes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from hikube_local.records import dataclass

# A folder that `bundle` made is known by this file, below its images.
BUNDLED = "images", "bundle.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says about images: own names ({url, checksum, user}) and mirrors (prefix to prefix)."""

    own: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    mirrors: Mapping[str, str] = field(default_factory=dict)
