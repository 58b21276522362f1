"""The store: objects (what was asked for), allocations (what must stay the same), events, status (a cache). SQLite.

A lost or damaged store is rebuilt from the objects that lie in the machines' and disks' own folders.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hikube_local.api.objects import Key, Object, plain_spec, spec_of
from hikube_local.errors import HikubeError
from hikube_local.events import Event
from hikube_local.files import beside, read_json, sweep_partials, write_json
from hikube_local.locks import locked
from hikube_local.paths import Layout

SCHEMA = 1
KEEP_EVENTS = 5000
ATTEMPTS = 5  # of several commands that find it damaged one rebuilds it, the others come again
_TABLES = """
CREATE TABLE IF NOT EXISTS objects(kind TEXT, namespace TEXT, name TEXT, body TEXT NOT NULL, version INTEGER NOT NULL,
  PRIMARY KEY(kind, namespace, name));
CREATE TABLE IF NOT EXISTS allocations(scope TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events(id INTEGER PRIMARY KEY, time REAL, namespace TEXT, object TEXT, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS status(kind TEXT, namespace TEXT, name TEXT, body TEXT NOT NULL, version INTEGER NOT NULL,
  PRIMARY KEY(kind, namespace, name));
"""
OBJECT_FILE = "object.json"
SPARE = 1 << 20  # bytes
_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite keeps with a file, by the file's mode


def to_json(obj: Object) -> dict[str, Any]:
    """The object as the store and its own folder keep it."""
    body = obj.model_dump(mode="json", exclude={"spec"})
    return body | {"spec": plain_spec(obj.spec)}


def from_json(body: dict[str, Any]) -> Object:
    return Object(**{**body, "spec": spec_of(body["kind"], body["spec"])})


def scope(key: Key) -> str:
    """The name of an object's allocations."""
    return "/".join(key)


class Store:
    """One state root's store. Transactions are short; it is never held across I/O of other kinds."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._path = layout.store
        self._spare = layout.state / "spare"

    def exists(self) -> bool:
        return self._path.exists()

    @contextlib.contextmanager
    def _open(self, write: bool) -> Iterator[sqlite3.Connection]:
        file: int | None = None  # not looked at yet
        try:
            if not self._path.exists():
                self._create()
            file = self._file()
            with contextlib.closing(_connect(self._path)) as connection:
                # A rollback journal: a look at it needs no room on the disk, which a full one has not. It is kept, so
                # that a small change finds its room too.
                with contextlib.suppress(sqlite3.OperationalError):  # an older build has it open in its own mode
                    connection.execute("PRAGMA journal_mode=PERSIST")
                connection.execute("PRAGMA synchronous=FULL")
                self._know(connection)
                if write:
                    connection.execute("BEGIN IMMEDIATE")
                    try:
                        yield connection
                    except BaseException:
                        connection.rollback()
                        raise
                    connection.commit()
                else:
                    yield connection
        except sqlite3.DatabaseError as e:
            aside = file is not None and (not file or file != self._file())
            if aside or not isinstance(e, sqlite3.OperationalError):
                raise _Damaged from e  # or it was set aside this moment
            if "disk is full" in str(e) or "disk I/O" in str(e):
                raise HikubeError(
                    "HK604", f"the store cannot be written: {e}", fix=f"free space in {self.layout.state}"
                ) from e
            if "readonly" in str(e) or "unable to open" in str(e):
                raise HikubeError("HK608", f"the store cannot be opened: {e}", why=str(self._path)) from e
            raise

    def _file(self) -> int:
        """What tells the file from another one of its name; 0 when there is none."""
        try:
            return os.stat(self._path).st_ino
        except FileNotFoundError:
            return 0

    def _know(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            raise _Damaged  # an empty file
        if version > SCHEMA:
            raise HikubeError(
                "HK608",
                f"{self._path} was written by a newer hikube-local (schema {version}, this one knows {SCHEMA})",
                fix="use the newer version, or another HIKUBE_LOCAL_HOME",
            )

    def _set_aside(self) -> None:
        """Move a damaged file away, so that the next opening rebuilds it; of two who found it so, one does."""
        with locked(self.layout.locks / "store-file"):
            if not self._path.exists():
                return
            try:
                with contextlib.closing(_connect(self._path)) as connection:
                    whole = connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
                    if whole and connection.execute("PRAGMA user_version").fetchone()[0]:
                        return
            except sqlite3.OperationalError:
                return  # somebody is at it: that says nothing about the file
            except sqlite3.DatabaseError:
                pass
            aside = f"{self._path}.damaged-{time.time_ns()}"
            for suffix in ("", *_BESIDE):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self._path}{suffix}", f"{aside}{suffix}")

    def _create(self) -> None:
        """A new store with the objects of the folders; it is whole when it gets its name, so that nobody opens half."""
        self.layout.make()
        with locked(self.layout.locks / "store-file"):
            if self._path.exists():
                return
            sweep_partials(self._path.parent)
            with beside(self._path) as path, contextlib.closing(_connect(path, "rwc")) as connection:
                connection.execute("BEGIN IMMEDIATE")
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                for body in self._in_folders():
                    self._write(connection, from_json(body))
                connection.execute(f"PRAGMA user_version={SCHEMA}")
                connection.commit()
                for suffix in _BESIDE:  # of a store that was taken away: it is not this one's
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(f"{self._path}{suffix}")

    def _lay_aside(self) -> None:
        """Keep a little room, so that on a full disk it can still be written down what is stopped and deleted."""
        with contextlib.suppress(OSError):
            if self._spare.exists() or shutil.disk_usage(self.layout.state).free < 8 * SPARE:
                return
            fd = os.open(self._spare, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(fd, 0, SPARE)
            finally:
                os.close(fd)

    def _in_folders(self) -> Iterator[dict[str, Any]]:
        for top in ("machines", "disks"):
            for path in sorted((self.layout.state / top).glob(f"*/*/{OBJECT_FILE}")):
                body = read_json(path)
                with contextlib.suppress(Exception):
                    from_json(body)
                    yield body

    def _do(self, write: bool, action: Callable[[sqlite3.Connection], Any], frees: bool = False) -> Any:
        """Carry out `action` in a transaction. What `frees` room may take what was laid aside."""
        made = any((self.layout.state / top).exists() for top in ("machines", "disks"))
        if not write and not made and not self._path.exists():
            return None
        for attempt in range(ATTEMPTS):
            try:
                with self._open(write) as connection:
                    found = action(connection)
                if write:
                    self._lay_aside()
                return found
            except _Damaged:
                self._set_aside()
            except HikubeError as e:
                if not frees or e.code != "HK604" or attempt:
                    raise
                self._spare.unlink(missing_ok=True)  # or another command has just done so
        raise HikubeError("HK608", f"the store {self._path} is damaged and cannot be rebuilt")

    # objects

    @staticmethod
    def _read(row: tuple) -> Object:
        return from_json(json.loads(row[0])).model_copy(update={"resource_version": row[1]})

    @staticmethod
    def _write(connection: sqlite3.Connection, obj: Object) -> Object:
        version = connection.execute(
            "SELECT 1 + max((SELECT ifnull(max(version), 0) FROM objects), (SELECT ifnull(max(version), 0) FROM status))"
        ).fetchone()[0]
        connection.execute(
            "INSERT OR REPLACE INTO objects VALUES(?,?,?,?,?)",
            (obj.kind, obj.namespace, obj.name, json.dumps(to_json(obj)), version),
        )
        return obj.model_copy(update={"resource_version": version})

    def get(self, key: Key) -> Object | None:
        def read(c: sqlite3.Connection) -> Object | None:
            sql = "SELECT body, version FROM objects WHERE kind=? AND namespace=? AND name=?"
            row = c.execute(sql, key).fetchone()
            return self._read(row) if row else None

        return self._do(False, read)

    def objects(self, kind: str | None = None, namespace: str | None = None) -> list[Object]:
        """The objects, sorted by kind (disks first), namespace and name."""

        def read(c: sqlite3.Connection) -> list[Object]:
            sql = "SELECT body, version FROM objects WHERE (?1 IS NULL OR kind=?1) AND (?2 IS NULL OR namespace=?2)"
            rows = c.execute(sql + " ORDER BY kind, namespace, name", (kind, namespace)).fetchall()
            return [self._read(row) for row in rows]

        return self._do(False, read) or []

    def names(self, kind: str, namespace: str | None = None) -> list[str]:
        """Names alone, for completion: nothing is parsed."""

        def read(c: sqlite3.Connection) -> list[str]:
            sql = "SELECT name FROM objects WHERE kind=?1 AND (?2 IS NULL OR namespace=?2) ORDER BY name"
            return [r[0] for r in c.execute(sql, (kind, namespace))]

        return self._do(False, read) or []

    def put(self, wanted: Iterable[Object]) -> list[Object]:
        """Record what was asked for, all in one transaction; a spec that did not change keeps its generation."""

        def write(c: sqlite3.Connection) -> list[Object]:
            out = []
            for obj in wanted:
                sql = "SELECT body, version FROM objects WHERE kind=? AND namespace=? AND name=?"
                row = c.execute(sql, obj.key).fetchone()
                if row is None:
                    fresh = {"uid": str(uuid.uuid4()), "created": time.time(), "generation": 1}
                    out.append(self._write(c, obj.model_copy(update=fresh)))
                    continue
                old = self._read(row)
                if old.backend != obj.backend:
                    raise HikubeError(
                        "HK807",
                        f"{obj.ref} was made with the backend {old.backend}, not {obj.backend}",
                        fix=f"hikube-local delete {obj.ref} first, or leave --backend out",
                        exit_code=2,  # type: ignore[arg-type]
                    )
                kept = {"uid": old.uid, "created": old.created, "generation": old.generation, "deletion": None}
                new = obj.model_copy(update=kept)
                if plain_spec(new.spec) != plain_spec(old.spec) or old.deletion:
                    new = new.model_copy(update={"generation": old.generation + 1})
                elif (new.labels, new.annotations) == (old.labels, old.annotations):
                    out.append(old)
                    continue
                out.append(self._write(c, new))
            return out

        return self._do(True, write)

    def mark_deleted(self, keys: Iterable[Key]) -> None:
        """Set deletionTimestamp; the reconciler takes it from there."""

        def write(c: sqlite3.Connection) -> None:
            for key in keys:
                sql = "SELECT body, version FROM objects WHERE kind=? AND namespace=? AND name=?"
                if (row := c.execute(sql, key).fetchone()) and not (old := self._read(row)).deletion:
                    fresh = {"deletion": time.time(), "generation": old.generation + 1}
                    self._write(c, old.model_copy(update=fresh))

        self._do(True, write, frees=True)

    def forget(self, key: Key) -> None:
        """The last step of a deletion: the row, its status, its allocations. One that was put again meanwhile stays."""

        def write(c: sqlite3.Connection) -> None:
            sql = "SELECT body, version FROM objects WHERE kind=? AND namespace=? AND name=?"
            if (row := c.execute(sql, key).fetchone()) and not self._read(row).deletion:
                return
            for table in ("objects", "status"):
                c.execute(f"DELETE FROM {table} WHERE kind=? AND namespace=? AND name=?", key)
            c.execute("DELETE FROM allocations WHERE scope=?", (scope(key),))

        self._do(True, write, frees=True)

    # allocations

    def allocation(self, name: str) -> dict[str, Any]:
        def read(c: sqlite3.Connection) -> dict[str, Any]:
            row = c.execute("SELECT body FROM allocations WHERE scope=?", (name,)).fetchone()
            return json.loads(row[0]) if row else {}

        return self._do(False, read) or {}

    def allocations(self) -> dict[str, dict[str, Any]]:
        def read(c: sqlite3.Connection) -> dict[str, dict[str, Any]]:
            rows = c.execute("SELECT scope, body FROM allocations ORDER BY scope").fetchall()
            return {s: json.loads(b) for s, b in rows}

        return self._do(False, read) or {}

    def allocate(
        self, name: str, change: Callable[[dict[str, Any], dict[str, dict[str, Any]]], dict[str, Any]]
    ) -> dict[str, Any]:
        """Change one allocation in a transaction: `change(own, all)` hands back the new value."""

        def write(c: sqlite3.Connection) -> dict[str, Any]:
            everything = {s: json.loads(b) for s, b in c.execute("SELECT scope, body FROM allocations").fetchall()}
            new = change(dict(everything.get(name, {})), everything)
            if new != everything.get(name):
                if new:
                    c.execute("INSERT OR REPLACE INTO allocations VALUES(?,?)", (name, json.dumps(new)))
                else:
                    c.execute("DELETE FROM allocations WHERE scope=?", (name,))
            return new

        return self._do(True, write, frees=True)

    def note(self, name: str, **values: Any) -> dict[str, Any]:
        """Set some values of one allocation; None takes a value out."""

        def change(own: dict[str, Any], _: dict[str, dict[str, Any]]) -> dict[str, Any]:
            return {k: v for k, v in {**own, **values}.items() if v is not None}

        return self.allocate(name, change)

    # events and status

    def append(self, event: Event) -> None:
        def write(c: sqlite3.Connection) -> None:
            row = (event.time, event.namespace, event.object, json.dumps(event.as_json()))
            cursor = c.execute("INSERT INTO events(time, namespace, object, body) VALUES(?,?,?,?)", row)
            if (last := cursor.lastrowid or 0) % 500 == 0:
                c.execute("DELETE FROM events WHERE id <= ?", (last - KEEP_EVENTS,))

        self._do(True, write)

    def events(
        self, after: int = 0, namespace: str | None = None, obj: str | None = None
    ) -> list[tuple[int, float, dict]]:
        def read(c: sqlite3.Connection) -> list[tuple[int, float, dict]]:
            sql = "SELECT id, time, body FROM events WHERE id > ?1 AND (?2 IS NULL OR namespace=?2) AND (?3 IS NULL OR object=?3)"
            rows = c.execute(sql + " ORDER BY id", (after, namespace, obj)).fetchall()
            return [(i, t, json.loads(b)) for i, t, b in rows]

        return self._do(False, read) or []

    def status(self, key: Key) -> dict[str, Any]:
        def read(c: sqlite3.Connection) -> dict[str, Any]:
            row = c.execute("SELECT body FROM status WHERE kind=? AND namespace=? AND name=?", key).fetchone()
            return json.loads(row[0]) if row else {}

        return self._do(False, read) or {}

    def set_status(self, key: Key, body: dict[str, Any]) -> None:
        def write(c: sqlite3.Connection) -> None:
            sql = "SELECT body FROM status WHERE kind=? AND namespace=? AND name=?"
            row = c.execute(sql, key).fetchone()
            if row and json.loads(row[0]) == body:
                return
            version = "(SELECT 1 + max((SELECT ifnull(max(version), 0) FROM objects), (SELECT ifnull(max(version), 0) FROM status)))"
            c.execute(f"INSERT OR REPLACE INTO status VALUES(?,?,?,?,{version})", (*key, json.dumps(body)))

        self._do(True, write)


def _connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """A connection that waits up to 30 s for others, without transactions of its own making; a look makes no file."""
    return sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=30, isolation_level=None)


class _Damaged(Exception):
    """The file is no database, or its pages are damaged."""


def record(folder: Path, obj: Object) -> None:
    """Lay the object into its own folder, so that a lost store can be rebuilt."""
    write_json(folder / OBJECT_FILE, to_json(obj))


def recorded(folder: Path) -> dict[str, Any] | None:
    return read_json(folder / OBJECT_FILE)
