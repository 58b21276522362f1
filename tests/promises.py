"""What every backend promises the engine, one test a promise, below the command line. `tests/contract.py` is the same above it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hikube_local.api.objects import DISK, INSTANCE, Object
from hikube_local.backends import registry
from hikube_local.config import Config
from hikube_local.engine import power, remove
from hikube_local.engine.apply import ApplyOptions, Confirm, apply
from hikube_local.engine.session import Session
from hikube_local.events import Event, EventType, ignore
from hikube_local.manifests.validate import Known, validate
from hikube_local.paths import layout
from hikube_local.plan.steps import RunOptions, RunState, Verb
from hikube_local.store.records import Intent


def yes(question: str) -> None:
    """Every question is answered with yes."""


def _left_open(name: str, method: object) -> bool:
    """Whether the capability has no answer of its own, so that each backend needs one."""
    asked = method.fget if isinstance(method, property) else method
    code = getattr(asked, "__code__", None)
    return not name.startswith("_") and code is not None and "NotImplementedError" in code.co_names


class Promises:
    """`session` is an engine over an empty state root, `text` a manifest of a disk `sys` and a machine `web`."""

    backend = ""
    confirm: Confirm = staticmethod(yes)

    @pytest.fixture
    def session(self) -> Iterator[Session]:
        places = layout()
        session = Session(places, Config(places.config))
        yield session
        everything = [o.key for o in session.store.objects()]
        remove.remove(session, everything, RunOptions(grace=0, force=True), ignore)

    @pytest.fixture
    def objects(self, text: str, tmp_path: Path) -> list[Object]:
        return self.read(text, tmp_path)

    def read(self, text: str, folder: Path) -> list[Object]:
        (folder / "m.yaml").write_text(text)
        found = validate([str(folder / "m.yaml")], None, "default", Known({}, frozenset({"tiny"})))
        assert not found.findings.failed, [d.render() for d in found.findings.items]
        return [replace(i.object, backend=self.backend) for i in found.objects]

    def up(self, session: Session, objects: list[Object], **more) -> tuple[Object, list[Event]]:
        told: list[Event] = []
        done = apply(session, objects, ApplyOptions(allow_inner=True, **more), told.append, self.confirm)
        assert not [r.error for r in done.results.values() if r.error], [r.error for r in done.results.values()]
        return next(o for o in done.stored if o.kind == INSTANCE), told

    def test_what_is_applied_runs_and_is_ready(self, session: Session, objects):
        web, told = self.up(session, objects)
        backend = session.of(web)
        assert backend.observe_machine(web).state is RunState.RUNNING and backend.view(web).ready
        assert backend.observe_disk(next(o for o in session.store.objects(DISK))).exists
        assert [e.type for e in told if e.object == web.ref][-1] in (EventType.READY, EventType.STEP, EventType.DONE)

    def test_a_plan_comes_to_an_end_and_is_then_empty(self, session: Session, objects):
        web, _ = self.up(session, objects)
        for obj in session.store.objects():
            planned = session.of(obj).plan(obj, session.store.intent(obj.key), RunOptions())
            assert planned.steps == () and not planned.restart_required
        assert self.up(session, objects)[1] and session.store.get(web.key)

    def test_a_look_changes_nothing(self, session: Session, objects):
        web, _ = self.up(session, objects)
        backend, before = session.of(web), self.rows(session)
        first = backend.view(web)
        for _ in range(2):
            backend.plan(web, session.store.intent(web.key), RunOptions())
            assert backend.observe_machine(web).started == first.observed.started
            assert backend.view(web).ready == first.ready
        assert self.rows(session) == before

    @staticmethod
    def rows(session: Session) -> object:
        """What is kept of the objects, whoever wrote it."""
        return session.store.allocations(), [o.resource_version for o in session.store.objects()]

    def test_what_is_asked_for_twice_is_done_once(self, session: Session, objects):
        web, _ = self.up(session, objects)
        started = session.of(web).observe_machine(web).started
        self.up(session, objects)
        assert session.of(web).observe_machine(web).started == started

    def test_a_stopped_machine_stays_off_until_it_is_asked_for(self, session: Session, objects):
        web, _ = self.up(session, objects)
        power.stop(session, [web], RunOptions(grace=0, force=True), ignore)
        assert session.of(web).observe_machine(web).state is not RunState.RUNNING
        assert session.of(web).plan(web, session.store.intent(web.key), RunOptions()).steps == ()
        power.start(session, [web], RunOptions(), ignore)
        assert session.of(web).observe_machine(web).state is RunState.RUNNING

    def test_a_machine_grows_in_place_and_shrinks_at_a_restart(self, session: Session, text, tmp_path):
        """u1.nano has less memory than a machine that may grow has: its vCPUs are what grows."""
        web, _ = self.up(session, self.read(text, tmp_path))
        before = session.of(web).observe_machine(web)
        larger = text.replace("instanceType: u1.nano", "resources: {cpu: 1, sockets: 2, memory: 512Mi}")
        assert larger != text
        web, _ = self.up(session, self.read(larger, tmp_path))
        seen = session.of(web).observe_machine(web)
        assert seen.started == before.started
        if before.most.vcpus < 2:
            return  # nothing is given to one that runs: test_a_life has what is said then
        assert seen.capacity.vcpus == 2 and not session.of(web).view(web).restart_required
        web, _ = self.up(session, self.read(text, tmp_path))
        assert session.of(web).view(web).restart_required

    def test_a_restart_is_another_boot(self, session: Session, objects):
        web, _ = self.up(session, objects)
        first = session.of(web).observe_machine(web).started
        power.restart(session, [web], RunOptions(grace=0, force=True), ignore)
        second = session.of(web).observe_machine(web)
        assert second.state is RunState.RUNNING and first and second.started and second.started > first

    def test_a_machine_that_is_off_by_its_manifest_is_made_and_not_started(self, session: Session, text, tmp_path):
        web, _ = self.up(session, self.read(text + "  runStrategy: Halted\n", tmp_path))
        assert session.of(web).observe_machine(web).state is not RunState.RUNNING
        assert Verb.START not in [s.verb for s in session.of(web).plan(web, Intent(), RunOptions()).steps]

    def test_what_is_removed_is_gone_and_its_disk_stays(self, session: Session, objects):
        web, _ = self.up(session, objects)
        remove.remove(session, [web.key], RunOptions(grace=0, force=True), ignore)
        assert session.store.get(web.key) is None
        assert session.of(web).observe_machine(web).state is RunState.ABSENT
        sys = next(o for o in session.store.objects(DISK))
        assert session.of(sys).observe_disk(sys).exists
        remove.remove(session, [sys.key], RunOptions(), ignore)
        assert not session.of(sys).observe_disk(sys).exists and session.store.objects() == []

    def test_what_cannot_be_deleted_in_order_goes_by_force(self, session: Session, objects):
        disks = [o for o in objects if o.kind == DISK]
        apply(session, disks, ApplyOptions(allow_inner=True), ignore, self.confirm)
        session.store.mark_deleted(o.key for o in disks)
        disk = session.store.objects(DISK)[0]
        session.of(disk).discard(disk)
        assert session.store.objects() == [] and not session.of(disk).observe_disk(disk).exists

    def test_a_capability_is_there_or_one_sentence_says_that_it_is_not(self, session: Session, objects):
        from hikube_local.backends.capabilities import NOUNS, Capability
        from hikube_local.errors import HikubeError

        assert set(NOUNS) == set(Capability.__subclasses__())
        for capability, noun in NOUNS.items():
            backend = session.backend(self.backend)
            if isinstance(backend, capability):
                assert registry.require(backend, capability) is backend
                for method in (name for name, here in vars(capability).items() if _left_open(name, here)):
                    assert method in vars(type(backend)), (
                        f"{backend.name} names {capability.__name__} and has no {method}"
                    )
                continue
            with pytest.raises(HikubeError) as caught:
                registry.require(backend, capability, "web")
            assert caught.value.code == "HK510" and noun in caught.value.what and "web" in caught.value.what
