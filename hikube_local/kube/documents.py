"""Secrets, configmaps and namespaces of the endpoint's clients: kept as they are, for they mean nothing here.

Helm keeps its releases in them. They lie in a file of their own, readable by its owner alone; nobody but `serve` writes it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hikube_local.errors import HikubeError
from hikube_local.files import make_folder
from hikube_local.kube.kinds import Resource
from hikube_local.kube.sources import Form
from hikube_local.kube.status import Refused
from hikube_local.store.db import ChangeType, Compacted
from hikube_local.text import timestamp

Value = dict[str, Any]
KEEP = 2000  # changes
MOST = 5000  # objects: a client that has lost its way fills no disk
LARGEST = 1 << 20  # bytes, as Kubernetes has it for a Secret
_TABLES = (
    "CREATE TABLE IF NOT EXISTS documents(kind TEXT, namespace TEXT, name TEXT, body TEXT NOT NULL,"
    " PRIMARY KEY(kind, namespace, name))",
    "CREATE TABLE IF NOT EXISTS changes(revision INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, kind TEXT,"
    " namespace TEXT, body TEXT NOT NULL)",
)


class Documents:
    """The file. Threads take turns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._turn:
            try:
                if self._connection is None:
                    make_folder(self.path.parent, 0o700)
                    self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                    self.path.chmod(0o600)
                    self._connection.execute("PRAGMA synchronous=FULL")
                    for statement in _TABLES:
                        self._connection.execute(statement)
                    if self._newest(self._connection) == 0:  # beyond the numbers of a file that was lost
                        sql = "INSERT INTO sqlite_sequence(name, seq) VALUES('changes', ?)"
                        self._connection.execute(sql, (int(time.time() * 1000),))
                yield self._connection
            except sqlite3.DatabaseError as e:
                raise HikubeError(
                    "HK608", f"{self.path} cannot be used: {e}", fix="end serve, move that file away, begin again"
                ) from e

    def close(self) -> None:
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @staticmethod
    def _newest(connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name='changes'").fetchone()
        return int(row[0]) if row else 0

    def snapshot(self, kind: str, namespace: str | None) -> tuple[int, list[Value]]:
        sql = "SELECT body FROM documents WHERE kind=?1 AND (?2 IS NULL OR namespace=?2) ORDER BY namespace, name"
        with self._open() as c:
            return self._newest(c), [json.loads(row[0]) for row in c.execute(sql, (kind, namespace)).fetchall()]

    def get(self, kind: str, namespace: str, name: str) -> Value | None:
        sql = "SELECT body FROM documents WHERE kind=? AND namespace=? AND name=?"
        with self._open() as c:
            row = c.execute(sql, (kind, namespace, name)).fetchone()
            return json.loads(row[0]) if row else None

    def changes(self, kind: str, after: int, namespace: str | None) -> tuple[int, list[tuple[ChangeType, Value]]]:
        """(revision, each change after a revision, oldest first)."""
        with self._open() as c:
            now = self._newest(c)
            first = c.execute("SELECT min(revision) FROM changes").fetchone()[0]
            oldest = now if first is None else first - 1
            if not oldest <= after <= now:
                raise Compacted(
                    "HK812", f"the changes after revision {after} are not kept any more (the oldest is {oldest})"
                )
            sql = "SELECT type, body FROM changes WHERE revision > ?1 AND kind=?2 AND (?3 IS NULL OR namespace=?3) ORDER BY revision"
            rows = c.execute(sql, (after, kind, namespace)).fetchall()
            return now, [(ChangeType(type), json.loads(body)) for type, body in rows]

    def put(self, resource: Resource, value: Value, seen: str | None) -> Value:
        """Keep an object. `seen`: the revision that its writer knows (empty: it is not there, None: whatever it is)."""
        meta = value["metadata"]
        key = (resource.kind, meta.get("namespace", ""), meta["name"])
        if len(json.dumps(value)) > 2 * LARGEST:
            raise Refused(422, f'{resource.kind} "{meta["name"]}" is larger than {LARGEST} bytes')
        with self._open() as c, _transaction(c):
            row = c.execute("SELECT body FROM documents WHERE kind=? AND namespace=? AND name=?", key).fetchone()
            old = json.loads(row[0]) if row else None
            have = old["metadata"]["resourceVersion"] if old else ""
            if seen is not None and seen != have:
                raise Stale(resource, meta["name"], bool(old))
            if old is None and c.execute("SELECT count(*) FROM documents").fetchone()[0] >= MOST:
                raise Refused(403, f"{MOST} objects are kept: no more are taken")
            kept = old["metadata"] if old else {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(time.time())}
            meta = {**meta, "uid": kept["uid"], "creationTimestamp": kept["creationTimestamp"]}
            value = {**value, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}
            if old is not None and _rest(old) == _rest(value):
                return dict(old)  # nothing changed: no revision
            type = ChangeType.ADDED if old is None else ChangeType.MODIFIED
            value = self._log(c, type, resource.kind, value)
            c.execute("INSERT OR REPLACE INTO documents VALUES(?,?,?,?)", (*key, json.dumps(value)))
            return value

    def delete(self, resource: Resource, namespace: str, name: str) -> Value | None:
        """The object as it last was; None where there was none."""
        key = (resource.kind, namespace, name)
        with self._open() as c, _transaction(c):
            row = c.execute("SELECT body FROM documents WHERE kind=? AND namespace=? AND name=?", key).fetchone()
            if row is None:
                return None
            c.execute("DELETE FROM documents WHERE kind=? AND namespace=? AND name=?", key)
            return self._log(c, ChangeType.DELETED, resource.kind, json.loads(row[0]))

    def _log(self, c: sqlite3.Connection, type: ChangeType, kind: str, value: Value) -> Value:
        """The object with the revision of this change."""
        namespace = value["metadata"].get("namespace", "")
        sql = "INSERT INTO changes(type, kind, namespace, body) VALUES(?,?,?,'')"
        revision = c.execute(sql, (type, kind, namespace)).lastrowid or 0
        value = {**value, "metadata": {**value["metadata"], "resourceVersion": str(revision)}}
        c.execute("UPDATE changes SET body=? WHERE revision=?", (json.dumps(value), revision))
        c.execute("DELETE FROM changes WHERE revision <= ?", (revision - KEEP,))
        return value


class Stale(Refused):
    """Somebody else's write came before this one."""

    def __init__(self, resource: Resource, name: str, there: bool) -> None:
        words = "the object has been modified; please apply your changes to the latest version and try again"
        super().__init__(
            409,
            f'Operation cannot be fulfilled on {resource.full} "{name}": {words}'
            if there
            else f'{resource.full} "{name}" not found',
        )


def _rest(value: Value) -> Value:
    """Of what a change is one."""
    meta = {k: v for k, v in value["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    return {**value, "metadata": meta}


@contextlib.contextmanager
def _transaction(c: sqlite3.Connection) -> Iterator[None]:
    c.execute("BEGIN IMMEDIATE")
    try:
        yield
        c.execute("COMMIT")
    except BaseException:
        if c.in_transaction:
            c.execute("ROLLBACK")
        raise


class Kept:
    """The source of one kind of documents."""

    def __init__(self, documents: Documents, resource: Resource) -> None:
        self.documents, self.resource = documents, resource

    def snapshot(self, namespace: str | None) -> tuple[int, list[Form]]:
        revision, found = self.documents.snapshot(self.resource.kind, namespace)
        return revision, [Form(v) for v in found]

    def changes(self, after: int, namespace: str | None) -> tuple[int, list[tuple[ChangeType, Form]]]:
        now, found = self.documents.changes(self.resource.kind, after, namespace)
        return now, [(type, Form(v)) for type, v in found]

    def one(self, namespace: str, name: str) -> Form | None:
        value = self.documents.get(self.resource.kind, namespace, name)
        return Form(value) if value is not None else None
