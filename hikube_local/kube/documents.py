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
from hikube_local.kube.kinds import SECRETS, Resource
from hikube_local.kube.sources import Form
from hikube_local.kube.status import Refused
from hikube_local.kube.writes import Exists, Modified
from hikube_local.store.db import ChangeType, Compacted
from hikube_local.text import timestamp

Value = dict[str, Any]
KEEP = 2000  # changes
MOST = 256 << 20  # bytes of all objects: a client that has lost its way fills no disk
LARGEST = 2 << 20  # bytes of one as JSON; Kubernetes takes 1 MiB of data, which base64 makes larger
LOGGED = 64 << 20  # bytes of changes that are kept
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
                    self._connection = self._connected()
                yield self._connection
            except sqlite3.OperationalError as e:  # locked, no space: it may pass
                raise HikubeError(
                    "HK604", f"{self.path} cannot be written: {e}", fix="free space there, try again"
                ) from e
            except sqlite3.DatabaseError as e:
                fix = "stop serve, move that file away (it has the Helm releases), and start serve again"
                raise HikubeError("HK608", f"{self.path} is damaged: {e}", fix=fix) from e

    def _connected(self) -> sqlite3.Connection:
        make_folder(self.path.parent, 0o700)
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self.path.chmod(0o600)
            for statement in ("PRAGMA synchronous=FULL", "PRAGMA secure_delete=ON", *_TABLES):
                connection.execute(statement)
            if self._newest(connection) == 0:  # beyond the numbers of a file that was lost
                sql = "INSERT INTO sqlite_sequence(name, seq) VALUES('changes', ?)"
                connection.execute(sql, (int(time.time() * 1000),))
        except BaseException:
            connection.close()
            raise
        return connection

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
        if len(json.dumps(value)) > LARGEST:
            raise Refused(422, f'{resource.kind} "{meta["name"]}" is larger than {LARGEST} bytes')
        with self._open() as c, _transaction(c):
            row = c.execute("SELECT body FROM documents WHERE kind=? AND namespace=? AND name=?", key).fetchone()
            old = json.loads(row[0]) if row else None
            have = old["metadata"]["resourceVersion"] if old else ""
            if seen is not None and seen != have:
                raise Modified(resource, meta["name"]) if seen else Exists(resource, meta["name"])
            if old is not None and old.get("immutable") and _content(old) != _content(value):
                raise Refused(
                    422, f'{resource.full} "{meta["name"]}" is immutable', details=resource.details(meta["name"])
                )
            size = c.execute("SELECT ifnull(sum(length(body)), 0) FROM documents").fetchone()[0]
            if size + len(json.dumps(value)) > MOST:
                raise Refused(403, f"the limit of {MOST >> 20} MiB for stored objects is reached")
            kept = old["metadata"] if old else {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(time.time())}
            meta = {**meta, "uid": kept["uid"], "creationTimestamp": kept["creationTimestamp"]}
            value = {**value, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}
            if old is not None and _rest(old) == _rest(value):
                return dict(old)  # nothing changed: no revision
            type = ChangeType.ADDED if old is None else ChangeType.MODIFIED
            value = self._log(c, type, resource.kind, value)
            c.execute("INSERT OR REPLACE INTO documents VALUES(?,?,?,?)", (*key, json.dumps(value)))
            return value

    def delete(self, resource: Resource, namespace: str, name: str, seen: str | None = None) -> Value | None:
        """The object as it last was; None where there was none. `seen`: the revision that is to be deleted."""
        key = (resource.kind, namespace, name)
        with self._open() as c, _transaction(c):
            row = c.execute("SELECT body FROM documents WHERE kind=? AND namespace=? AND name=?", key).fetchone()
            if row is None:
                return None
            old = json.loads(row[0])
            if seen not in (None, old["metadata"]["resourceVersion"]):
                raise Modified(resource, name)
            c.execute("DELETE FROM documents WHERE kind=? AND namespace=? AND name=?", key)
            if resource is not SECRETS:
                return self._log(c, ChangeType.DELETED, resource.kind, old)
            # Whoever watches learns that it was there and is gone; what was in it goes with it, also out of the log.
            paths = ", ".join(f"'$.{name}'" for name in _DATA)
            sql = f"UPDATE changes SET body=json_remove(body, {paths}) WHERE kind=? AND namespace=? AND json_extract(body, '$.metadata.name')=?"
            c.execute(sql, key)
            gone = {k: v for k, v in old.items() if k not in _DATA}
            return self._log(c, ChangeType.DELETED, resource.kind, gone)

    def _log(self, c: sqlite3.Connection, type: ChangeType, kind: str, value: Value) -> Value:
        """The object with the revision of this change."""
        namespace = value["metadata"].get("namespace", "")
        sql = "INSERT INTO changes(type, kind, namespace, body) VALUES(?,?,?,'')"
        revision = c.execute(sql, (type, kind, namespace)).lastrowid or 0
        value = {**value, "metadata": {**value["metadata"], "resourceVersion": str(revision)}}
        c.execute("UPDATE changes SET body=? WHERE revision=?", (json.dumps(value), revision))
        c.execute("DELETE FROM changes WHERE revision <= ?", (revision - KEEP,))
        while c.execute("SELECT sum(length(body)) FROM changes").fetchone()[0] > LOGGED:
            c.execute("DELETE FROM changes WHERE revision = (SELECT min(revision) FROM changes)")
        return value


_DATA = ("data", "stringData", "binaryData")


def _content(value: Value) -> Value:
    return {k: value.get(k) for k in (*_DATA, "immutable")}


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
