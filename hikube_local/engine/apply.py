"""Objects brought to be: what `up`, and whoever else asks for it, comes to after the manifests were judged."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field, replace
from pathlib import Path

from hikube_local.api.objects import DEFAULT_BACKEND, DISK, INSTANCE, Key, Object
from hikube_local.api.sources import url_of
from hikube_local.backends.capabilities import OnThisHost, Snapshots, WarmStates
from hikube_local.engine.reconcile import Done
from hikube_local.engine.session import Session
from hikube_local.errors import UsageError, unexpected
from hikube_local.events import Emit, Event, EventType
from hikube_local.images.settings import BUNDLED
from hikube_local.plan.running import applied
from hikube_local.plan.steps import RunOptions, Verb
from hikube_local.records import dataclass
from hikube_local.store.db import Basis
from hikube_local.text import mask_url
from hikube_local.urls import is_this_host

Confirm = Callable[[str], None]  # a question to the user; what is not confirmed raises HK809


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """How objects are brought to be. `timeout`: seconds, None for the usual; `bridge`: None leaves it to the configuration."""

    run: RunOptions = field(default_factory=RunOptions)
    wait: bool = True
    timeout: float | None = None
    prune: bool = False
    checkpoint: bool = True
    bridge: str | None = None
    allow_inner: bool = False
    accelerator: str = ""  # kvm or tcg for these machines from now on, auto for the host's own verdict; empty leaves it


@dataclass(frozen=True, slots=True)
class Applied:
    """The objects as the store has them now, and what became of each; those that were pruned are among the results."""

    stored: list[Object]
    results: dict[Key, Done]

    @property
    def changed(self) -> int:
        return sum(done.changed for done in self.results.values())


def with_backend(session: Session, objects: Iterable[Object], backend: str | None) -> list[Object]:
    """The backend is recorded with each object: the one asked for, else the one it has, else qemu."""
    stored = {o.key: o for o in session.store.objects()}
    out = []
    for obj in objects:
        old = stored.get(obj.key)
        out.append(replace(obj, backend=backend or (old.backend if old else DEFAULT_BACKEND)))
    carriers = {o.key: o.backend for o in [*stored.values(), *out]}
    for obj in out:
        for key in obj.disk_keys if obj.kind == INSTANCE else ():
            other = carriers.get(key, obj.backend)
            if other != obj.backend:
                what = f"{obj.ref} would have the backend {obj.backend}, its disk {key.name} has {other}"
                raise UsageError("HK807", what, fix=f"add --backend {other}, or delete the disk first")
    return out


def apply(
    session: Session,
    wanted: list[Object],
    options: ApplyOptions,
    emit: Emit,
    confirm: Confirm,
    bundles: Iterable[Path] = (),
) -> Applied:
    """Bring these objects to be. What this host lacks, or what is not to be done, is an error before anything is changed.

    `bundles`: folders that may hold the objects' images. Errors of single objects are in the results.
    """
    extra = prunable(session, wanted) if options.prune else []
    judge(session, wanted, options, emit)
    _take_bundles(session, bundles, wanted, emit)
    if extra:
        session.may_be_changed(o.key for o in (*wanted, *extra))
        session.writes()
        confirm(f"Remove the machines {', '.join(o.name for o in extra)} (their disks stay)?")
    stored = record(session, wanted, options)
    session.store.mark_deleted(o.key for o in extra)
    keys = [o.key for o in (*stored, *extra)]
    results = session.reconciler(emit, options.run).reconcile(keys, wait=options.wait, timeout=options.timeout)
    if options.checkpoint:
        _keep_states(session, stored, results, options.run.warm, emit)
    return Applied(stored, results)


def judge(session: Session, wanted: list[Object], options: ApplyOptions, emit: Emit) -> None:
    """What this host lacks, or what is not to be done, is an error; nothing is changed."""
    if not options.allow_inner:
        _fetches_nothing_inner(session, wanted)
    preflight(session, wanted)
    if options.run.warm:
        for obj in (o for o in wanted if o.kind == INSTANCE and session.able(o, WarmStates) is None):
            what = f"no warm start: the backend {obj.backend} keeps no states"
            emit(Event(EventType.HINT, what, obj.ref, obj.namespace))
    _check_bridge(session, wanted, _bridge(session, options), emit)


def record(session: Session, wanted: list[Object], options: ApplyOptions, basis: Basis | None = None) -> list[Object]:
    """Keep what was asked for; carrying it out is the reconciler's.

    `basis`: what an API's client wrote on; a write of it that leaves the spec as it is ends no stop.
    """
    before = {o.key: old.generation for o in wanted if (old := session.store.get(o.key))} if basis else {}
    stored = session.store.put(wanted, basis)
    _record_bridge(session, stored, _bridge(session, options))
    for obj in stored if options.accelerator else ():
        if obj.kind == INSTANCE:
            session.store.keep(obj.key, accelerator=options.accelerator.replace("auto", "") or None)
    _end_stops(session, [o for o in stored if before.get(o.key) != o.generation])
    return stored


def _bridge(session: Session, options: ApplyOptions) -> str | None:
    return options.bridge if options.bridge is not None else session.config.values.get("bridge")


def planned_away(session: Session, wanted: list[Object]) -> list[Object]:
    """What --prune would delete, as it would be then."""
    return [replace(o, deletion=time.time()) for o in prunable(session, wanted)]


def prunable(session: Session, wanted: list[Object]) -> list[Object]:
    """The machines of these objects' namespaces that are not among them."""
    keep = {o.key for o in wanted}
    found = [o for n in sorted({o.namespace for o in wanted}) for o in session.store.objects(INSTANCE, n)]
    return [o for o in found if o.key not in keep and not o.deletion]


def _fetches_nothing_inner(session: Session, wanted: list[Object]) -> None:
    """A manifest is often somebody else's: what it may fetch from this host itself is for its user to say."""
    inner = []
    for obj in wanted:
        url = url_of(obj.disk.content) if obj.kind == DISK else None
        if url is None or not is_this_host(url):
            continue
        from hikube_local.images.fetch import mirrored

        if mirrored(url, session.config.mirrors) != url:
            continue
        if session.able(obj, OnThisHost) and not session.of(obj).observe_disk(obj).exists:
            inner.append(f"{obj.ref} ({mask_url(url)[:120]})")
    if inner:
        what = f"{', '.join(inner)} would be fetched from this host itself"
        why = "a manifest from someone else could use this to read data from services of this host"
        raise UsageError("HK319", what, why, "if you mean it: --allow-inner")


def preflight(session: Session, objects: list[Object]) -> None:
    """What this host lacks is told before anything is changed."""
    for name in sorted({o.backend for o in objects}):
        if isinstance(backend := session.backend(name), OnThisHost):
            backend.preflight([o for o in objects if o.backend == name])


def _take_bundles(session: Session, folders: Iterable[Path], objects: list[Object], emit: Emit) -> None:
    """A folder that `bundle` made brings its images along."""
    for folder in folders:
        if folder.joinpath(*BUNDLED).is_file():
            from hikube_local.images import bundle, sources  # an `up` that takes none does not wait for them

            session.layout.make()
            disks = [o for o in objects if o.kind == DISK]
            keys = {k for o in disks for k in sources.keys(o, session.image_settings, session.cache)}
            bundle.read(folder, keys, session.cache, emit)


def _check_bridge(session: Session, wanted: list[Object], name: str | None, emit: Emit) -> None:
    """A bridge that is not there is told before anything is changed; one that cannot be had is told as a difference."""
    whole = [o for o in wanted if o.kind == INSTANCE and o.instance.whole_ip]
    if not name or not any(session.able(o, OnThisHost) for o in whole):
        return
    if session.layout.root:
        from hikube_local.host import network

        network.bridge(name)
    else:
        what = f"only root may put a machine on {name}: WholeIP machines get a loopback address instead"
        emit(Event(EventType.DIFFERENCE, what, code="HK517"))


def _record_bridge(session: Session, stored: list[Object], name: str | None) -> None:
    for obj in stored if name is not None else ():
        if obj.kind == INSTANCE and (session.store.intent(obj.key).bridge or None) != (name or None):
            session.store.keep(obj.key, bridge=name or None)


def _end_stops(session: Session, stored: list[Object]) -> None:
    """A manifest that says whether the machine runs ends the stop or start that was asked for."""
    for obj in stored:
        power = session.store.intent(obj.key).power if obj.kind == INSTANCE else ""
        if power and not applied(obj, power):
            session.store.keep(obj.key, power=None)


def _keep_states(
    session: Session, stored: list[Object], results: dict[Key, Done], where: Path | None, emit: Emit
) -> None:
    """When a machine's cloud-init is done: the snapshot that `reset` goes back to, once; and of a first boot that was followed from
    its start to its end just now the state from which such a machine starts warm."""
    for obj in stored:
        done = results[obj.key]
        verdict = done.verdict
        if obj.kind != INSTANCE or not (verdict and verdict.cloud_init):
            continue
        if first := session.able(obj, Snapshots):
            with _warned("no checkpoint for `reset`", obj, emit):
                first.keep_first_boot(obj, emit)
        begun = any(step.verb == Verb.START for step in done.steps)  # one that was on before may have been worked in
        if begun and verdict.fresh and (states := session.able(obj, WarmStates)):
            with _warned("its state is not kept for warm starts", obj, emit):
                states.keep_warm(obj, where or session.layout.warm, emit)


@contextlib.contextmanager
def _warned(what: str, obj: Object, emit: Emit) -> Iterator[None]:
    """What is kept beside a machine that is up: an error of it is a warning."""
    try:
        yield
    except Exception as error:
        e = unexpected(error)
        emit(Event(EventType.WARNING, f"{what}: {e.what}", obj.ref, obj.namespace, code=e.code, data={"why": e.why}))
