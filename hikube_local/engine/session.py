"""What every face works with: a state root's store, its backends, its images, and what the configuration says of them."""

from __future__ import annotations

import functools
from functools import cached_property
from typing import TYPE_CHECKING

from hikube_local.api.objects import Object
from hikube_local.config import Config
from hikube_local.engine.reconcile import Reconciler
from hikube_local.engine.status import Statuses
from hikube_local.errors import HikubeError
from hikube_local.events import Emit
from hikube_local.images.cache import Cache
from hikube_local.images.sources import Settings, own_name
from hikube_local.manifests.validate import Known
from hikube_local.paths import Layout
from hikube_local.store.bell import Bell
from hikube_local.store.db import Store

if TYPE_CHECKING:
    from hikube_local.backends.protocol import Backend
    from hikube_local.backends.qemu.world import Qemu
    from hikube_local.plan.steps import RunOptions


class Session:
    """One state root in use. No terminal, no words of a command; heavy things are made when first used."""

    def __init__(self, layout: Layout, config: Config) -> None:
        self.layout, self.config = layout, config

    @cached_property
    def store(self) -> Store:
        return Store(self.layout)

    def bell(self) -> Bell:
        """Rings when anybody writes to the store, from now on."""
        return Bell(self.layout.store)

    @functools.cache  # noqa: B019 (a session lives as long as its process)
    def backend(self, name: str) -> Backend:
        if name == "simulator":
            from hikube_local.backends.simulator import Simulator

            return Simulator(self.store)
        from hikube_local.backends.qemu.world import Qemu

        config = self.config
        return Qemu(self.layout, self.store, self.image_settings, config.networks, link_local=config.link_local)

    def of(self, obj: Object) -> Backend:
        """What carries this object."""
        return self.backend(obj.backend)

    @property
    def qemu(self) -> Qemu:
        """The backend of real machines."""
        from hikube_local.backends.qemu.world import Qemu

        backend = self.backend("qemu")
        assert isinstance(backend, Qemu)
        return backend

    def real(self, obj: Object) -> Qemu:
        """The backend of a machine that has a guest, or HK510: a simulated one has nobody to talk to."""
        from hikube_local.backends.qemu.world import Qemu

        world = self.of(obj)
        if not isinstance(world, Qemu):
            what = f"{obj.name} is simulated: there is no guest to reach"
            raise HikubeError("HK510", what, fix="bring it up with --backend qemu")
        return world

    @property
    def cache(self) -> Cache:
        """The images that are kept."""
        return Cache(self.layout.images, self.layout.mode)

    @property
    def image_settings(self) -> Settings:
        """What the configuration says about images."""
        return Settings(self.config.images, self.config.mirrors)

    @property
    def image_names(self) -> frozenset[str]:
        """Image names beside the catalogue's: of the configuration, and those that were imported under a name."""
        return frozenset(self.config.images) | {n for e in self.cache.entries() if (n := own_name(e.key))}

    def known(self) -> Known:
        """What manifests are judged against: the objects that are there, the images that have names."""
        return Known({o.key: o for o in self.store.objects()}, self.image_names)

    @cached_property
    def statuses(self) -> Statuses:
        return Statuses(self.store, self.backend)

    def reconciler(self, emit: Emit, options: RunOptions) -> Reconciler:
        return Reconciler(self.layout, self.store, self.backend, emit, options)
