"""The backend: a look is a request, and what is to be done is done there. Nothing of it lies on this host."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hikube_local.api import names
from hikube_local.api.objects import INSTANCE, Key, Object
from hikube_local.backends.capabilities import Consoles, Dials, Logs, Pauses, Reboots, Screens, Switches
from hikube_local.backends.protocol import View
from hikube_local.backends.remote import NAME, relay, status
from hikube_local.backends.remote.api import SUBRESOURCES, Api, applied, parsed, seconds
from hikube_local.backends.remote.recorder import Recorder
from hikube_local.errors import HikubeError
from hikube_local.events import Emit
from hikube_local.kubeclient import websocket
from hikube_local.kubeclient.client import Refused
from hikube_local.plan.steps import DiskObserved, MachineObserved, Planned, RunOptions, RunState, Step, Verb
from hikube_local.readiness.stages import Progress, Stage, Trouble, Verdict
from hikube_local.run import program
from hikube_local.source.finding import difference
from hikube_local.store.records import Intent

CREATE, UPDATE = "create", "update"  # its own steps
_RUNS = {"Running": RunState.RUNNING, "Paused": RunState.PAUSED, "CrashLoopBackOff": RunState.FAILED}


class Remote(Dials, Consoles, Screens, Logs, Pauses, Reboots, Switches):
    """`words`: the options that lead a command of ours to the same place; `folder`: makes one for sockets that stand for streams;
    `kept`: one for recorded consoles. Whether a machine may be changed is asked of the session before (`may_be_changed`)."""

    name = NAME

    def __init__(self, api: Api, words: Sequence[str], folder: Callable[[], Path], kept: Path) -> None:
        self.api, self._words, self._folder, self._kept = api, tuple(words), folder, kept

    # what there is

    def raw(self, obj: Object) -> dict[str, Any] | None:
        return self.api.raw(obj.key)

    def status(self, obj: Object, raw: dict[str, Any] | None = None) -> dict[str, Any]:
        """As `get` shows it."""
        raw = raw or self.raw(obj)
        if raw is None:
            return {"conditions": [], "printableStatus": "Stopped", "ready": False, "phase": "Pending", "addresses": []}
        beside = None if status.says_all(raw) else self.api.beside(obj.namespace)
        return status.of(raw, obj, beside)

    def observe_disk(self, obj: Object) -> DiskObserved:
        raw = self.raw(obj)
        if raw is None:
            return DiskObserved()
        now = self.status(obj, raw)
        phase = now.get("phase")
        problem = str((now.get("cause") or {}).get("message") or "") if phase == "Failed" else ""
        there = phase in ("Succeeded", "Unknown", "Failed")
        return DiskObserved(
            there, int(now.get("actualSize") or 0), problem=problem, importing=phase == "ImportInProgress"
        )

    def observe_machine(self, obj: Object) -> MachineObserved:
        raw = self.raw(obj)
        if raw is None:
            return MachineObserved()
        now = self.status(obj, raw)
        state = _RUNS.get(str(now.get("printableStatus")), RunState.SHUTOFF)
        return MachineObserved(state, folder=True, started=seconds(now.get("startTime")))

    def plan(self, obj: Object, intent: Intent, options: RunOptions) -> Planned:
        """What `up` would send. It is worked out here: a dry run that is sent to Cozystack is carried out (cozystack#2981)."""
        raw = self.raw(obj)
        if obj.deletion:
            return Planned((Step(Verb.DELETE, obj.key),) if raw else ())
        if raw is None:
            return Planned((Step(CREATE, obj.key),))
        changed = parsed(raw).spec != obj.spec
        mine = applied(raw) is not None
        unknown = () if mine else ("it was not made from here: `up` changes it with --adopt alone",)
        return Planned((Step(UPDATE, obj.key),) if changed else (), unknown=unknown)

    def view(self, obj: Object) -> View:
        now = self.status(obj)
        phase = str(now.get("phase") or "")
        stage = Stage(phase) if phase in list(Stage) else None
        cause = now.get("cause")
        told = {c["type"]: c["status"] for c in now["conditions"]}
        return View(
            observed=self.observe_machine(obj),
            ready=bool(now.get("ready")),
            failed=bool(now.get("failed")),
            progress=Progress(stage) if stage else None,
            cloud_init={"True": True, "False": False}.get(told.get("CloudInitSucceeded", "")),
            trouble=Trouble.read(cause) if cause else None,
            agent=bool(now.get("agentConnected")),
            accelerator=str(now.get("accelerator") or ""),
            addresses=list(now.get("addresses") or []),
            access=list(now.get("access") or []),
            differences=[difference(d["code"], d["message"]) for d in now.get("differences") or []],
            instance_id=str(now.get("instanceID") or ""),
            restart_required=told.get("RestartRequired") == "True",
        )

    # what is done there

    def prepare(self, obj: Object, options: RunOptions, emit: Emit) -> None:
        """Nothing is chosen here."""

    def refresh(self, obj: Object, emit: Emit) -> None:
        """The other side looks after its guests itself."""

    def perform(self, step: Step, obj: Object, options: RunOptions, emit: Emit) -> None:
        raise HikubeError("HK825", f"{step.verb} is the other side's own matter")

    def follow(self, obj: Object, timeout: float | None, emit: Emit) -> Verdict:
        raise HikubeError("HK825", "who waits asks again")

    def discard(self, obj: Object) -> None:
        raise HikubeError("HK825", f"{obj.ref} can only be deleted in order", fix=f"hikube-local delete {obj.ref}")

    def switch(self, obj: Object, verb: str) -> bool:
        """start, stop or restart, as virtctl asks for it."""
        try:
            self.api.client.put(_below("virtualmachines", obj, verb), {})
        except Refused as e:
            # 409 is KubeVirt's answer to much: that it is so already is one of them, and no error.
            self.api.forget()
            off = self.observe_machine(obj).state in (RunState.SHUTOFF, RunState.ABSENT)
            if e.status == 409 and off and verb == "restart":
                return self.switch(obj, "start")
            if e.status != 409 or off is not (verb == "stop"):
                raise
            return False
        return True

    def pause(self, obj: Object) -> None:
        self.api.client.put(_below("virtualmachineinstances", obj, "pause"), {})

    def unpause(self, obj: Object) -> None:
        self.api.client.put(_below("virtualmachineinstances", obj, "unpause"), {})

    def soft_reboot(self, obj: Object) -> None:
        self.api.client.put(_below("virtualmachineinstances", obj, "softreboot"), {})

    # the ways in

    @contextlib.contextmanager
    def connector(self, obj: Object, port: int) -> Iterator[list[str]]:
        yield [*program(), *self._words, "-n", obj.namespace, "port-forward", obj.name, str(port), "--stdio"]

    def within(self, obj: Object, port: int) -> Callable[[socket.socket], None]:
        return partial(self.carry_socket, obj.key, port)

    def carry(self, obj: Object, port: int) -> int:
        with self._stream(obj, f"portforward/{port}/tcp") as stream:
            relay.over_stdio(stream)
        return 0

    def carry_socket(self, key: Key, port: int, here: socket.socket) -> None:
        """A connection that came in here, to the machine's port; until one of both sides ends."""
        with self._stream(key, f"portforward/{port}/tcp") as stream:
            relay.between(here, stream)

    def console(self, obj: Object) -> Path:
        """KubeVirt's console has one seat: who comes later takes it."""
        return self._stand_in(obj, "console")

    def screen(self, obj: Object) -> Path:
        return self._stand_in(obj, "vnc")

    def screenshot(self, obj: Object) -> bytes:
        answer = self.api.client.send("GET", _below("virtualmachineinstances", obj, "vnc/screenshot"))
        return bytes(answer.content)

    def _stand_in(self, obj: Object, what: str) -> Path:
        """A socket here whose connections are streams there; the first is tried at once, so that a refusal is told."""
        first = [self._stream(obj, what)]
        tag = hashlib.sha256("/".join((*obj.key, what)).encode()).hexdigest()[:12]
        path = self._folder() / f"{tag}.sock"

        def carry(here: socket.socket) -> None:
            with contextlib.suppress(HikubeError), first.pop() if first else self._stream(obj, what) as stream:
                relay.between(here, stream)

        relay.on_socket(path, carry)
        return path

    def _stream(self, obj: Object | Key, what: str) -> websocket.Socket:
        return websocket.connect(self.api.client, _below("virtualmachineinstances", obj, what))

    def record(self, obj: Object) -> Recorder | None:
        """Read the console of a machine that starts; None where the other side tells of its boot itself."""
        raw = self.raw(obj)
        if raw is None or status.says_all(raw):
            return None
        return Recorder(lambda: self._stream(obj, "console"), obj.instance.cloudInit, self._recorded(obj))

    def _recorded(self, obj: Object) -> Path:
        return self._kept / obj.namespace / f"{obj.name}.log"

    def log(self, obj: Object, name: str = "console") -> PodLog:
        if name != "console":
            raise HikubeError("HK825", "the firmware's log is not in the API", fix="leave --firmware out")
        pod = self.api.pod(obj)
        if pod is None:
            raise HikubeError("HK805", f"{obj.name} is not running", fix=f"hikube-local start {obj.name}")
        path = f"/api/v1/namespaces/{obj.namespace}/pods/{pod['metadata']['name']}/log"
        return PodLog(self.api, path, self._recorded(obj))


class PodLog:
    """The console's log through its pod: an endpoint of ours has it. Hikube keeps none: there it is what was recorded here
    while `up` or `test` waited, if they did."""

    def __init__(self, api: Api, path: str, recorded: Path) -> None:
        self._client, self._path, self._recorded, self._read = api.client, path, recorded, 0

    def read(self, previous: bool, since: float | None, whole: bool = True) -> str:
        query: dict[str, Any] = {"previous": "true"} if previous else {}
        if since is not None:
            query["sinceSeconds"] = max(1, int(since))
        try:
            text = self._client.text(self._path, **query)
        except Refused as e:
            if e.status != 403:
                raise
            if self._recorded.exists() and not previous and since is None:
                text = self._recorded.read_bytes().decode("utf-8", "replace")
            else:
                what = "Hikube keeps no console log: only what is read while it runs can be seen"
                fix = "hikube-local console, from before the machine starts"
                raise HikubeError("HK825", what, e.what, fix) from None
        self._read = 0 if previous or since is not None else len(text.splitlines())
        return text

    def more(self) -> Iterator[str]:
        """Lines after those that were read, as they come; the log is asked for again when the link was cut."""
        skip = self._read
        while True:
            for number, line in enumerate(self._client.follow(self._path, follow="true"), 1):
                if number > skip:
                    skip = number
                    yield f"{line}\n"
            yield ""

    def raw(self) -> bytes:
        return self.read(False, None).encode()

    def first_boot(self, most: int) -> bytes:
        with contextlib.suppress(HikubeError):
            return self.raw()[-most:]
        return b""


def _below(plural: str, obj: Object | Key, what: str) -> str:
    assert obj.kind == INSTANCE
    return f"{SUBRESOURCES}/namespaces/{obj.namespace}/{plural}/{names.machine(obj.name)}/{what}"
