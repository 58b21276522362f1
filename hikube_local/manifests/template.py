"""A first manifest, as text with comments: what `init` writes; pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hikube_local.api.objects import API_VERSION
from hikube_local.records import dataclass

# What speaks on a port, for the comment beside it.
_SPEAKS = {22: "SSH", 80: "HTTP", 443: "HTTPS", 5432: "PostgreSQL", 3306: "MySQL", 6379: "Redis", 8080: "HTTP"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the manifest is to have; `type` and `profile` as the catalogue names them, `ssh_keys` public keys."""

    name: str
    image: str
    type: str
    type_words: str
    profile: str
    storage: str
    user: str
    ports: tuple[int, ...] = ()
    ssh_keys: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    schema: str = "hikube.schema.json"  # where the JSON schema for editors lies


def manifest(wanted: Wanted) -> str:
    """A VMDisk and a VMInstance that `validate` accepts."""
    w = wanted
    lines = [
        f"# yaml-language-server: $schema={w.schema}",
        f"# Start it with: hikube-local up FILE; log in with: hikube-local ssh {w.name}",
        f"apiVersion: {API_VERSION}",
        "kind: VMDisk",
        "metadata:",
        f"  name: {w.name}-system",
        "spec:",
        "  source:",
        "    image:",
        f"      name: {w.image} # hikube-local catalog images",
        f"  storage: {w.storage} # can grow later, never shrink",
        "  storageClass: replicated",
        "---",
        f"apiVersion: {API_VERSION}",
        "kind: VMInstance",
        "metadata:",
        f"  name: {w.name}",
        "spec:",
        f"  instanceType: {w.type} # {w.type_words}",
        f"  instanceProfile: {w.profile}",
        "  runStrategy: Always # Halted: do not start it",
        "  disks:",
        f"    - name: {w.name}-system",
        *_network(w.ports),
        *_keys(w),
        *_cloud_init(w),
    ]
    return "\n".join([*lines, ""])


def _network(ports: Sequence[int]) -> list[str]:
    if not ports:
        return ["  external: false # true: its ports are open to the outside"]
    rows = [f"    - {p}" + (f" # {_SPEAKS[p]}" if p in _SPEAKS else "") for p in ports]
    return ["  external: true", "  externalMethod: PortList", "  externalPorts:", *rows]


def _keys(w: Wanted) -> list[str]:
    if not w.ssh_keys:
        return [
            "  # sshKeys: who may log in; `hikube-local ssh` brings a key of its own",
            "  # sshKeys:",
            "  #   - ssh-ed25519 AAAA… you@host",
        ]
    return ["  sshKeys:", *(f"    - {json.dumps(key, ensure_ascii=False)}" for key in w.ssh_keys)]


def _cloud_init(w: Wanted) -> list[str]:
    """JSON's strings are YAML's: whatever a name holds, it stays one."""
    lines = ["  cloudInit: |", "    #cloud-config"]
    if w.packages:
        lines += ["    package_update: true", "    packages:", *(f"      - {json.dumps(p)}" for p in w.packages)]
    lines += [
        "    # what each key does: hikube-local explain vminstance.spec.cloudInit; check it with: hikube-local cloudinit check",
        f"    runcmd: # once, at the first boot, as root; you log in as {w.user or 'the user of the image'}",
        f"      - echo {w.name} is configured",
    ]
    return lines
