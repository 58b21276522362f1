"""The store: objects (what was asked for), allocations (what must stay the same), events, status (a cache), and a log of
changes with one counter of revisions.

Each change of an object or of its status gets a revision that was never given before. The log tells which object changed, not
how: whoever reads it gets the objects as they are now. What was deleted leaves a tombstone with its last state. The log is
kept short; a reader that is behind its oldest revision must list anew.
A lost or damaged store is rebuilt from the objects that lie in the machines' and disks' own folders.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from typing import Any

from hikube_local.api.objects import INSTANCE, Key, Object
from hikube_local.api.shapes import plain_spec
from hikube_local.errors import HikubeError, UsageError
from hikube_local.events import Event
from hikube_local.files import read_json
from hikube_local.paths import Layout
from hikube_local.records import dataclass
from hikube_local.store.bodies import OBJECT_FILE, from_json, parsed, to_json
from hikube_local.store.file import File, has_log, newest
from hikube_local.store.records import NAMES, GuestCache, Intent, Lease, of

KEEP_EVENTS = 5000
KEEP_CHANGES = 10_000
Row = dict[str, Any]
Rows = dict[str, Row]


class ChangeType(StrEnum):
    """Kubernetes' words for what happened to an object since a revision."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one object since a revision: as it is now, or, when it is gone, as it last was."""

    revision: int
    type: ChangeType
    object: Object


@dataclass(frozen=True, slots=True)
class Basis:
    """What an API's client writes on: the revision that it knows (0: it is not there, None: whatever it is), and who owns
    the object's fields after it (managedFields)."""

    revision: int | None
    managed: list[dict[str, Any]]


class Changed(HikubeError):
    """Somebody else wrote the object since it was read."""


class Compacted(HikubeError):
    """The log does not reach back to the revision that was asked for."""


def scope(key: Key) -> str:
    """The name of an object's allocations."""
    return "/".join(key)


def logins(key: Key) -> str:
    """The name of what is remembered of the ways into a machine (access/ssh): its first disk, and whom our key lets in."""
    return f"ssh/{key.namespace}/{key.name}"


class Store:
    """One state root's store. Transactions are short; it is never held across I/O of other kinds."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._file = File(layout, self._rebuild)

    def _rebuild(self, connection: sqlite3.Connection) -> None:
        for obj in self._in_folders():
            self._write(connection, obj, ChangeType.ADDED)

    def _in_folders(self) -> Iterator[Object]:
        for top in ("machines", "disks"):
            for path in sorted((self.layout.state / top).glob(f"*/*/{OBJECT_FILE}")):
                body = read_json(path)
                with contextlib.suppress(Exception):
                    yield from_json(body)

    # objects

    @staticmethod
    def _read(row: tuple[Any, ...]) -> Object:
        return parsed(row[0], row[1], Key(*row[2:5]))

    def _find(self, connection: sqlite3.Connection, key: Key) -> Object | None:
        row = connection.execute(f"{_SELECT} WHERE kind=? AND namespace=? AND name=?", key).fetchone()
        return self._read(row) if row else None

    @staticmethod
    def _log(connection: sqlite3.Connection, type: ChangeType, key: Key, body: str | None = None) -> int:
        """The revision of this change."""
        sql = "INSERT INTO changes(type, kind, namespace, name, body) VALUES(?,?,?,?,?)"
        revision = connection.execute(sql, (type, *key, body)).lastrowid or 0
        connection.execute("DELETE FROM changes WHERE revision <= ?", (revision - KEEP_CHANGES,))
        return revision

    def _write(self, connection: sqlite3.Connection, obj: Object, type: ChangeType) -> Object:
        revision = self._log(connection, type, obj.key)
        body = json.dumps(to_json(obj))
        connection.execute("INSERT OR REPLACE INTO objects VALUES(?,?,?,?,?)", (*obj.key, body, revision))
        return replace(obj, resource_version=revision)

    def get(self, key: Key) -> Object | None:
        return self._file.read(lambda c: self._find(c, key))

    def objects(self, kind: str | None = None, namespace: str | None = None) -> list[Object]:
        """The objects, sorted by kind (disks first), namespace and name."""

        def read(c: sqlite3.Connection) -> list[Object]:
            return self._list(c, kind, namespace)

        return self._file.read(read) or []

    def _list(self, connection: sqlite3.Connection, kind: str | None, namespace: str | None) -> list[Object]:
        sql = f"{_SELECT} WHERE (?1 IS NULL OR kind=?1) AND (?2 IS NULL OR namespace=?2) ORDER BY kind, namespace, name"
        return [self._read(row) for row in connection.execute(sql, (kind, namespace)).fetchall()]

    def names(self, kind: str, namespace: str | None = None) -> list[str]:
        """Names alone, for completion: nothing is parsed."""

        def read(c: sqlite3.Connection) -> list[str]:
            sql = "SELECT name FROM objects WHERE kind=?1 AND (?2 IS NULL OR namespace=?2) ORDER BY name"
            return [r[0] for r in c.execute(sql, (kind, namespace))]

        return self._file.read(read) or []

    def put(self, wanted: Iterable[Object], basis: Basis | None = None) -> list[Object]:
        """Record what was asked for, all in one transaction; a spec that did not change keeps its generation.

        Changed (HK813) where an object is not at the revision that its writer knows.
        """
        wanted = list(wanted)  # a change may be carried out twice (store/file.py)

        def write(c: sqlite3.Connection) -> list[Object]:
            out = []
            for obj in wanted:
                old = self._find(c, obj.key)
                if basis and basis.revision not in (None, old.resource_version if old else 0):
                    raise Changed("HK813", f"{obj.ref} was changed by somebody else", fix="read it again")
                owned = basis is not None and self._own(c, obj.key, basis.managed)
                if old is None:
                    fresh = replace(obj, uid=str(uuid.uuid4()), created=time.time(), generation=1)
                    out.append(self._write(c, fresh, ChangeType.ADDED))
                    continue
                if old.backend != obj.backend:
                    raise UsageError(
                        "HK807",
                        f"{obj.ref} was made with the backend {old.backend}, not {obj.backend}",
                        fix=f"hikube-local delete {obj.ref} first, or leave --backend out",
                    )
                new = replace(obj, uid=old.uid, created=old.created, generation=old.generation, deletion=None)
                if plain_spec(new.spec) != plain_spec(old.spec) or old.deletion:
                    new = replace(new, generation=old.generation + 1)
                elif (new.labels, new.annotations) == (old.labels, old.annotations) and not owned:
                    out.append(old)
                    continue
                out.append(self._write(c, new, ChangeType.MODIFIED))
            return out

        return self._file.write(write)

    @staticmethod
    def _own(connection: sqlite3.Connection, key: Key, managed: list[dict[str, Any]]) -> bool:
        """Keep who owns the object's fields; whether that is something new."""
        row = connection.execute("SELECT body FROM allocations WHERE scope=?", (scope(key),)).fetchone()
        own = json.loads(row[0]) if row else {}
        if own.get("managed") == managed:
            return False
        body = json.dumps({**own, "managed": managed})
        connection.execute("INSERT OR REPLACE INTO allocations VALUES(?,?)", (scope(key), body))
        return True

    def mark_deleted(self, keys: Iterable[Key]) -> None:
        """Set deletionTimestamp; the reconciler takes it from there."""
        keys = list(keys)  # a change may be carried out twice (store/file.py)

        def write(c: sqlite3.Connection) -> None:
            for key in keys:
                if (old := self._find(c, key)) and not old.deletion:
                    leaving = replace(old, deletion=time.time(), generation=old.generation + 1)
                    self._write(c, leaving, ChangeType.MODIFIED)

        self._file.write(write, frees=True)

    def forget(self, key: Key) -> None:
        """The last step of a deletion: the row, its status, its allocations. One that was put again meanwhile stays."""

        def write(c: sqlite3.Connection) -> None:
            old = self._find(c, key)
            if old and not old.deletion:
                return
            if old:
                self._log(c, ChangeType.DELETED, key, json.dumps(to_json(old)))
            for table in ("objects", "status"):
                c.execute(f"DELETE FROM {table} WHERE kind=? AND namespace=? AND name=?", key)
            for name in (scope(key), *([logins(key)] if key.kind == INSTANCE else [])):
                c.execute("DELETE FROM allocations WHERE scope=?", (name,))

        self._file.write(write, frees=True)

    # revisions

    def revision(self) -> int:
        """The number of the newest change; 0 where there was none."""
        return self._file.read(newest) or 0

    def snapshot(self, kind: str | None = None, namespace: str | None = None) -> tuple[int, list[Object]]:
        """(revision, the objects at that revision), from one look."""

        def read(c: sqlite3.Connection) -> tuple[int, list[Object]]:
            c.execute("BEGIN")  # both from the same state of the file
            try:
                return newest(c), self._list(c, kind, namespace)
            finally:
                c.execute("ROLLBACK")

        return self._file.read(read) or (0, [])

    def changes(self, after: int, kind: str | None = None, namespace: str | None = None) -> tuple[int, list[Change]]:
        """(revision, what became of the objects that changed after the revision `after`, oldest first): an object once,
        or twice when it was deleted and made again. HK812 (Compacted) when the log does not reach back so far.
        """

        def read(c: sqlite3.Connection) -> tuple[int, list[Change]]:
            c.execute("BEGIN")
            try:
                now, oldest = newest(c), _oldest(c)
                if not oldest <= after <= now:
                    what = f"the changes after revision {after} are not kept any more (the oldest is {oldest})"
                    raise Compacted("HK812", what, fix="list the objects again, and watch from there")
                sql = (
                    "SELECT revision, type, kind, namespace, name, body FROM changes WHERE revision > ?1"
                    " AND (?2 IS NULL OR kind=?2) AND (?3 IS NULL OR namespace=?3) ORDER BY revision"
                )
                rows = c.execute(sql, (after, kind, namespace)).fetchall() if now > oldest else []
                return now, self._became(c, rows)
            finally:
                c.execute("ROLLBACK")

        found = self._file.read(read)
        if found is None and after:
            raise Compacted(
                "HK812", f"there are no changes after revision {after}: the store is gone", fix="list the objects again"
            )
        return found or (0, [])

    def _became(self, connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> list[Change]:
        by: dict[Key, list[tuple[Any, ...]]] = {}
        for row in rows:
            by.setdefault(Key(*row[2:5]), []).append(row)
        out = []
        for key, own in by.items():
            gone = [row for row in own if row[1] == ChangeType.DELETED]
            was_there = own[0][1] != ChangeType.ADDED
            if gone and was_there:
                last = replace(from_json(json.loads(gone[0][5])), resource_version=gone[0][0])
                out.append(Change(gone[0][0], ChangeType.DELETED, last))
            if now := self._find(connection, key):
                kind = ChangeType.MODIFIED if was_there and not gone else ChangeType.ADDED
                out.append(Change(own[-1][0], kind, now))
        return sorted(out, key=lambda change: change.revision)

    # allocations

    def allocation(self, name: str) -> dict[str, Any]:
        def read(c: sqlite3.Connection) -> dict[str, Any]:
            row = c.execute("SELECT body FROM allocations WHERE scope=?", (name,)).fetchone()
            return json.loads(row[0]) if row else {}

        return self._file.read(read) or {}

    def allocations(self) -> Rows:
        return self._file.read(_allocations) or {}

    def allocate(self, name: str, change: Callable[[Row, Callable[[], Rows]], Row]) -> Row:
        """Change one allocation in a transaction: `change(own, all)` hands back the new value. All of them are read when they
        are asked for: a machine that needs nothing new costs the same beside a thousand others."""

        def write(c: sqlite3.Connection) -> Row:
            found = c.execute("SELECT body FROM allocations WHERE scope=?", (name,)).fetchone()
            own = json.loads(found[0]) if found else {}
            new = change(dict(own), lambda: _allocations(c))
            if new != own:
                if new:
                    c.execute("INSERT OR REPLACE INTO allocations VALUES(?,?)", (name, json.dumps(new)))
                else:
                    c.execute("DELETE FROM allocations WHERE scope=?", (name,))
            return new

        return self._file.write(write, frees=True)

    def note(self, name: str, **values: Any) -> dict[str, Any]:
        """Set some values of one allocation; None takes a value out."""

        def change(own: Row, _: object) -> Row:
            return {k: v for k, v in {**own, **values}.items() if v is not None}

        return self.allocate(name, change)

    # records: what is kept of one object

    def intent(self, key: Key) -> Intent:
        return of(Intent, self.allocation(scope(key)))

    def lease(self, key: Key) -> Lease:
        return of(Lease, self.allocation(scope(key)))

    def guest(self, key: Key) -> GuestCache:
        return of(GuestCache, self.allocation(scope(key)))

    def records(self, key: Key) -> tuple[Intent, Lease, GuestCache]:
        """All three, from one look."""
        row = self.allocation(scope(key))
        return of(Intent, row), of(Lease, row), of(GuestCache, row)

    def keep(self, key: Key, **values: Any) -> None:
        """Set fields of an object's records by their names; None sets one back."""
        if strange := values.keys() - NAMES:
            raise TypeError(f"no record has {', '.join(sorted(strange))}")
        self.note(scope(key), **values)

    # events and status

    def append(self, event: Event) -> None:
        def write(c: sqlite3.Connection) -> None:
            row = (event.time, event.namespace, event.object, json.dumps(event.as_json()))
            cursor = c.execute("INSERT INTO events(time, namespace, object, body) VALUES(?,?,?,?)", row)
            if (last := cursor.lastrowid or 0) % 500 == 0:
                c.execute("DELETE FROM events WHERE id <= ?", (last - KEEP_EVENTS,))

        self._file.write(write)

    def events(
        self, after: int = 0, namespace: str | None = None, obj: str | None = None
    ) -> list[tuple[int, float, dict[str, Any]]]:
        def read(c: sqlite3.Connection) -> list[tuple[int, float, dict[str, Any]]]:
            sql = "SELECT id, time, body FROM events WHERE id > ?1 AND (?2 IS NULL OR namespace=?2) AND (?3 IS NULL OR object=?3)"
            rows = c.execute(sql + " ORDER BY id", (after, namespace, obj)).fetchall()
            return [(i, t, json.loads(b)) for i, t, b in rows]

        return self._file.read(read) or []

    def status(self, key: Key) -> dict[str, Any]:
        def read(c: sqlite3.Connection) -> dict[str, Any]:
            row = c.execute("SELECT body FROM status WHERE kind=? AND namespace=? AND name=?", key).fetchone()
            return json.loads(row[0]) if row else {}

        return self._file.read(read) or {}

    def change_status(self, key: Key, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Keep what was last seen of an object, made of what is kept at that moment; what is the same gets no new revision,
        and an object that is gone no status."""

        def write(c: sqlite3.Connection) -> None:
            sql = "SELECT body FROM status WHERE kind=? AND namespace=? AND name=?"
            row = c.execute(sql, key).fetchone()
            kept = json.loads(row[0]) if row else {}
            body = change(kept)
            if (row and kept == body) or self._find(c, key) is None:
                return
            revision = self._log(c, ChangeType.MODIFIED, key)
            c.execute("INSERT OR REPLACE INTO status VALUES(?,?,?,?,?)", (*key, json.dumps(body), revision))

        self._file.write(write)


# An object's version rises with its status, too.
_SELECT = (
    "SELECT body, max(version, ifnull((SELECT s.version FROM status s WHERE s.kind = objects.kind AND"
    " s.namespace = objects.namespace AND s.name = objects.name), 0)), kind, namespace, name FROM objects"
)


def _allocations(connection: sqlite3.Connection) -> Rows:
    rows = connection.execute("SELECT scope, body FROM allocations ORDER BY scope").fetchall()
    return {scope: json.loads(body) for scope, body in rows}


def _oldest(connection: sqlite3.Connection) -> int:
    """The revision from which the log is whole."""
    first = connection.execute("SELECT min(revision) FROM changes").fetchone()[0] if has_log(connection) else None
    return newest(connection) if first is None else first - 1
