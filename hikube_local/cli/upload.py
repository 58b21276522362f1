"""`image-upload`: the content of a VMDisk whose source is an upload."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common, ignored, option
from hikube_local.cli.references import reference
from hikube_local.errors import NotFound, UsageError, worst
from hikube_local.language import tr

# virtctl's options that mean nothing on one host.
_ignored = ignored(
    *("--uploadproxy-url", "--access-mode", "--storage-class", "--volume-mode", "--wait-secs", "--pvc-size"),
    flags=("--insecure", "--no-create", "--force-bind", "--block-volume"),
)


@click.command("image-upload")
@click.argument("words", metavar="dv|pvc|vmdisk NAME", nargs=-1, required=True)
@option(
    "--image-path",
    type=click.Path(path_type=Path),
    required=True,
    help="The image: qcow2, raw, vmdk, …, also compressed.",
)
@option("--size", default="", help="Make the VMDisk, with this storage, when it is not there yet (virtctl's).")
@_ignored
@common
def image_upload(app: App, words: tuple[str, ...], image_path: Path, size: str, **more: object) -> int:
    """Upload the content of a VMDisk: image-upload vmdisk NAME --image-path FILE (as in virtctl)."""
    from hikube_local.api.objects import DISK
    from hikube_local.cli.progress import ProgressPrinter
    from hikube_local.engine import upload as engine

    kind, name = (
        reference("/".join(words) if len(words) == 2 else words[0], DISK)
        if words[0] != "pvc"
        else (DISK, words[-1].removeprefix("vm-disk-"))
    )
    if kind != DISK or len(words) > 2:
        raise UsageError("HK810", "only a VMDisk takes an upload", fix="image-upload vmdisk NAME --image-path FILE")
    try:
        obj = app.find(DISK, name)
    except NotFound:
        if not size or more.get("no_create"):
            raise
        obj = engine.new_disk(app.session, app.namespace, name, size)
    with ProgressPrinter(app) as progress:
        engine.fill(app.session, obj, image_path, progress)
        print(tr(f"Uploading {image_path} completed successfully"))
        done = engine.go_on(app.session, obj, progress)
    code = worst(d.exit_code for d in done.results.values())
    if done.users and not code:
        print(f"started: {', '.join(o.name for o in done.users)}", file=sys.stderr)
    return code
