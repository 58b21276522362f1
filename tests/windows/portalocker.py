"""In place of portalocker, which is a dependency on Windows alone: what of it is called, as its documentation has it."""

import enum
import fcntl


class LockFlags(enum.IntFlag):
    EXCLUSIVE = fcntl.LOCK_EX
    NON_BLOCKING = fcntl.LOCK_NB


class AlreadyLocked(Exception):
    pass


def lock(file: int, flags: LockFlags) -> None:
    try:
        fcntl.flock(file, int(flags))
    except BlockingIOError as e:
        raise AlreadyLocked(e) from e
