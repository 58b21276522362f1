"""What is asked of running machines: KubeVirt's subresources, and the logs of the pods that run them."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web

from hikube_local.api import names
from hikube_local.api.objects import INSTANCE, Key, Object
from hikube_local.engine import power
from hikube_local.engine.session import Session, capabilities
from hikube_local.kube import kinds, messages
from hikube_local.kube.keeper import Keeper
from hikube_local.kube.paths import Target
from hikube_local.kube.projections.machines import RUNNING, STARTING, pod_name
from hikube_local.kube.query import count, dry, flag, number
from hikube_local.kube.status import MISSING, Refused
from hikube_local.kube.streams import Streams
from hikube_local.text import timestamp

# Which of KubeVirt's two kinds has which (kubevirt.io/api, subresources.kubevirt.io).
ACTIONS = {
    kinds.VMS.plural: ("start", "stop", "restart"),
    kinds.VMIS.plural: ("pause", "unpause", "softreboot"),
}
STREAMS = {
    kinds.VMS.plural: ("portforward",),
    kinds.VMIS.plural: ("console", "vnc", "portforward", "guestosinfo", "userlist", "filesystemlist"),
}
LARGEST = 64 << 20  # bytes of a log in one answer
ITEMS = 500  # of a guest's lists
FOLLOWERS = 100  # logs that are followed at once
PATIENCE = 20.0  # seconds that a client may take to accept a block
EVERY, LOOK = 0.2, 3.0  # seconds between two looks at a log, and at whether its machine runs
VERSION = "subresources.kubevirt.io/v1"


class Guests:
    """The subresources. `off`: does something in the pool of threads."""

    def __init__(self, session: Session, keeper: Keeper, streams: Streams, off: Callable[..., Any]) -> None:
        self.session, self.keeper, self.streams, self._off = session, keeper, streams, off
        self.followers = 0

    def machine(self, namespace: str, name: str) -> Object:
        """The machine of a subresource. The name is the platform's, or the manifest's."""
        exact = Key(INSTANCE, namespace, name)
        short = Key(INSTANCE, namespace, names.user_names(name))
        obj = self.session.store.get(short) or self.session.store.get(exact)
        if obj is None:
            raise Refused(404, f'{kinds.VMIS.full} "{name}" not found', details=kinds.VMIS.details(name))
        return obj

    async def serve(self, request: web.Request, target: Target) -> web.StreamResponse:
        """One request below a VirtualMachine or VirtualMachineInstance."""
        words = target.subresource.split("/")
        known = ACTIONS if request.method == "PUT" else STREAMS
        if words[0] not in known.get(target.plural, ()):
            raise Refused(404, f"{target.plural} have no subresource {words[0][:40]}")
        obj = await self._off(self.machine, target.namespace, target.name)
        if request.method == "PUT" and len(words) == 1:
            await self._off(self._act, obj, words[0], await messages.body(request), request)
            return web.Response(status=202)
        if request.method != "GET":
            raise Refused(405, f"{request.method} is not supported for {target.what}")
        match words:
            case ["console" | "vnc"]:
                return await self.streams.serve(request, obj, words[0])
            case ["vnc", "screenshot"]:
                picture = await self._off(self.session.require(obj, capabilities.Screens).screenshot, obj)
                return web.Response(body=picture, content_type="image/png")
            case ["portforward", port] | ["portforward", port, "tcp"]:
                return await self.streams.serve(request, obj, "portforward", _port(port))
            case ["portforward", *_]:
                raise Refused(400, "only TCP ports can be forwarded")
            case ["guestosinfo" | "userlist" | "filesystemlist"]:
                return web.json_response(await self._off(self._inside, obj, words[0]))
        raise Refused(404, MISSING)

    def _act(self, obj: Object, verb: str, options: Any, request: web.Request) -> None:
        """virtctl's start, stop, restart, pause, unpause and soft-reboot."""
        if isinstance(options, dict) and options.get("paused"):
            raise Refused(422, "starting a machine paused is not supported here: start it, then pause it")
        if dry(request.query, options):
            return
        if verb in ("pause", "unpause"):
            power.freeze(self.session, obj, verb)
        elif verb == "softreboot":
            self.session.require(obj, capabilities.Reboots).soft_reboot(obj)
        else:
            power.ask(self.session, [obj], verb)
            self.keeper.add(obj.key)

    def _inside(self, obj: Object, what: str) -> dict[str, Any]:
        """What the guest's agent says; all of it is data from the guest."""
        agent = self.session.require(obj, capabilities.Agents).agent(obj)
        if not agent.connected():
            name = names.machine(obj.name)
            words = (
                f'Operation cannot be fulfilled on {kinds.VMIS.full} "{name}": VMI does not have guest agent connected'
            )
            raise Refused(409, words)
        if what == "guestosinfo":
            return _guest_info(agent)
        kind, items = (
            ("VirtualMachineInstanceGuestOSUserList", _users(agent))
            if what == "userlist"
            else ("VirtualMachineInstanceFileSystemList", _filesystems(agent))
        )
        return {"apiVersion": VERSION, "kind": kind, "metadata": {}, "items": items}

    async def logs(self, request: web.Request, target: Target) -> web.StreamResponse:
        """`kubectl logs` of a machine's pod: its serial console since its last start, made safe."""
        query = request.query
        if query.get("container", "compute") not in ("compute", "guest-console-log"):
            raise Refused(400, f"container {query['container'][:60]} is not valid for pod {target.name}")
        obj = await self._off(self._of_pod, target)
        follow, since = flag(query, "follow"), number(query, "sinceSeconds")
        lines, most = number(query, "tailLines"), number(query, "limitBytes")
        if follow and self.followers >= FOLLOWERS:
            raise Refused(503, f"the limit of {FOLLOWERS} followed logs is reached")
        log = self.session.require(obj, capabilities.Logs).log(obj)
        text = await self._off(log.read, flag(query, "previous"), None if since is None else float(since), not follow)
        if lines is not None:
            text = "".join(deque(text.splitlines(keepends=True), maxlen=lines)) if lines else ""
        body = text.encode()[-LARGEST:]
        if most is not None:
            body = body[:most]
        if not follow:
            return web.Response(body=body, content_type="text/plain", charset="utf-8")
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        self.followers += 1
        try:
            await self._follow(request, response, obj, body, log.more())
        except (TimeoutError, ConnectionError):  # it takes nothing more
            if request.transport is not None:
                request.transport.abort()
        finally:
            self.followers -= 1
        return response

    async def _follow(
        self, request: web.Request, response: web.StreamResponse, obj: Object, body: bytes, more: Iterator[str]
    ) -> None:
        """Until the client goes, or the machine is off."""
        await asyncio.wait_for(response.write(body), PATIENCE)
        looked = time.monotonic()
        while not (self.keeper.ended or request.transport is None or request.transport.is_closing()):
            if block := await self._off(next, more):
                await asyncio.wait_for(response.write(block.encode()), PATIENCE)
            elif time.monotonic() - looked > LOOK:
                looked = time.monotonic()
                now = await self._off(self.session.store.status, obj.key)
                if now.get("printableStatus") not in (*RUNNING, *STARTING):
                    return
            await asyncio.sleep(EVERY)

    def _of_pod(self, target: Target) -> Object:
        for obj in self.session.store.objects(INSTANCE, target.namespace):
            if pod_name(obj) == target.name:
                return obj
        raise Refused(404, f'pods "{target.name}" not found', details=kinds.PODS.details(target.name))


def _port(text: str) -> int:
    found = count(text, "port")
    if not 0 < found < 65536:
        raise Refused(400, f"{found} is not a TCP port")
    return found


def _text(value: Any) -> str:
    return str(value)[:1000] if isinstance(value, str | int | float) else ""


def _rows(value: Any) -> list[dict[str, Any]]:
    return [r for r in value[:ITEMS] if isinstance(r, dict)] if isinstance(value, list) else []


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _guest_info(agent: capabilities.GuestAgent) -> dict[str, Any]:
    """KubeVirt's VirtualMachineInstanceGuestAgentInfo."""

    def ask(command: str) -> dict[str, Any]:
        said = agent.call(command)
        return said if isinstance(said, dict) else {}

    about, os, host, zone = map(ask, ("guest-info", "guest-get-osinfo", "guest-get-host-name", "guest-get-timezone"))
    return {
        "apiVersion": VERSION,
        "kind": "VirtualMachineInstanceGuestAgentInfo",
        "metadata": {},
        "guestAgentVersion": _text(about.get("version")),
        "hostname": _text(host.get("host-name")),
        "os": {
            "name": _text(os.get("name")),
            "kernelRelease": _text(os.get("kernel-release")),
            "version": _text(os.get("version")),
            "prettyName": _text(os.get("pretty-name")),
            "versionId": _text(os.get("version-id")),
            "kernelVersion": _text(os.get("kernel-version")),
            "machine": _text(os.get("machine")),
            "id": _text(os.get("id")),
        },
        "timezone": f"{_text(zone.get('zone'))}, {_number(zone.get('offset'))}",
        "userList": _users(agent),
        "fsInfo": {"disks": _filesystems(agent)},
    }


def _users(agent: capabilities.GuestAgent) -> list[dict[str, Any]]:
    out = []
    for row in _rows(agent.call("guest-get-users")):
        since = row.get("login-time")
        since = float(since) if isinstance(since, int | float) and math.isfinite(since) else 0.0
        since = min(max(since, 0.0), time.time())
        out.append({"userName": _text(row.get("user")), "loginTime": since, "loginTimestamp": timestamp(since)})
    return out


def _filesystems(agent: capabilities.GuestAgent) -> list[dict[str, Any]]:
    return [
        {
            "diskName": _text(row.get("name")),
            "mountPoint": _text(row.get("mountpoint")),
            "fileSystemType": _text(row.get("type")),
            "usedBytes": _number(row.get("used-bytes")),
            "totalBytes": _number(row.get("total-bytes")),
        }
        for row in _rows(agent.call("guest-get-fsinfo"))
    ]
