"""get, list and watch of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from hikube_local.api.objects import INSTANCE
from hikube_local.engine.session import Session, capabilities
from hikube_local.kube import discovery, kinds, messages, metrics
from hikube_local.kube.documents import Documents, Kept
from hikube_local.kube.events import Events
from hikube_local.kube.hub import Hub
from hikube_local.kube.kinds import Resource
from hikube_local.kube.metrics import Sampler
from hikube_local.kube.namespaces import Namespaces
from hikube_local.kube.paths import Target
from hikube_local.kube.projections import Projection, disks, host, machines, options
from hikube_local.kube.sources import Fixed, Form, OfNamespace, Own, Projected, Source
from hikube_local.kube.status import Refused
from hikube_local.kube.watch import Watching

_PROJECTIONS: dict[Resource, Projection] = {
    kinds.VMS: machines.virtual_machine,
    kinds.VMIS: machines.instance,
    kinds.PODS: machines.pod,
    kinds.SERVICES: machines.service,
    kinds.VOLUMES: disks.data_volume,
    kinds.CLAIMS: disks.claim,
}


def sources(session: Session, hub: Hub, documents: Documents, sampler: Sampler) -> dict[Resource, Source]:
    """Where the objects of each kind come from."""
    found: dict[Resource, Source] = {r: Own(hub, r) for r in (kinds.MACHINES, kinds.DISKS)}
    found |= {r: Projected(hub, r, projection) for r, projection in _PROJECTIONS.items()}
    found |= {r: Kept(documents, r) for r in (kinds.SECRETS, kinds.CONFIGMAPS)}

    def nodes() -> list[dict[str, Any]]:
        facts = next(b.host_facts() for b in session.every(capabilities.OnThisHost))
        return [host.node(facts.cpus, facts.memory, discovery.version()["gitVersion"])]

    def pod_metrics() -> list[dict[str, Any]]:
        return metrics.pods(sampler.newest, session.store.objects(INSTANCE))

    found[kinds.POD_METRICS] = Fixed(session, pod_metrics)
    found[kinds.NODE_METRICS] = Fixed(session, lambda: [metrics.node(sampler.newest)])
    found[kinds.NODES] = Fixed(session, nodes)
    found[kinds.TYPES] = Fixed(session, host.instance_types)
    found[kinds.PREFERENCES] = Fixed(session, host.preferences)
    found[kinds.OPTIONS] = OfNamespace(session, lambda namespace: options.offered(session, namespace))
    found[kinds.DEFINITIONS] = Fixed(session, list)
    found[kinds.NAMESPACES] = Namespaces(session, documents)
    found[kinds.EVENTS] = Events(session)
    return found


class Looks:
    """The reads."""

    def __init__(self, sources: dict[Resource, Source], watching: Watching, off: Callable[..., Any]) -> None:
        self.sources, self.watching, self._off = sources, watching, off

    async def serve(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        source = self.sources[resource]
        namespace = target.namespace or None
        if target.verb == "get":
            form: Form | None = await self._off(source.one, target.namespace, target.name)
            if form is None or not form.there:
                raise Refused(404, f'{resource.full} "{target.name}" not found', details=resource.details(target.name))
            return messages.answer(request, resource, [form.value], form.revision, form.value)
        wanted = messages.wanted_by(request, resource)
        if target.verb == "watch":
            if target.name:  # the old form of a watch of one object
                by_name = wanted

                def wanted(form: Form) -> bool:
                    return form.id[1] == target.name and by_name(form)

            return await self.watching.serve(request, resource, source, namespace, wanted)

        def read() -> tuple[int, list[dict[str, Any]]]:
            revision, found = source.snapshot(namespace)
            return revision, [f.value for f in found if wanted(f)]

        revision, values = await self._off(read)
        return messages.answer(request, resource, values, str(revision), kinds.list_of(resource, values, str(revision)))
