"""The configuration file: read safely, checked, with the origin of every value."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any

from hikube_local.errors import UsageError
from hikube_local.records import dataclass

KEYS = ("namespace", "bridge", "mirrors", "images", "networks", "linkLocal", "options")


@dataclass(slots=True)
class Config:
    """What config.yaml says; an absent file says nothing."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """Where an object goes that names no namespace."""
        return self.values.get("namespace") or "default"

    @property
    def images(self) -> dict[str, dict[str, str]]:
        return dict(self.values.get("images", {}))

    @property
    def mirrors(self) -> dict[str, str]:
        return dict(self.values.get("mirrors", {}))

    @property
    def networks(self) -> dict[str, str]:
        """Further networks that stand on a bridge of the host's: {network: bridge}."""
        rows = self.values.get("networks", {})
        return {name: row["bridge"] for name, row in rows.items() if row and row.get("bridge")}

    @property
    def link_local(self) -> bool:
        """Whether guests reach 169.254.0.0/16 and fe80::/10 behind this host, where clouds hand out credentials."""
        return self.values.get("linkLocal") is True

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.values.get("options", {}))


def read(path: Path, must_exist: bool = False) -> Config:
    """Read `path`; anything wrong in it is HK606 with its place."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        if must_exist:
            raise UsageError("HK606", f"there is no configuration file {path}") from None
        return Config(path)
    except OSError as e:
        raise UsageError("HK606", f"cannot read {path}: {e.strerror}") from None
    from hikube_local.source import nodes
    from hikube_local.source.finding import Finding

    found: list[Finding] = []
    try:
        content = nodes.decode(str(path), raw)
        documents = [n for n in nodes.documents(nodes.Text(str(path), content), content, found) if n.value is not None]
    except nodes.Refused as e:
        raise UsageError("HK606", "the configuration file cannot be read", why=e.finding.render()) from None
    if found:
        raise UsageError("HK606", "the configuration file cannot be read", why=found[0].render())
    value = documents[0].data if documents else {}
    _check(path, value)
    return Config(path, value)


def _check(path: Path, value: Any) -> None:
    if not isinstance(value, dict):
        raise UsageError("HK606", f"{path} is not a mapping", fix=f"its keys are {', '.join(KEYS)}")
    for key in value:
        if key not in KEYS:
            raise UsageError("HK606", f"{path}: unknown key {key!r}", fix=f"the keys are {', '.join(KEYS)}")
    for key in ("namespace", "bridge"):
        if not isinstance(value.get(key, ""), str):
            raise UsageError("HK606", f"{path}: {key} wants a name, not {value[key]!r}", fix=f'write {key}: "..."')
    if not isinstance(value.get("linkLocal", False), bool):
        raise UsageError("HK606", f"{path}: linkLocal must be true or false", fix="write linkLocal: true or false")
    options = value.get("options", {})
    if not isinstance(options, dict):
        raise UsageError("HK606", f"{path}: options is not a mapping", fix="write options: with one option a line")
    for name, setting in options.items():
        if isinstance(setting, dict | list) or setting is None:
            raise UsageError("HK606", f"{path}: options.{name} wants one value")
    mirrors = value.get("mirrors", {})
    if not isinstance(mirrors, dict) or not all(isinstance(x, str) for pair in mirrors.items() for x in pair):
        raise UsageError("HK606", f"{path}: mirrors maps URL prefixes to URL prefixes or folders")
    networks = value.get("networks", {})
    if not isinstance(networks, dict):
        raise UsageError("HK606", f"{path}: networks is not a mapping", fix="write networks: {NAME: {bridge: br1}}")
    for name, row in networks.items():
        if row is not None and not (
            isinstance(row, dict) and set(row) <= {"bridge"} and isinstance(row.get("bridge", ""), str)
        ):
            raise UsageError("HK606", f"{path}: networks.{name} may have bridge and nothing else")
    images = value.get("images", {})
    if not isinstance(images, dict):
        raise UsageError("HK606", f"{path}: images is not a mapping")
    for name, row in images.items():
        ok = isinstance(row, dict) and isinstance(row.get("url"), str) and set(row) <= {"url", "checksum", "user"}
        if not ok:
            raise UsageError("HK606", f"{path}: images.{name} wants url, and may have checksum and user")
