"""Runs of `test` in a tenant: what a run makes is written down before it is asked for, and goes with it, however it ends.

Three see to it: the run itself; a process that outlives it, and takes its objects away when it is killed; and whoever sweeps,
on any machine, since each object says whose it is and until when.
"""

from __future__ import annotations

import contextlib
import getpass
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from hikube_local import files
from hikube_local.api.objects import DISK, INSTANCE, Key, Object
from hikube_local.engine.elsewhere import Elsewhere
from hikube_local.errors import ExitCode, HikubeError
from hikube_local.events import Emit
from hikube_local.lab.copies import RUN, Run, told, until
from hikube_local.locks import holder, locked
from hikube_local.osdep import euid
from hikube_local.paths import Layout
from hikube_local.plan.steps import RunOptions
from hikube_local.run import program

AGAIN, LONGEST = 2.0, 300.0  # seconds after which is looked once more: what was asked for last may come late
MARGIN = 300.0  # seconds by which clocks may differ
_KEY = ".key"


def new(seconds: float) -> Run:
    """One that anybody may clear away after so many seconds."""
    try:
        whose = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in some containers
        whose = f"uid-{euid()}"
    whose = re.sub(r"[^a-z0-9]+", "-", f"{whose}-{socket.gethostname()}".lower())
    return Run(secrets.token_hex(3), whose[:60].strip("-") or "nobody", time.time() + seconds)


@contextlib.contextmanager
def held(session: Elsewhere, run: Run, keys: Iterable[Key], emit: Emit, keep: bool = False) -> Iterator[None]:
    """While the block runs, its objects are looked after, and taken away at its end; HK826 where some stay.

    `keep`: all of them stay, until somebody sweeps them.
    """
    path = _journal(session.layout, run.id)
    files.make_folder(path.parent)
    names = [key.ref for key in keys]
    about = {"run": run.id, "owner": run.owner, "expires": run.expires, "objects": names}
    with locked(_lock(path)):
        files.write_json(path, {**about, "kept": keep})
        watching = _watch(session, run, path)
        try:
            yield
        finally:
            try:
                if not keep:
                    _require_gone_of(session, run.id, names, emit)
                    _forget(path)
            finally:
                assert watching.stdin is not None
                watching.stdin.close()


def key(session: Elsewhere, run: Run) -> Path:
    """Where the key pair stands that gets into the machines of this run alone; it goes with the run's journal."""
    return _journal(session.layout, run.id).with_suffix(_KEY)


def _require_gone_of(session: Elsewhere, run: str, names: list[str], emit: Emit) -> None:
    try:
        left = removed(session, run, emit)
    except HikubeError as e:  # nobody knows: it is told as if all were there
        what = f"perhaps still in the tenant: {', '.join(names)}"
        raise HikubeError("HK826", what, f"{e.what}: {e.why}" if e.why else e.what, _SWEEP, ExitCode.LEFT) from None
    require_gone(left)


_SWEEP = "hikube-local sweep tries again, from any machine"


def require_gone(left: Iterable[Object]) -> None:
    """HK826 where something of a run is still there."""
    if there := "; ".join(map(told, left)):
        raise HikubeError("HK826", f"still in the tenant: {there}", fix=_SWEEP, exit_code=ExitCode.LEFT)


def outlive(session: Elsewhere, run: str, emit: Emit) -> None:
    """Once the run has let go of its journal: what it left, tried again until its time is over. The labels there have the word,
    not the journal, which may be gone."""
    path = _journal(session.layout, run)
    with locked(_lock(path)):
        known = files.read_json(path) or {}
    if known.get("kept"):
        return
    end, wait, clean = max(time.time() + LONGEST, float(known.get("expires") or 0)), AGAIN, 0
    while clean < 2 and time.time() < end:
        try:
            clean = 0 if removed(session, run, emit) else clean + 1
        except Exception:  # not reached, not allowed now: the next try may be
            clean = 0
        if clean < 2:
            time.sleep(AGAIN if clean else wait)
            wait = min(LONGEST, wait * 2)
    if clean == 2:
        _forget(path)


def sweep(session: Elsewhere, emit: Emit, only: str = "", mine: bool = False) -> tuple[list[Object], list[Object]]:
    """(what was to go, what of it is still there): those of killed runs of this machine and, unless `mine`, objects past
    their time; or one run's. A run that goes on here is left alone, whatever the clocks say."""
    journals = {p.stem: p for p in _folder(session.layout).glob("*.json")}
    for pattern in (f"*{_KEY}*", f"{files.PARTIAL}*"):  # of a run that was killed before it asked for anything
        for path in _folder(session.layout).glob(pattern):
            with contextlib.suppress(OSError):  # younger ones may be of a run that just begins
                if path.name.partition(".")[0] not in journals and path.stat().st_mtime < time.time() - 3600:
                    path.unlink()
    alive = {name: who for name, p in journals.items() if (who := holder(_lock(p))) is not None}
    there = of_runs(session)
    if only:
        _journal(session.layout, only)
        if only in alive:
            raise HikubeError("HK609", f"the run {only} goes on: {alive[only]}", fix="end it first")
        doomed = {only}
    else:
        kept = {n for n, p in journals.items() if (files.read_json(p) or {}).get("kept")}
        for name in kept - alive.keys() - {o.labels[RUN] for o in there}:  # others took its objects away
            _forget(journals[name])
        doomed = journals.keys() - alive.keys() - kept
        if not mine:
            now = time.time() - MARGIN
            doomed |= {o.labels[RUN] for o in there if (end := until(o)) is not None and end < now} - alive.keys()
    gone = [o for o in there if o.labels[RUN] in doomed]
    left: list[Object] = []
    for run in sorted(doomed):
        left += (rest := removed(session, run, emit))
        if not rest and run in journals:
            _forget(journals[run])
    return gone, left


def of_runs(session: Elsewhere, run: str = "") -> list[Object]:
    """The objects of runs, or of one, as they are there now; what has a run's label and was not made by one is none."""
    session.api.forget()
    found = [o for o in session.store.objects() if (o.labels.get(RUN) == run if run else RUN in o.labels)]
    return [o for o in found if session.made(o)]


def removed(session: Elsewhere, run: str, emit: Emit) -> list[Object]:
    """Take away what a run has made, machines first, and wait until it is gone; what is still there then."""
    for kind in (INSTANCE, DISK):
        keys = [o.key for o in of_runs(session, run) if o.kind == kind]
        for key in keys:  # each by itself: one that cannot go keeps no other
            with contextlib.suppress(HikubeError):
                session.store.mark_deleted([key])
        if keys:
            session.reconciler(emit, RunOptions()).reconcile(keys)
    return of_runs(session, run)


def _folder(layout: Layout) -> Path:
    return layout.state / "runs"


def _journal(layout: Layout, run: str) -> Path:
    if not re.fullmatch(r"[0-9a-f]{1,16}", run):
        raise HikubeError("HK810", f"{run[:40]!r} is no run", fix="the runs are named by: hikube-local sweep --list")
    return _folder(layout) / f"{run}.json"


def _lock(path: Path) -> Path:
    return path.with_suffix(".lock")


def _forget(path: Path) -> None:
    for suffix in (".json", ".log", _KEY, f"{_KEY}.pub", ".lock"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def _watch(session: Elsewhere, run: Run, path: Path) -> subprocess.Popen[bytes]:
    """It waits until its standard input is closed, which a kill does, too."""
    words = [*program(), *session.flags, "sweep", "--run", run.id, "--when-closed"]
    with open(path.with_suffix(".log"), "wb") as out:
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True)
