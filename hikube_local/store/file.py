"""The store's file: SQLite, opened once by a process, migrated in place, set aside and made anew when it is damaged.

Reading needs no room on the disk, and a little is laid aside, so that on a full one machines can still be stopped and deleted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from hikube_local.errors import HikubeError
from hikube_local.files import beside, sweep_partials
from hikube_local.locks import locked
from hikube_local.paths import Layout
from hikube_local.records import dataclass

Found = TypeVar("Found")
SCHEMA = 2
ATTEMPTS = 5  # of several commands that find it damaged one rebuilds it, the others come again
_OBJECT = "kind TEXT, namespace TEXT, name TEXT"
_TABLES = (
    f"CREATE TABLE IF NOT EXISTS objects({_OBJECT}, body TEXT NOT NULL, version INTEGER NOT NULL,"
    " PRIMARY KEY(kind, namespace, name))",
    "CREATE TABLE IF NOT EXISTS allocations(scope TEXT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS events(id INTEGER PRIMARY KEY, time REAL, namespace TEXT, object TEXT, body TEXT NOT NULL)",
    f"CREATE TABLE IF NOT EXISTS status({_OBJECT}, body TEXT NOT NULL, version INTEGER NOT NULL,"
    " PRIMARY KEY(kind, namespace, name))",
)
# Schema 2. AUTOINCREMENT gives no number twice, also when the row that had it is gone (sqlite.org/autoinc.html).
_CHANGES = f"CREATE TABLE IF NOT EXISTS changes(revision INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, {_OBJECT}, body TEXT)"
SPARE = 1 << 20  # bytes
_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite keeps with a file, by the file's mode


@dataclass(frozen=True, slots=True)
class _Kept:
    """A connection that is open, the inode that it leads to, and whether it may write."""

    connection: sqlite3.Connection
    file: int
    writes: bool


@dataclass(slots=True, eq=False)
class _Wish:
    """A change that somebody waits for, and what came of it."""

    action: Callable[[sqlite3.Connection], Any]
    frees: bool
    over: bool = False
    found: Any = None
    error: Exception | None = None

    def end(self, found: Any = None, error: Exception | None = None) -> None:
        self.found, self.error, self.over = found, error, True


class File:
    """One state root's store file. `rebuild` puts into a new one what the folders still tell.

    Threads take turns. What several of them want to change meanwhile goes into one transaction: the disk is waited for once.
    """

    def __init__(self, layout: Layout, rebuild: Callable[[sqlite3.Connection], None]) -> None:
        self.layout = layout
        self.path = layout.store
        self._rebuild = rebuild
        self._reserve = layout.state / "spare"
        self._turn = threading.Lock()
        self._wishes: deque[_Wish] = deque()
        self._kept: _Kept | None = None

    @contextlib.contextmanager
    def _open(self, write: bool) -> Iterator[sqlite3.Connection]:
        """A transaction, by whoever has the turn: one connection serves all threads, and holds nothing between two of them."""
        file: int | None = None  # not looked at yet
        known = False
        try:
            with self._dropped_on_error():
                if write and not self._file():
                    self._create()
                file = self._file()
                known = self._kept is not None and self._kept.file == file and self._kept.writes >= write
                connection = self._kept.connection if self._kept and known else self._connect(file, write)
                if write or not known:
                    self._know(connection, write)
                with _transaction(connection) if write else contextlib.nullcontext():
                    yield connection
        except sqlite3.DatabaseError as e:
            aside = file is not None and (not file or file != self._file())
            if known and not write:
                raise _Damaged from e  # a look begins anew: a writer was killed, and SQLite has its journal to undo
            if aside or not isinstance(e, sqlite3.OperationalError):
                raise _Damaged from e  # or it was set aside this moment
            if "disk is full" in str(e) or "disk I/O" in str(e):
                raise HikubeError(
                    "HK604", f"the store cannot be written: {e}", fix=f"free space in {self.layout.state}"
                ) from e
            if "readonly" in str(e) or "unable to open" in str(e):
                raise HikubeError("HK608", f"the store cannot be opened: {e}", why=str(self.path)) from e
            raise

    def _connect(self, file: int, write: bool) -> sqlite3.Connection:
        """To the file that has the name now, in place of an earlier one; one for writing serves looks too."""
        self.close()
        connection = connect(self.path) if write else _reader(self.path)
        self._kept = _Kept(connection, file, write)
        if write:
            # A rollback journal: a look at it needs no room on the disk, which a full one has not. It is kept,
            # so that a small change finds its room too.
            with contextlib.suppress(sqlite3.OperationalError):  # an older build has it open in its own mode
                connection.execute("PRAGMA journal_mode=PERSIST")
            connection.execute("PRAGMA synchronous=FULL")
        return connection

    @contextlib.contextmanager
    def _dropped_on_error(self) -> Iterator[None]:
        """A connection may lead to a file that was set aside, or meet what another one heals."""
        try:
            yield
        except (sqlite3.Error, _Damaged):
            self.close()
            raise

    def close(self) -> None:
        if self._kept is not None:
            self._kept.connection.close()
            self._kept = None

    def _file(self) -> int:
        """What tells the file from another one of its name; 0 when there is none."""
        try:
            return os.stat(self.path).st_ino
        except FileNotFoundError:
            return 0

    def _know(self, connection: sqlite3.Connection, write: bool) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            raise _Damaged  # an empty file
        if version < SCHEMA and write:
            _migrate(connection)
        if version > SCHEMA:
            raise HikubeError(
                "HK608",
                f"{self.path} was written by a newer hikube-local (schema {version}, this one knows {SCHEMA})",
                fix="use the newer version, or another HIKUBE_LOCAL_HOME",
            )

    def _set_aside(self) -> None:
        """Move a damaged file away, so that the next opening rebuilds it; of two who found it so, one does."""
        with locked(self.layout.locks / "store-file"):
            if not self.path.exists():
                return
            try:
                with contextlib.closing(connect(self.path)) as connection:
                    whole = connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
                    if whole and connection.execute("PRAGMA user_version").fetchone()[0]:
                        return
            except sqlite3.OperationalError:
                return  # somebody is at it: that says nothing about the file
            except sqlite3.DatabaseError:
                pass
            aside = f"{self.path}.damaged-{time.time_ns()}"
            for suffix in ("", *_BESIDE):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")

    def _create(self) -> None:
        """A new store with the objects of the folders; it is whole when it gets its name, so that nobody opens half."""
        self.layout.make()
        with locked(self.layout.locks / "store-file"):
            if self.path.exists():
                return
            sweep_partials(self.path.parent)
            with beside(self.path) as path, contextlib.closing(connect(path, "rwc")) as connection:
                connection.execute("BEGIN IMMEDIATE")
                self._fill(connection)
                connection.commit()
                for suffix in _BESIDE:  # of a store that was taken away: it is not this one's
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(f"{self.path}{suffix}")

    def _lay_aside(self) -> None:
        """Keep a little room, so that on a full disk it can still be written down what is stopped and deleted."""
        with contextlib.suppress(OSError):
            if self._reserve.exists() or shutil.disk_usage(self.layout.state).free < 8 * SPARE:
                return
            fd = os.open(self._reserve, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(fd, 0, SPARE)
                else:
                    os.write(fd, bytes(SPARE))
            finally:
                os.close(fd)

    def known(self) -> bool:
        """Whether anything was ever made here."""
        return any((self.layout.state / top).exists() for top in ("machines", "disks"))

    def write(self, action: Callable[[sqlite3.Connection], Found], frees: bool = False) -> Found:
        """Carry out `action` in a transaction. What `frees` room may take what was laid aside."""
        wish = _Wish(action, frees)
        self._wishes.append(wish)
        with self._turn:
            if not wish.over:  # or whoever had the turn before has carried it out, too
                self._carry_out(self._waiting(wish))
        if wish.error:
            raise wish.error
        found: Found = wish.found
        return found

    def _waiting(self, own: _Wish) -> list[_Wish]:
        """All that wait now; `own` also where it was taken before by one who was ended over it."""
        out: list[_Wish] = []
        with contextlib.suppress(IndexError):
            while True:
                out.append(self._wishes.popleft())
        return out if own in out else [*out, own]

    def _carry_out(self, wishes: list[_Wish]) -> None:
        """All in one transaction; where that fails, each in its own, so that it fails for whom it must."""
        if len(wishes) > 1 and self._at_once(wishes):
            return
        for wish in wishes:
            try:
                wish.end(self._alone(wish))
            except Exception as e:
                wish.end(error=e)

    def _at_once(self, wishes: list[_Wish]) -> bool:
        ends: list[tuple[Any, Exception | None]] = []
        try:
            with self._open(True) as connection:
                for wish in wishes:
                    connection.execute("SAVEPOINT wish")
                    try:
                        ends.append((wish.action(connection), None))
                    except sqlite3.Error:
                        raise
                    except Exception as e:
                        connection.execute("ROLLBACK TO wish")
                        ends.append((None, e))
                    connection.execute("RELEASE wish")
        except (sqlite3.Error, HikubeError, _Damaged):
            return False
        for wish, end in zip(wishes, ends, strict=True):
            wish.end(*end)
        self._lay_aside()
        return True

    def _alone(self, wish: _Wish) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                with self._open(True) as connection:
                    found = wish.action(connection)
                self._lay_aside()
                return found
            except _Damaged:
                self._set_aside()
            except HikubeError as e:
                if not wish.frees or e.code != "HK604" or attempt:
                    raise
                self._reserve.unlink(missing_ok=True)  # or another command has just done so
        raise HikubeError("HK608", f"the store {self.path} is damaged and cannot be rebuilt")

    def read(self, action: Callable[[sqlite3.Connection], Found]) -> Found | None:
        """Look, and write nothing: None where nothing was ever made, the folders' own objects where the file is lost."""
        for _ in range(ATTEMPTS):
            if not self._file():
                break
            try:
                with self._turn, self._open(False) as connection:
                    return action(connection)
            except _Damaged:
                pass  # or another command makes it anew at this moment
        if not self.known():
            return None
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            self._fill(connection)
            return action(connection)

    def _fill(self, connection: sqlite3.Connection) -> None:
        """The tables, and what the folders tell.

        Its revisions begin at the milliseconds of now: whoever watched a store that was lost or purged has seen its numbers,
        and these are beyond them.
        """
        for statement in (*_TABLES, _CHANGES):
            connection.execute(statement)
        _start_at(connection, int(time.time() * 1000))
        self._rebuild(connection)
        connection.execute(f"PRAGMA user_version={SCHEMA}")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Ended by whatever ends the block, also by an interrupt while it waits for its turn."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.commit()
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise


def _reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, but for a journal of a writer that was killed, which SQLite must bring to its end."""
    connection = connect(path, "ro")
    try:
        connection.execute("PRAGMA user_version").fetchone()
        return connection
    except sqlite3.OperationalError:
        connection.close()
        return connect(path)


def has_log(connection: sqlite3.Connection) -> bool:
    """Whether this file has the log of changes; one that an earlier version wrote gets it at the first change."""
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name='changes'").fetchone() is not None


def newest(connection: sqlite3.Connection) -> int:
    """The highest revision that was given."""
    if has_log(connection):
        sql = "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name='changes'), 0)"
    else:
        sql = "SELECT max(ifnull((SELECT max(version) FROM objects), 0), ifnull((SELECT max(version) FROM status), 0))"
    return int(connection.execute(sql).fetchone()[0])


def _start_at(connection: sqlite3.Connection, revision: int) -> None:
    """The next change gets the number after `revision`."""
    connection.execute("INSERT INTO sqlite_sequence(name, seq) VALUES('changes', ?)", (revision,))


def _migrate(connection: sqlite3.Connection) -> None:
    """Schema 1 to 2, in one transaction: a kill leaves the one or the other. Numbers go on from the highest one given."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] < SCHEMA:  # nobody else did it meanwhile
            before = newest(connection)
            connection.execute(_CHANGES)
            _start_at(connection, before)
            connection.execute(f"PRAGMA user_version={SCHEMA}")
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """A connection that waits up to 30 s for others, without transactions of its own making; a look makes no file."""
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=30, isolation_level=None, check_same_thread=False
    )


class _Damaged(Exception):
    """The file is no database, or its pages are damaged."""
