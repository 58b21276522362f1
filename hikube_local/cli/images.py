"""`images build|list`."""

from __future__ import annotations

import time

import click

from hikube_local.cli.app import App, common, option, output_option
from hikube_local.errors import ExitCode


@click.group("images")
def images() -> None:
    """Images: build one from a recipe, list what is kept."""


@images.command("build")
@click.argument("name")
@option("--force", is_flag=True, help="Also when this recipe was built before.")
@common
def build(app: App, name: str, force: bool) -> int:
    """Build an image from Debian's packages: images build debian-12."""
    from hikube_local.cli.story import Story
    from hikube_local.images.build import build
    from hikube_local.images.cache import Cache
    from hikube_local.text import size

    app.layout.make()
    with Story(app) as story:
        entry = build(Cache(app.layout.images, 0o711 if app.layout.root else 0o700), name, story, force)
    print(f"{name}: {size(entry.size)}, sha256:{entry.digest}")
    return ExitCode.DONE


@images.command("list")
@output_option("json")
@common
def list_(app: App, output: str) -> int:
    """The images that are kept, and which disks stand on them."""
    from dataclasses import asdict

    from hikube_local.api.objects import DISK
    from hikube_local.cli import tables
    from hikube_local.disks import qcow2
    from hikube_local.images.cache import Cache
    from hikube_local.text import age, size

    users: dict[str, list[str]] = {}
    for obj in app.store.objects(DISK):
        if obj.backend == "qemu" and (about := qcow2.facts(app.layout.disk(obj.namespace, obj.name))) and about.base:
            users.setdefault(about.base, []).append(f"{obj.namespace}/{obj.name}")
    rows = [asdict(e) | {"usedBy": users.get(e.digest, [])} for e in Cache(app.layout.images).entries()]
    for r in rows:
        r.pop("key")
    cells = [
        [
            r["digest"][:12],
            r["format"],
            size(r["size"]),
            size(r["virtual_size"]),
            ",".join(r["usedBy"]) or "<none>",
            age(time.time() - r["fetched"]),
            r["origin"],
        ]
        for r in rows
    ]
    print(
        tables.show(
            rows,
            output,
            lambda: tables.table(["DIGEST", "FORMAT", "SIZE", "VIRTUAL", "USED BY", "AGE", "ORIGIN"], cells),
        )
    )
    return ExitCode.DONE
