"""The store and the locks: transactions, rebuilding, waiting for whom."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest

from hikube_local import files, locks
from hikube_local.api.objects import Key, Object
from hikube_local.api.shapes import plain_spec
from hikube_local.errors import HikubeError
from hikube_local.events import Event, EventType
from hikube_local.manifests.models import read_spec
from hikube_local.paths import Layout
from hikube_local.store import bodies, db, file
from hikube_local.store.bell import Bell
from hikube_local.store.records import GuestCache, Intent, Lease
from tests.conftest import ROOT
from tests.growth import patience


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "s", tmp_path / "c", tmp_path / "config.yaml", tmp_path / "r", False)


@pytest.fixture
def store(layout) -> db.Store:
    return db.Store(layout)


def disk(storage="5Gi", name="d", **more) -> Object:
    return Object(kind="VMDisk", namespace="n", name=name, spec=read_spec("VMDisk", {"storage": storage}), **more)


def test_reading_makes_nothing(store, layout):
    assert store.objects() == [] and store.get(Key("VMDisk", "n", "d")) is None
    assert not layout.state.exists()


def test_generations_count_changes_of_the_spec_alone(store):
    first = store.put([disk()])[0]
    assert (first.generation, bool(first.uid)) == (1, True)
    assert store.put([disk()])[0].resource_version == first.resource_version
    assert store.put([disk(labels={"a": "b"})])[0].generation == 1
    second = store.put([disk("6Gi")])[0]
    assert (second.generation, second.uid) == (2, first.uid)


def test_the_backend_of_an_object_cannot_change(store):
    store.put([disk()])
    with pytest.raises(HikubeError, match="was made with the backend qemu"):
        store.put([disk(backend="simulator")])


def test_a_lost_store_is_rebuilt_from_the_folders(store, layout):
    obj = store.put([disk("7Gi")])[0]
    bodies.record(layout.disk("n", "d"), obj)
    for path in layout.state.glob("store.sqlite*"):
        path.unlink()
    (layout.state / "machines").mkdir()
    assert db.Store(layout).get(obj.key).disk.storage == "7Gi"
    assert not layout.store.exists()  # a look makes nothing
    assert db.Store(layout).put([disk("7Gi")])[0].resource_version > 1_000_000  # beyond what the lost one had given
    assert layout.store.exists() and store.get(obj.key).uid == obj.uid


def test_a_damaged_store_is_moved_aside_and_rebuilt(store, layout):
    obj = store.put([disk("7Gi")])[0]
    bodies.record(layout.disk("n", "d"), obj)
    for path in layout.state.glob("store.sqlite-*"):
        path.unlink()
    layout.store.write_bytes(b"this is no database at all" * 100)
    assert db.Store(layout).get(obj.key).disk.storage == "7Gi"
    assert not list(layout.state.glob("store.sqlite.damaged-*"))  # a look changes nothing
    store.note("x", a=1)
    assert db.Store(layout).get(obj.key).disk.storage == "7Gi"
    assert list(layout.state.glob("store.sqlite.damaged-*"))


def test_allocations_and_status_and_events(store):
    store.allocate("x", lambda own, everything: {"ip": "1"})
    store.note("x", a=1, b=None)
    assert store.allocation("x") == {"ip": "1", "a": 1}
    store.note("x", a=None)
    assert store.allocations() == {"x": {"ip": "1"}}
    store.change_status(Key("VMDisk", "n", "d"), lambda kept: {"a": 1})
    assert store.status(Key("VMDisk", "n", "d")) == {}  # there is no such object
    key = store.put([disk()])[0].key
    store.change_status(key, lambda kept: {"a": 1})
    assert store.status(key) == {"a": 1}
    store.append(Event(EventType.STEP, "hello", "vmdisk/d", "n"))
    assert [e["message"] for _, _, e in store.events(namespace="n", obj="vmdisk/d")] == ["hello"]


def test_a_lock_dies_with_its_process_and_names_it(tmp_path):
    path = tmp_path / "lock"
    code = f"from hikube_local.locks import locked\nfrom pathlib import Path\nimport time\nwith locked(Path({str(path)!r})):\n print('in', flush=True)\n time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "in\n"
        assert str(process.pid) in (locks.holder(path) or "")
        waited: list[str] = []
        begin = time.monotonic()
        timer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {process.pid}"])
        with locks.locked(path, waited.append):
            assert time.monotonic() - begin > 0.3
        assert str(process.pid) in waited[0]
        timer.wait()
        assert locks.holder(path) is None
    finally:
        process.kill()
        process.wait()


def test_writing_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "f"
    files.write(path, "one")
    with pytest.raises(RuntimeError), files.beside(path) as temporary:
        temporary.write_text("two")
        raise RuntimeError
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["f"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_may_remove_the_same_folder(tmp_path):
    """Two disks of one checkpoint are deleted side by side."""
    with ThreadPoolExecutor(4) as pool:
        for turn in range(200):
            folder = tmp_path / str(turn)
            (folder / "a").mkdir(parents=True)
            for done in [pool.submit(files.remove_folder, folder, tmp_path) for _ in range(4)]:
                done.result()
            assert not folder.exists()


def test_folders_are_removed_only_below_their_root(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(ValueError):
        files.remove_folder(tmp_path / ".." / "x", tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "a" / "link").symlink_to(outside)
    files.remove_folder(tmp_path / "a" / "link", tmp_path)
    files.remove_folder(tmp_path / "a" / "b", tmp_path)
    assert outside.is_dir() and os.listdir(tmp_path / "a") == []


def test_a_page_damaged_inside_is_noticed_and_rebuilt(store, layout):
    """The header is whole: the damage shows only when the page is read."""
    objects = store.put([disk("7Gi")])
    bodies.record(layout.disk("n", "d"), objects[0])
    for n in range(50):
        store.note(f"filler/{n}", text="x" * 500)
    with sqlite3.connect(layout.store) as connection:
        page = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    with open(layout.store, "r+b") as f:
        f.seek(page)
        f.write(b"\xff" * (layout.store.stat().st_size - page))
    assert db.Store(layout).get(objects[0].key).disk.storage == "7Gi"
    store._file.close()  # another command
    store.note("x", a=1)
    assert db.Store(layout).get(objects[0].key).disk.storage == "7Gi"
    aside = layout.state.glob("store.sqlite.damaged-*")
    assert len([p for p in aside if not p.name.endswith("-journal")]) == 1


def _first(layout: Layout, barrier, number: int) -> None:
    barrier.wait()
    db.Store(layout).note("x", **{f"n{number}": 1})


def at_once(layout: Layout, many: int = 6) -> None:
    """So many processes write into the store at the same moment; all of them succeed, and nothing is lost."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(many)
    processes = [context.Process(target=_first, args=(layout, barrier, n)) for n in range(many)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0] * many
    assert sorted(db.Store(layout).allocation("x")) == [f"n{n}" for n in range(many)]


def test_several_processes_make_the_store_at_once(tmp_path):
    """Changing the journal's mode does not wait: of six who did so at once one in six ended with "database is locked"."""
    for turn in range(10):
        root = tmp_path / str(turn)
        layout = Layout(root / "s", root / "c", root / "config.yaml", root / "r", False)
        at_once(layout)
        assert not list(layout.state.glob(f"{files.PARTIAL}*"))


def test_several_processes_find_it_damaged_at_once(tmp_path):
    """One of them rebuilds it, and the damaged one is kept for whoever wants to look at it."""
    damaged = b"this is no database at all" * 100
    for turn in range(15):
        root = tmp_path / str(turn)
        layout = Layout(root / "s", root / "c", root / "config.yaml", root / "r", False)
        layout.make()
        layout.store.write_bytes(damaged)
        at_once(layout)
        assert [p.read_bytes() for p in layout.state.glob("*.damaged-*[0-9]")] == [damaged]


def test_an_empty_file_is_no_store(store, layout):
    obj = store.put([disk("7Gi")])[0]
    bodies.record(layout.disk("n", "d"), obj)
    for path in layout.state.glob("store.sqlite*"):
        path.unlink()
    layout.store.touch()
    assert db.Store(layout).get(obj.key).disk.storage == "7Gi"
    store.note("x", a=1)
    assert db.Store(layout).get(obj.key).disk.storage == "7Gi" and layout.store.stat().st_size


def test_what_another_store_left_beside_is_not_read_into_a_new_one(store, layout):
    """An older build's write-ahead log survives when its store is taken away."""
    obj = store.put([disk("7Gi")])[0]
    bodies.record(layout.disk("n", "d"), obj)
    for suffix in ("-journal", "-wal", "-shm"):
        Path(f"{layout.store}{suffix}").write_bytes(b"of another one" * 400)
    layout.store.unlink()
    store.note("x", a=1)
    assert store.get(obj.key).disk.storage == "7Gi"
    assert not [p for p in layout.state.glob("store.sqlite*") if b"another" in p.read_bytes()]


def test_a_store_that_an_older_build_has_open_is_used_as_it_is(store, layout):
    store.put([disk()])
    with contextlib.closing(sqlite3.connect(layout.store)) as older:
        older.execute("PRAGMA journal_mode=WAL")
        older.execute("SELECT * FROM objects").fetchone()
        store.note("x", a=1)
        assert store.allocation("x") == {"a": 1}
    store._file.close()  # the next command
    store.note("x", b=2)
    assert store.allocation("x") == {"a": 1, "b": 2}
    store._file.close()
    assert not Path(f"{layout.store}-wal").exists()


def test_the_room_laid_aside_goes_to_what_frees_room_alone(store, layout, monkeypatch):
    obj = store.put([disk()])[0]
    spare = layout.state / "spare"
    assert spare.stat().st_size == file.SPARE and spare.stat().st_mode & 0o777 == 0o600
    real, full = store._file._open, True

    @contextlib.contextmanager
    def opened(write):
        if full and spare.exists():
            raise HikubeError("HK604", "full")
        with real(write) as connection:
            yield connection

    monkeypatch.setattr(store._file, "_open", opened)
    with pytest.raises(HikubeError, match="full"):
        store.change_status(obj.key, lambda kept: {"a": 1})
    assert spare.exists()
    store.mark_deleted([obj.key])
    store.forget(obj.key)
    assert spare.exists(), "laid aside again, as there is room"
    full = False
    assert store.get(obj.key) is None


# revisions


def apply(known: dict, changes: list[db.Change]) -> None:
    """What a watch makes of the changes."""
    for change in changes:
        if change.type is db.ChangeType.DELETED:
            known.pop(change.object.key)
        else:
            assert (change.object.key in known) is (change.type is db.ChangeType.MODIFIED)
            known[change.object.key] = change.object


def some(name: str, **more) -> Object:
    return Object(kind="VMDisk", namespace="n", name=name, spec=read_spec("VMDisk", more))


def gone(store: db.Store, *names: str) -> None:
    keys = [Key("VMDisk", "n", name) for name in names]
    store.mark_deleted(keys)
    for key in keys:
        store.forget(key)


def test_a_revision_is_never_given_twice(store):
    """After the newest object is gone its number is not given to the next one."""
    a, b = store.put([some("a"), some("b")])
    gone(store, "b")
    after = store.revision()
    c = store.put([some("c")])[0]
    assert a.resource_version < b.resource_version < after < c.resource_version == store.revision()


def test_an_objects_version_rises_with_its_status(store):
    first = store.put([some("a")])[0]
    store.change_status(first.key, lambda kept: {"conditions": []})
    second = store.get(first.key)
    assert second.resource_version > first.resource_version and second.generation == first.generation
    store.change_status(first.key, lambda kept: {"conditions": []})
    assert store.get(first.key).resource_version == second.resource_version == store.revision()


def test_a_tombstone_tells_what_was_deleted_and_a_life_between_two_looks_is_no_news(store):
    store.put([some("a", storage="7Gi")])
    then, _ = store.snapshot()
    store.put([some("short")])
    gone(store, "a", "short")
    _, changes = store.changes(then)
    assert [(c.type, c.object.name, c.object.disk.storage) for c in changes] == [("DELETED", "a", "7Gi")]
    store.put([some("a", storage="8Gi")])
    _, changes = store.changes(then)
    assert [(str(c.type), c.object.disk.storage) for c in changes] == [("DELETED", "7Gi"), ("ADDED", "8Gi")]
    assert changes[0].object.uid != changes[1].object.uid


def test_the_log_is_kept_short_and_says_how_far_back_it_reaches(store, monkeypatch):
    monkeypatch.setattr(db, "KEEP_CHANGES", 10)
    store.put([some(f"d{n}") for n in range(5)])
    begin = store.revision()
    for n in range(20):
        store.put([some("d0", storage=f"{n + 6}Gi")])
    with pytest.raises(db.Compacted, match=f"after revision {begin} "):
        store.changes(begin)
    now, changes = store.changes(store.revision() - 10)
    assert now == store.revision() and [c.object.name for c in changes] == ["d0"]
    with pytest.raises(db.Compacted):
        store.changes(now + 1)  # of another store


def _wildly(folder: str, seed: int, turns: int) -> None:
    chance = random.Random(seed)
    store = db.Store(
        Layout(Path(folder, "s"), Path(folder, "c"), Path(folder, "config.yaml"), Path(folder, "r"), False)
    )
    for _ in range(turns):
        name = f"d{chance.randrange(6)}"
        match chance.randrange(4):
            case 0 | 1:
                store.put([some(name, storage=f"{chance.randrange(1, 9)}Gi")])
            case 2:
                gone(store, name)
            case 3:
                store.change_status(Key("VMDisk", "n", name), lambda kept: {"at": chance.random()})


def test_a_list_and_the_changes_since_are_the_list_now(layout):
    """Several processes at work, and a reader that never sees a revision go back or an object that is not there."""
    store = db.Store(layout)
    store.put([some("d0")])
    revision, objects = store.snapshot()
    known = {o.key: o for o in objects}
    context = multiprocessing.get_context("fork")
    folder = str(layout.state.parent)
    workers = [context.Process(target=_wildly, args=(folder, seed, 60)) for seed in range(3)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        new, changes = store.changes(revision)
        assert new >= revision and all(c.revision > revision for c in changes)
        apply(known, changes)
        revision = new
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    revision, changes = store.changes(revision)
    apply(known, changes)
    assert store.snapshot() == (revision, sorted(known.values(), key=lambda o: o.key))


def test_a_bell_rings_when_another_process_wrote(layout, store):
    store.put([some("a")])
    bell = Bell(layout.store)
    assert bell.wait(0) is False
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=_wildly, args=(str(layout.state.parent), 1, 1))
    worker.start()
    assert bell.wait(patience(30)) is True
    worker.join()
    bell.wait(0.2)
    assert bell.wait(0.1) is False
    store.objects()
    store.changes(store.revision())
    assert bell.wait(0) is False  # a look is no change


def _of_schema_1(layout: Layout) -> dict[str, int]:
    """A store as c24fceb wrote it, with versions."""
    archive = next((ROOT / "tests" / "simulator" / "roots").glob("c24fceb.tar.gz"))
    layout.state.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-xzf", archive, "-C", layout.state.parent], check=True)
    (layout.state.parent / "state").rename(layout.state)
    with contextlib.closing(sqlite3.connect(layout.store)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
        rows = connection.execute("SELECT name, version FROM objects UNION SELECT name, version FROM status").fetchall()
    return {name: max(v for n, v in rows if n == name) for name, _ in rows}


def test_a_store_of_schema_1_is_read_as_it_is_and_migrated_at_the_first_change(layout):
    versions = _of_schema_1(layout)
    before = layout.store.read_bytes()
    store = db.Store(layout)
    assert {o.name: o.resource_version for o in store.objects()} == versions
    revision, objects = store.snapshot()
    assert revision == max(versions.values()) and store.changes(revision) == (revision, [])
    with pytest.raises(db.Compacted):
        store.changes(revision - 1)
    assert layout.store.read_bytes() == before
    made = store.put([some("new")])[0]
    assert made.resource_version == revision + 1
    assert [c.object.name for c in store.changes(revision)[1]] == ["new"]
    assert {o.name: o.resource_version for o in store.objects()} == {**versions, "new": revision + 1}
    assert len(store.objects()) == len(objects) + 1 and store.events() and store.allocations()


def test_a_migration_that_is_killed_leaves_the_one_schema_or_the_other(layout, tmp_path):
    """Killed before each system call that writes, until one run gets through; nothing is lost at any of them."""
    versions = _of_schema_1(layout)
    kept = tmp_path / "kept"
    shutil.copytree(layout.state, kept)
    code = (
        "from pathlib import Path\nfrom hikube_local.paths import Layout\nfrom hikube_local.store.db import Store\n"
        f"b = Path({str(layout.state.parent)!r})\n"
        "Store(Layout(b / 's', b / 'c', b / 'config.yaml', b / 'r', False)).note('x', mark=1)\n"
    )
    calls = "pwrite64,fdatasync,fsync,ftruncate,unlink"
    for at in range(1, 200):
        shutil.rmtree(layout.state)
        shutil.copytree(kept, layout.state)
        inject = f"inject={calls}:signal=KILL:when={at}"
        words = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            f"trace={calls}",
            "-e",
            inject,
            sys.executable,
            "-c",
            code,
        ]
        done = subprocess.run(words, capture_output=True, text=True)
        store = db.Store(layout)
        assert {o.name: o.resource_version for o in store.objects()} == versions, at
        made = store.put([some("new")])[0]
        assert made.resource_version == max(versions.values()) + 1 and store.events(), at
        if done.returncode == 0:
            break
    assert done.returncode == 0 and at > 5, (at, done.stderr)


# records


def test_records_are_typed_and_their_names_are_checked(store):
    key = store.put([some("a")])[0].key
    assert store.records(key) == (Intent(), Lease(), GuestCache())
    store.keep(key, power="stop", uuid="1", lan_ip="192.168.1.2", cloud_init={"start": 1.0, "ok": True})
    assert store.intent(key) == Intent(power="stop")
    assert store.lease(key).uuid == "1" and store.guest(key).cloud_init == {"start": 1.0, "ok": True}
    store.keep(key, power=None, lan_ip=None)
    assert store.records(key) == (Intent(), Lease(uuid="1"), GuestCache(cloud_init={"start": 1.0, "ok": True}))
    with pytest.raises(TypeError, match="powr"):
        store.keep(key, powr="stop")
    names = [f.name for kind in (Intent, Lease, GuestCache) for f in fields(kind)]
    assert len(names) == len(set(names))  # they lie in one row


def test_nobody_writes_a_record_by_a_string():
    """What has a type is written through it: `note` is for rows that are no object's."""
    for path in (ROOT / "hikube_local").rglob("*.py"):
        assert "note(scope(" not in path.read_text() or path.name == "db.py", path


def test_a_command_opens_the_store_once(hikube, monkeypatch, tmp_path):
    """`up` with nothing to do: one connection serves its looks and its threads; one more where it writes."""
    from hikube_local.cli.main import run
    from hikube_local.store import file
    from tests.simulator.test_contract import SIMULATED

    monkeypatch.setenv("HIKUBE_LOCAL_HOME", str(hikube.home))
    path = hikube.file("m.yaml", SIMULATED)
    assert run(["up", str(path), "--backend", "simulator"]) == 0
    opened = []
    real = file.connect
    monkeypatch.setattr(file, "connect", lambda *words: opened.append(words) or real(*words))
    assert run(["up", str(path)]) == 0
    assert len(opened) <= 2, opened
    opened.clear()
    assert run(["get", "vm"]) == 0
    assert len(opened) == 1, opened


def test_an_up_with_nothing_to_do_writes_nothing(hikube):
    from tests.simulator.test_contract import SIMULATED

    path, store = hikube.file("m.yaml", SIMULATED), hikube.home / "state" / "store.sqlite"
    assert hikube("up", path, "--backend", "simulator").code == 0
    before = store.read_bytes()
    assert "nothing changed" in hikube("up", path).err
    assert store.read_bytes() == before


def test_a_connection_that_is_open_follows_the_file(store, layout):
    """Another process takes the store away, or makes it anew: who has it open looks at the one that has the name."""
    store.put([disk()])
    assert len(store.objects()) == 1
    os.rename(layout.store, f"{layout.store}.gone")
    other = db.Store(layout)
    other.put([disk(name="second")])
    assert [o.name for o in store.objects()] == [o.name for o in other.objects()]
    store.mark_deleted([disk(name="second").key])
    assert next(o for o in other.objects() if o.name == "second").deletion


def test_threads_share_a_connection(store, layout):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.put([disk(name=f"d{n}")]), range(40)))
        names = list(pool.map(lambda n: len(store.objects()), range(40)))
    assert names == [40] * 40


def _at_once(store, *actions):
    """What becomes of changes that all wait while somebody has the turn."""
    with ThreadPoolExecutor(len(actions)) as pool, store._file._turn:
        futures = [pool.submit(store._file.write, action) for action in actions]
        end = time.monotonic() + patience(10)
        while len(store._file._wishes) < len(actions):
            assert time.monotonic() < end
            time.sleep(0.001)
    return [future.exception() or future.result() for future in futures]


def _transactions(layout) -> int:
    """SQLite's own count of the transactions that changed the file (sqlite.org/fileformat.html, 1.3.7)."""
    return int.from_bytes(layout.store.read_bytes()[24:28])


def _noting(name):
    def write(c):
        c.execute("INSERT INTO allocations VALUES(?, '{}')", (name,))
        return name

    return write


def _refused(c):
    _noting("half")(c)
    raise HikubeError("HK813", "no")


def test_what_threads_want_at_once_is_one_transaction(store, layout):
    store.put([disk()])
    before = _transactions(layout)
    assert _at_once(store, *(_noting(f"a{n}") for n in range(7))) == [f"a{n}" for n in range(7)]
    assert _transactions(layout) == before + 1
    assert sorted(db.Store(layout).allocations()) == [f"a{n}" for n in range(7)]


def test_of_changes_at_once_each_fails_by_itself(store, layout):
    """What is refused leaves nothing; a fault in the file's own words costs the others their common transaction alone."""
    store.put([disk()])
    before = _transactions(layout)
    first, second, third = _at_once(store, _noting("a"), _refused, _noting("b"))
    assert (first, third) == ("a", "b") and second.code == "HK813"
    assert sorted(store.allocations()) == ["a", "b"] and _transactions(layout) == before + 1
    found = _at_once(store, _noting("c"), lambda c: c.execute("INSERT INTO nowhere VALUES(1)"), _noting("d"))
    assert (found[0], found[2]) == ("c", "d") and isinstance(found[1], sqlite3.OperationalError)
    assert sorted(store.allocations()) == ["a", "b", "c", "d"]


def test_who_carries_out_the_changes_of_others_and_is_ended_leaves_them_to_themselves(store, layout):
    store.put([disk()])
    ended = []

    def end(c):
        if not ended:
            ended.append(1)
            raise KeyboardInterrupt
        return "again"

    found = _at_once(store, end, _noting("a"), _noting("b"))
    # Who was at work meets the interrupt, whoever's change it was; everybody else's is carried out.
    assert ended and len([f for f in found if isinstance(f, KeyboardInterrupt)]) == 1
    assert set(store.allocations()) == {f for f in found if f in ("a", "b")} and len(found) == 3


def test_a_change_of_one_machine_costs_the_same_beside_many(store):
    """All allocations are read by whoever must know them, and only then."""

    def machine(n):
        return f"VMInstance/n/m{n}"

    def rows(n):
        counted = []
        for i in range(n):
            store.note(machine(i), host=i)
        store._file.write(lambda c: c.set_progress_handler(lambda: counted.append(1), 10))
        store.keep(Key("VMInstance", "n", "m0"), uuid=str(n))
        store._file.write(lambda c: c.set_progress_handler(None, 0))
        return len(counted)

    assert rows(200) <= rows(10) + 5


def test_nothing_is_remembered_of_an_object_that_is_gone(store):
    """Another one of its name begins anew: its address, its size, and whom our key lets in."""
    made = Object(kind="VMInstance", namespace="n", name="d", spec=read_spec("VMInstance", {}))
    (machine, kept) = store.put([made, disk()])
    store.keep(machine.key, uuid="u", power="stop", listening=["80"])
    store.note(db.logins(machine.key), users=["demo"], disk="x")
    store.note("tenant", n=1)
    store.mark_deleted([kept.key])
    store.forget(kept.key)
    assert store.allocation(db.logins(machine.key))["users"] == ["demo"], "a disk of its name is another object"
    store.mark_deleted([machine.key])
    store.forget(machine.key)
    assert store.allocations() == {"tenant": {"n": 1}}


@pytest.mark.parametrize(
    "spec",
    [
        {"disks": None},
        {"disks": {"name": "a"}},
        {"disks": ["a"]},
        {"disks": [{"name": 1}]},
        {"externalPorts": 22},
        {"externalPorts": ["22"]},
        {"externalPorts": [True]},
        {"cloudInit": ["x"]},
        {"resources": []},
        {"resources": {"cpu": 2}},
        {"external": 1},
        {"given": ["external"]},
        {"from-the-future": True},
    ],
)
def test_a_spec_that_this_version_does_not_know_is_said(store, spec):
    """As a newer one wrote it, or a stranger: HK608, no bug; and a rebuild leaves such an object's folder alone."""
    (obj,) = store.put([Object(kind="VMInstance", namespace="n", name="d", spec=read_spec("VMInstance", {}))])
    with pytest.raises(HikubeError) as e:
        bodies.from_json({**bodies.to_json(obj), "spec": spec})
    assert e.value.code == "HK608" and "n/d" in e.value.what


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", 5),
        ("namespace", None),
        ("kind", "Pod"),
        ("labels", None),
        ("labels", {"a": 1}),
        ("annotations", {1: "a"}),
        ("generation", "x"),
        ("generation", True),
        ("created", None),
        ("deletion", "y"),
        ("backend", 7),
    ],
)
def test_an_object_that_is_damaged_is_said(store, name, value):
    (obj,) = store.put([disk()])
    assert bodies.from_json(bodies.to_json(obj) | {"later": 1, "created": 5}).created == 5
    with pytest.raises(HikubeError) as e:
        bodies.from_json(bodies.to_json(obj) | {name: value})
    assert e.value.code == "HK608"


def test_what_is_changed_by_replace_is_given_too():
    spec = replace(read_spec("VMDisk", {"optical": True}), storage="9Gi")
    assert plain_spec(spec) == {"optical": True, "storage": "9Gi"}
    assert spec == read_spec("VMDisk", plain_spec(spec))
    said = read_spec("VMDisk", {"storage": "5Gi"})
    assert said == read_spec("VMDisk", {}) and plain_spec(said) != plain_spec(read_spec("VMDisk", {}))
