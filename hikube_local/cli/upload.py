"""`image-upload`: the content of a VMDisk whose source is an upload."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from hikube_local.cli.app import App, common, ignored, option, reference
from hikube_local.errors import ExitCode, HikubeError, NotFound, UsageError

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
    """Bring the content of a VMDisk: image-upload vmdisk NAME --image-path FILE (virtctl's form)."""
    from hikube_local.api.objects import DISK, INSTANCE, Object, VMDiskSpec
    from hikube_local.backends.protocol import Options
    from hikube_local.cli.story import Story

    kind, name = (
        reference("/".join(words) if len(words) == 2 else words[0], DISK)
        if words[0] != "pvc"
        else (DISK, words[-1].removeprefix("vm-disk-"))
    )
    if kind != DISK or len(words) > 2:
        raise UsageError("HK810", "an upload is for a disk", fix="image-upload vmdisk NAME --image-path FILE")
    try:
        obj = app.find(DISK, name)
    except NotFound:
        if not size or more.get("no_create"):
            raise
        spec = VMDiskSpec.model_validate({"source": {"upload": {}}, "storage": size})
        obj = app.store.put([Object(kind="VMDisk", namespace=app.namespace, name=name, spec=spec)])[0]
    if obj.disk.source.upload is None:
        fix = "its source is read once; write source: {upload: {}} for a new disk"
        raise HikubeError("HK806", f"{obj.ref} does not wait for an upload", fix=fix)
    from hikube_local.access.ssh import real

    world = real(app.backend(obj.backend), obj)
    waiting = _copies(app.store.objects(DISK, obj.namespace), name)
    names = {name, *(o.name for o in waiting)}
    machines = app.store.objects(INSTANCE, obj.namespace)
    users = [o for o in machines if names & {d.name for d in o.instance.disks} and not o.deletion]
    with Story(app) as story:
        world.disks.upload(obj, image_path.absolute(), story)
        print(f"Uploading {image_path} completed successfully")
        if not users and not waiting:
            return ExitCode.DONE
        results = app.reconciler(story, Options()).reconcile([o.key for o in (*waiting, *users)])
    if any(done.error for done in results.values()):
        return ExitCode.FAILED
    if users:
        print(f"started: {', '.join(o.name for o in users)}", file=sys.stderr)
    return ExitCode.DONE


def _copies(disks: list[Any], name: str) -> list[Any]:
    """The disks that are copies of this one, and copies of those."""
    found: dict[str, Any] = {}
    while more := [
        d
        for d in disks
        if d.disk.source.disk and d.disk.source.disk.name in {name, *found} and d.name not in found and not d.deletion
    ]:
        found |= {d.name: d for d in more}
    return list(found.values())
