"""`bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common, files_option, option
from hikube_local.cli.references import manifests
from hikube_local.errors import ExitCode
from hikube_local.language import tr


@click.command("bundle")
@click.argument("files", nargs=-1)
@files_option()
@option("--to", "folder", type=click.Path(path_type=Path), required=True, help="A new folder.")
@common
def bundle(app: App, files: tuple[str, ...], filename: tuple[str, ...], folder: Path) -> int:
    """Gather manifests and images, so that `up --offline FOLDER` works on another machine."""
    from hikube_local.api.objects import DISK
    from hikube_local.cli.load import load
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.images import bundle as bundles
    from hikube_local.images import sources
    from hikube_local.manifests.load import texts
    from hikube_local.source.finding import Findings

    named = manifests(files, filename)
    loaded = load(app, named, for_plan=True)
    app.layout.make()
    cache, settings = app.cache, app.image_settings
    entries: dict[str, Any] = {}
    with ProgressPrinter(app) as progress:
        for item in loaded.objects:
            if item.object.kind == DISK and (want := sources.wanted(item.object, settings, cache)):
                obj = item.object
                entries[want.key] = sources.get(want, cache, settings, progress, obj.ref, obj.namespace)
    bundles.write(folder, texts(named, Findings()), entries, cache)
    images = len({e.digest for e in entries.values()})
    print(tr(f"{folder}: {len(loaded.objects)} objects, {images} image{'' if images == 1 else 's'}"))
    print(tr(f"on the other machine: hikube-local up --offline {folder.name}"))
    return ExitCode.DONE
