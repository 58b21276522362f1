"""The lists that a form may offer in a namespace, as Cozystack's API server computes them (its pkg/registry/core/option).

Its lists of storage pools, backups, plans and application kinds are about nothing that is here, and a network may have any name.
"""

from __future__ import annotations

from hikube_local.api.objects import DISK
from hikube_local.catalogue import data
from hikube_local.engine.session import Session
from hikube_local.kube.kinds import OPTIONS
from hikube_local.kube.projections import Value


def offered(session: Session, namespace: str) -> list[Value]:
    """One object for each list, by name; all namespaces together have none of their own disks."""
    images = session.image_names | {i.name for i in data.images().values() if not i.reason}
    disks = session.store.objects(DISK, namespace) if namespace else []
    lists = {
        "gpu": [],
        "image": [{"value": name} for name in sorted(images)],
        "instanceprofile": [{"value": name} for name in sorted(data.profiles())],
        "instancetype": [{"value": name} for name in sorted(data.instancetypes())],
        "storageclass": [{"value": name} for name in sorted(data.STORAGE_CLASSES)],
        "vmdisk": [{"value": d.name, "label": f"{d.name} ({d.disk.storage})"} for d in disks],
    }
    return [
        {
            "apiVersion": OPTIONS.api_version,
            "kind": OPTIONS.kind,
            "metadata": {"name": name, "namespace": namespace, "resourceVersion": "0"},
            "spec": {"items": items} if items else {},
        }
        for name, items in lists.items()
    ]
