"""What every face works with: a state root's store, its backends, its images, and what the configuration says of them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from hikube_local.api.objects import Key, Object
from hikube_local.backends import capabilities
from hikube_local.config import Config
from hikube_local.events import Emit
from hikube_local.images.settings import Settings
from hikube_local.paths import Layout
from hikube_local.store.bell import Bell
from hikube_local.store.db import Store

# The command line imports the engine, not what is below it.
__all__ = ["Session", "Store", "backend_names", "capabilities"]
if TYPE_CHECKING:  # loaded by those alone who need it: a look is to be there at once
    from hikube_local.backends.protocol import Backend
    from hikube_local.backends.registry import Able
    from hikube_local.engine.reconcile import Reconciler
    from hikube_local.engine.status import Statuses
    from hikube_local.images.cache import Cache
    from hikube_local.manifests.offer import Offer
    from hikube_local.manifests.validate import Known
    from hikube_local.plan.steps import RunOptions


def backend_names(here: bool = False) -> list[str]:
    from hikube_local.backends import registry

    return registry.names(here)


class Session:
    """One state root in use. No terminal, no words of a command; heavy things are made when first used."""

    # The options that lead another command to the same place, whatever `context use` chose or chooses later.
    flags: tuple[str, ...] = ("--context", "local")

    def __init__(self, layout: Layout, config: Config) -> None:
        self.layout, self.config = layout, config

    @cached_property
    def store(self) -> Store:
        return Store(self.layout)

    def bell(self) -> Bell:
        """Rings when anybody writes to the store, from now on."""
        return Bell(self.layout.store)

    def backend(self, name: str) -> Backend:
        """The backend of this name, or HK807."""
        return self._backend(name)

    @functools.cache  # noqa: B019 (a session lives as long as its process)
    def _backend(self, name: str) -> Backend:
        from hikube_local.backends import registry
        from hikube_local.backends.protocol import Settings as BackendSettings
        from hikube_local.host.accelerator import chosen

        config = self.config
        settings = BackendSettings(self.image_settings, config.networks, config.link_local, accelerator=chosen())
        return registry.make(name, self.layout, self.store, settings)

    def of(self, obj: Object) -> Backend:
        """What carries this object."""
        return self.backend(obj.backend)

    def require(self, obj: Object, capability: type[Able]) -> Able:
        """What carries this object, as one that has the capability; HK510 where it has not."""
        from hikube_local.backends import registry

        return registry.require(self.of(obj), capability, obj.name)

    def able(self, obj: Object, capability: type[Able]) -> Able | None:
        """The same, or None."""
        backend = self.of(obj)
        return backend if isinstance(backend, capability) else None

    def every(self, capability: type[Able]) -> list[Able]:
        """All backends of this system that have the capability, whether or not they carry an object now."""
        return [b for name in backend_names(here=True) if isinstance(b := self.backend(name), capability)]

    def may_be_changed(self, keys: Iterable[Key]) -> None:
        """Asked of all objects before one is changed: what is somebody else's in another context is an error."""

    def writes(self) -> None:
        """Said before a question about what is to be changed."""

    @property
    def cache(self) -> Cache:
        """The images that are kept."""
        from hikube_local.images.cache import Cache

        return Cache(self.layout.images, self.layout.mode)

    @property
    def image_settings(self) -> Settings:
        """What the configuration says about images."""
        return Settings(self.config.images, self.config.mirrors)

    @property
    def image_names(self) -> frozenset[str]:
        """Image names beside the catalogue's: of the configuration, and those that were imported under a name."""
        return frozenset(self.config.images) | self.cache.own_names()

    def known(self, offer: Offer | None = None) -> Known:
        """What manifests are judged against: the objects that are there, the images that have names, what a tenant offers."""
        from hikube_local.manifests.validate import Known

        return Known({o.key: o for o in self.store.objects()}, self.image_names, offer)

    def offer(self, judges: bool = True) -> Offer | None:
        """What a tenant has and may take; None where there is none. Without `judges` it only says which names are known."""
        return None

    @cached_property
    def statuses(self) -> Statuses:
        from hikube_local.engine.status import Statuses

        return Statuses(self.store, self.backend)

    def reconciler(self, emit: Emit, options: RunOptions) -> Reconciler:
        from hikube_local.engine.reconcile import Reconciler

        return Reconciler(self.layout, self.store, self.backend, emit, options)
