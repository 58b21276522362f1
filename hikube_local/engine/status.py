"""Objects as Kubernetes shows them: status words as virtctl's, conditions as Kubernetes', phases as CDI's."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, assert_never

from hikube_local.api.objects import API_VERSION, DISK, Key, Object
from hikube_local.api.shapes import plain_spec
from hikube_local.api.sources import Blank, CopyOf, FromImage, FromUpload, FromUrl
from hikube_local.backends.protocol import Backend, View
from hikube_local.errors import HikubeError
from hikube_local.events import Emit, ignore
from hikube_local.plan.running import expected_up
from hikube_local.plan.steps import DiskObserved, MachineObserved, RunState
from hikube_local.readiness.stages import Stage, Trouble
from hikube_local.store.db import Store
from hikube_local.text import timestamp

# What of a status is kept: whoever watches the store is told of its changes.
KEPT = (
    "conditions",
    "printableStatus",
    "phase",
    "addresses",
    "access",
    "startTime",
    "agentConnected",
    "boot",
    "cause",
    "progress",
)
FRESH = 30.0  # seconds for which it is believed how far an import was


def condition(kind: str, value: bool | None, reason: str, message: str = "") -> dict[str, Any]:
    status = {True: "True", False: "False", None: "Unknown"}[value]
    return {"type": kind, "status": status, "reason": reason, "message": message}


def sentence(cause: Trouble | None) -> str:
    """A cause and its remedy as the message of a condition."""
    return "; ".join(filter(None, (cause.message, cause.remedy)))[:600] if cause else ""


def boot(before: dict[str, Any], started: str, phase: str) -> dict[str, Any] | None:
    """The boot under way, or the last one: its start and when each stage was first seen, as far as somebody looked.

    One whose end is the first that was seen has no times.
    """
    if not started:
        return before or None
    stages = list(before["stages"]) if before.get("start") == started else []
    if phase and phase not in [s["stage"] for s in stages]:
        stage = {"stage": str(phase)}
        if stages or phase != Stage.DONE:
            stage["since"] = started if phase == Stage.FIRMWARE else timestamp(time.time())
        stages.append(stage)
    return {"start": started, "stages": stages}


def _with_stages(body: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """A status, and of the same boot the stages that somebody kept while it was looked at."""
    own, other = body.get("boot"), kept.get("boot")
    if not own or not other or own["start"] != other["start"] or len(other["stages"]) < len(own["stages"]):
        return body
    seen = {s["stage"] for s in other["stages"]}
    more = [s for s in own["stages"] if s["stage"] not in seen]
    return {**body, "boot": {**other, "stages": [*other["stages"], *more]}}


def disk_phase(obj: Object, seen: DiskObserved) -> str:
    """CDI's word for where a disk is."""
    if obj.deletion:
        return "Terminating"
    if seen.problem:
        return "Failed"
    if seen.importing:
        return "ImportInProgress"
    if seen.exists:
        return "Succeeded"
    match obj.disk.content:
        case FromUpload():
            return "UploadReady"
        case CopyOf():
            return "CloneScheduled"
        case FromUrl() | FromImage():
            return "ImportScheduled"
        case Blank():
            return "Pending"
        case other:
            assert_never(other)


def machine_word(obj: Object, view: View, disks: dict[str, tuple[Object | None, DiskObserved]], power: str) -> str:
    """virtctl's printableStatus."""
    state = view.observed.state
    if obj.deletion:
        return "Terminating"
    if state is RunState.PAUSED:
        return "Paused"
    if state is RunState.RUNNING:
        return "Running"
    if state is RunState.FAILED:
        return "CrashLoopBackOff"
    if any(seen.problem for _, seen in disks.values()):
        return "DataVolumeError"
    if not expected_up(obj, power):
        return "Stopped"
    if any(disk is None or not seen.exists or seen.importing for disk, seen in disks.values()):
        return "Provisioning"
    if view.host_restarted:
        return "Stopped"
    return "CrashLoopBackOff" if view.observed.started else "Starting"


class Statuses:
    """The Kubernetes form of stored objects, from what is true now. Reads only, `refresh` and `keep` apart."""

    def __init__(self, store: Store, backend: Callable[[str], Backend]) -> None:
        self.store, self._backend = store, backend

    def backend(self, obj: Object) -> Backend:
        return self._backend(obj.backend)

    def resource(self, obj: Object) -> dict[str, Any]:
        """The object with its status; the times of transitions are those that were kept."""
        return self.bare(obj) | {"status": self._status(obj)}

    def bare(self, obj: Object) -> dict[str, Any]:
        """The object as it was asked for, without a look at what there is."""
        metadata: dict[str, Any] = {
            "name": obj.name,
            "namespace": obj.namespace,
            "uid": obj.uid,
            "generation": obj.generation,
            "resourceVersion": str(obj.resource_version),
            "creationTimestamp": timestamp(obj.created),
        }
        for name in ("labels", "annotations"):
            if value := getattr(obj, name):
                metadata[name] = value
        if obj.deletion:
            metadata["deletionTimestamp"] = timestamp(obj.deletion)
        spec = plain_spec(obj.spec)
        return {"apiVersion": API_VERSION, "kind": obj.kind, "metadata": metadata, "spec": spec}

    def refresh(self, obj: Object, emit: Emit = ignore) -> dict[str, Any]:
        """Bring what follows from a running guest to what it does now, and keep the status that it has then."""
        with contextlib.suppress(HikubeError):  # what cannot be brought along is shown as it is
            self.backend(obj).refresh(obj, emit)
        return self.keep(obj)

    def keep(self, obj: Object) -> dict[str, Any]:
        """Keep the conditions with the times of their transitions; the same ones make no new revision. The whole status."""
        status: dict[str, Any] = {}
        with contextlib.suppress(HikubeError):  # as on a disk that is full
            status = self._status(obj)
            body = {k: status[k] for k in KEPT if k in status}
            if body != self.store.status(obj.key):  # most looks find nothing new, and take no turn at writing
                self.store.change_status(obj.key, lambda kept: _with_stages(body, kept))
        return status

    def _status(self, obj: Object) -> dict[str, Any]:
        """The status now; lastTransitionTime: when a condition's status last changed, as far as it was kept."""
        kept = self.store.status(obj.key)
        status = self._disk(obj) if obj.kind == DISK else self._machine(obj, kept)
        before = {c["type"]: c for c in kept.get("conditions", [])}
        for c in status["conditions"]:
            old = before.get(c["type"])
            same = old and old["status"] == c["status"]
            c["lastTransitionTime"] = old["lastTransitionTime"] if old and same else timestamp(time.time())
        return status

    def _disk(self, obj: Object) -> dict[str, Any]:
        seen = self.backend(obj).observe_disk(obj)
        phase, problem = disk_phase(obj, seen), seen.problem
        reason = phase
        guest = self.store.guest(obj.key)
        failed, got = guest.failed, guest.got or {}
        part = ""
        if got and not seen.exists and not obj.deletion and time.time() - got["time"] < FRESH:
            phase = reason = "ImportInProgress"
            part = f"{100 * got['bytes'] / got['total']:.1f}%"
        elif failed and not seen.exists and not obj.deletion:
            phase, reason, problem = "Failed", "ImportFailed", failed["message"]
        ready = phase == "Succeeded"
        status: dict[str, Any] = {
            "phase": phase,
            "progress": "100.0%" if ready else part or "N/A",
            "capacity": seen.size or None,
            "actualSize": seen.actual_size if seen.exists else None,
            "format": seen.format or None,
            "imageDigest": f"sha256:{seen.base}" if seen.base else None,
            "backend": obj.backend,
            "conditions": [condition("Ready", ready, reason, problem)],
        }
        return {k: v for k, v in status.items() if v is not None}

    def disks_of(self, obj: Object) -> dict[str, tuple[Object | None, DiskObserved]]:
        found = {}
        for ref in obj.instance.disks:
            disk = self.store.get(Key(DISK, obj.namespace, ref.name))
            found[ref.name] = (disk, self.backend(disk).observe_disk(disk) if disk else DiskObserved())
        return found

    def _cause(
        self,
        obj: Object,
        on: bool,
        cause: Trouble | None,
        missing: list[str],
        disks: dict[str, tuple[Object | None, DiskObserved]],
    ) -> dict[str, Any] | None:
        """Why the machine is not what it is meant to be, or why a disk of it is not."""
        if cause is not None:
            return cause.as_json()
        if not on and (failed := self.store.guest(obj.key).failed):  # it could not be started
            return dict(failed)
        for name in missing:
            disk, seen = disks[name]
            failed = (self.store.guest(disk.key).failed or {}) if disk else {}
            if message := seen.problem or failed.get("message", ""):
                return {"code": failed.get("code", ""), "message": f"disk {name}: {message}"}
        return None

    def _machine(self, obj: Object, before: dict[str, Any]) -> dict[str, Any]:
        unknown = False
        try:
            view = self.backend(obj).view(obj)
        except HikubeError as e:
            # What there is to be shown is shown in every state, also when libvirt cannot be reached.
            view = View(
                MachineObserved(), trouble=Trouble(e.code, e.what[:300], tuple(filter(None, (e.why,))), e.fix or "")
            )
            unknown = True
        power = self.store.intent(obj.key).power
        disks = self.disks_of(obj)
        word = "Unknown" if unknown and not obj.deletion else machine_word(obj, view, disks, power)
        missing = [
            n for n, (d, seen) in disks.items() if d is None or not seen.exists or seen.problem or seen.importing
        ]
        running = view.observed.state is RunState.RUNNING
        on = view.observed.state in (RunState.RUNNING, RunState.PAUSED)
        ready = running and view.ready
        cause = view.trouble
        if view.host_restarted and expected_up(obj, power) and not obj.deletion:
            fix = f"`hikube-local start {obj.name}` or `up` starts it again"
            cause = cause or Trouble("", "this host was restarted while it ran", remedy=fix)
        trouble = sentence(cause)
        reason = "Ready" if ready else "GuestFailed" if running and view.failed else "Booting" if running else word
        conditions = [
            condition("Ready", ready, reason, trouble),
            condition("DisksReady", not missing, "DisksNotReady" if missing else "AllDisksReady", ", ".join(missing)),
        ]
        if obj.instance.has_seed:
            reason = {True: "Done", False: "Failed", None: "Pending"}[view.cloud_init]
            conditions.append(
                condition("CloudInitSucceeded", view.cloud_init, reason, trouble if view.cloud_init is False else "")
            )
        if view.restart_required:
            message = "a change of the manifest takes effect after `hikube-local restart`"
            conditions.append(condition("RestartRequired", True, "RestartRequired", message))
        started = timestamp(view.observed.started) if view.observed.started and on else ""
        phase = str(view.progress.stage) if view.progress else ""
        if view.progress and view.progress.stage is Stage.DONE:
            phase = "done"
        status: dict[str, Any] = {
            "printableStatus": word,
            "ready": ready,
            "failed": True if running and view.failed else None,
            "phase": phase or None,
            "conditions": conditions,
            "addresses": view.addresses,
            "access": view.access,
            "backend": obj.backend,
            "startTime": started or None,
            "boot": boot(before.get("boot") or {}, started, "done" if ready else phase),
            "cause": self._cause(obj, on, cause, missing, disks),
            "agentConnected": True if on and view.agent else None,
            "accelerator": view.accelerator or None,
            "acceleratorSetBy": view.accelerator_by or None,
            "instanceID": view.instance_id,
            "differences": [{"code": d.code, "message": d.message} for d in view.differences],
            **view.details,
        }
        return {k: v for k, v in status.items() if v is not None}
