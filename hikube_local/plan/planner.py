"""The decisions: desired and observed to steps. Pure; made anew after each step."""

from __future__ import annotations

from typing import assert_never

from hikube_local.api.objects import Object
from hikube_local.api.sources import Blank, CopyOf, FromImage, FromUpload, FromUrl, fetched
from hikube_local.plan.running import wants_to_run
from hikube_local.plan.steps import (
    DiskObserved,
    MachineDesired,
    MachineObserved,
    Planned,
    RunState,
    Step,
    Verb,
)
from hikube_local.render.machine import storage_bytes
from hikube_local.store.records import Intent
from hikube_local.text import mask_url, size

_ON = (RunState.RUNNING, RunState.PAUSED, RunState.FAILED)


def plan_disk(obj: Object, seen: DiskObserved) -> Planned:
    """Steps for a VMDisk."""
    if obj.deletion:
        return Planned((Step(Verb.DELETE, obj.key, "deletion requested"),))
    steps: list[Step] = []
    unknown: tuple[str, ...] = ()
    content = obj.disk.content
    if not seen.exists and isinstance(content, FromUpload):
        # Nothing can be done here: image-upload brings the content.
        return Planned((), unknown=(f"waits for: {upload_words(obj)}",))
    if not seen.exists:
        steps.append(Step(Verb.IMPORT, obj.key, source_words(obj)))
        if fetched(content):
            unknown = ("format and size: known after fetch",)
    elif seen.size < storage_bytes(obj):
        steps.append(Step(Verb.GROW, obj.key, f"{size(seen.size)} -> {obj.disk.storage}"))
    if seen.exists and seen.generation != obj.generation:
        steps.append(Step(Verb.RECORD, obj.key, "the manifest changed"))
    return Planned(tuple(steps), unknown=unknown)


def upload_words(obj: Object) -> str:
    """The command that brings an upload's content."""
    where = "" if obj.namespace == "default" else f" -n {obj.namespace}"
    return f"hikube-local image-upload vmdisk {obj.name}{where} --image-path FILE"


def source_words(obj: Object) -> str:
    """Where the disk's content comes from, in words."""
    match obj.disk.content:
        case FromUrl(url):
            return f"from {mask_url(url)}"
        case FromImage(name):
            return f"from image {name}"
        case CopyOf(name):
            return f"a copy of disk {name}"
        case FromUpload():
            return "waits for an upload"
        case Blank():
            return "empty"
        case other:
            assert_never(other)


def _can_grow(want: MachineDesired, seen: MachineObserved) -> bool:
    """Whether nothing but its size differs, and it can be given that while it runs."""
    same = want.shape and want.shape == seen.live_shape
    return bool(same) and seen.capacity.within(want.capacity) and want.capacity.within(seen.most)


def plan_machine(
    obj: Object, want: MachineDesired, seen: MachineObserved, intent: Intent, restart_stale: bool = False
) -> Planned:
    """Steps for a VMInstance whose disks are there; `restart_stale`: it is restarted where a change needs that."""
    key = obj.key
    on = seen.state in _ON
    if obj.deletion:
        stop = (Step(Verb.STOP, key, "deletion requested"),) if on else ()
        return Planned((*stop, Step(Verb.DELETE, key, "deletion requested")))
    steps: list[Step] = []
    run = wants_to_run(obj, seen, intent)
    if not seen.folder or seen.generation != obj.generation:
        steps.append(Step(Verb.RECORD, key, "the manifest changed" if seen.folder else "new"))
    if seen.seed != want.seed:
        steps.append(Step(Verb.SEED, key, "its content changed" if seen.seed else ""))
    stale = on and seen.live_definition not in ("", want.cold or want.definition)
    grows = stale and _can_grow(want, seen)
    stale = stale and not grows
    ended = intent.end_boot is not None and intent.end_boot == seen.started
    broken = seen.state is RunState.FAILED
    restart = on and run is True and (ended or broken or (restart_stale and stale))
    if on and (run is False or restart):
        why = "QEMU stopped it for an error" if broken else "for a restart" if restart else ""
        steps.append(Step(Verb.STOP, key, why))
    if not seen.network and (run or on):
        steps.append(Step(Verb.NETWORK, key))
    if seen.definition != want.definition and not (on and seen.renamed):
        steps.append(Step(Verb.DEFINE, key, "the machine's definition changed" if seen.definition else ""))
    if run and (not on or restart):
        why = "it crashed" if seen.state is RunState.CRASHED else ""
        steps.append(Step(Verb.START, key, why))
    if grows and run is not False and not restart:
        steps.append(Step(Verb.RESIZE, key, str(want.capacity)))
    if on and run is not False and not restart and not stale and seen.hot != want.hot:
        changes = [f"+{n}" for n in sorted(want.hot - seen.hot)] + [f"-{n}" for n in sorted(seen.hot - want.hot)]
        steps.append(Step(Verb.PLUG, key, " ".join(changes)))
    on_after = (on and run is not False) or bool(run)
    if on_after and seen.forwards != want.forwards:
        steps.append(Step(Verb.FORWARDS, key, "its ports changed" if seen.forwards else ""))
    return Planned(tuple(steps), restart_required=stale and not restart and run is not False)
