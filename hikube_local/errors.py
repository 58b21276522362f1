"""An error carries a code, what went wrong, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from hikube_local.language import tr
from hikube_local.records import dataclass


class ExitCode(IntEnum):
    """The process exit codes that scripts rely on."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    TIMEOUT = 3
    CHANGES = 4
    LEFT = 5  # `test` in a tenant, `sweep`: something of a run could not be taken away
    INTERRUPTED = 130
    SSH = 255  # `ssh`: the guest was not reached, as ssh itself says it


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """What a command ends with when its parts ended with these: what still costs money first, then a wrong input, a failure, then a time-out."""
    ended = set(codes)
    return next(
        (c for c in (ExitCode.LEFT, ExitCode.USAGE, ExitCode.FAILED, ExitCode.TIMEOUT) if c in ended), ExitCode.DONE
    )


@dataclass
class HikubeError(Exception):
    """What a user is told: `what` happened (one sentence), `why`, and the `fix`; `code` is stable (codes.py)."""

    code: str
    what: str
    why: str = ""
    fix: str = ""
    exit_code: ExitCode = ExitCode.FAILED

    def __str__(self) -> str:
        return self.what

    def __reduce__(self):
        return (type(self), (self.code, self.what, self.why, self.fix, self.exit_code))

    def render(self) -> str:
        """The error as lines for a terminal."""
        lines = [f"{tr('error')}[{self.code}]: {tr(self.what)}"]
        if self.why:
            lines.append(f"  {tr('why')}: {tr(self.why)}")
        if self.fix:
            lines.append(f"  {tr('fix')}: {tr(self.fix)}")
        return "\n".join(lines)


class UsageError(HikubeError):
    """The words of the command are off, or a manifest is invalid: nothing was changed."""

    def __init__(self, code: str, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(code, what, why, fix, ExitCode.USAGE)

    def __reduce__(self):
        return (type(self), (self.code, self.what, self.why, self.fix))


class NotFound(HikubeError):
    """An object that is not in the store."""


# Whether this process is one command, which leaves nothing behind that the next does not put right (__main__ says so).
own_process = False


class Interrupted(BaseException):
    """The command was interrupted: whoever is at work gives up at the next event it would tell."""


def unexpected(error: Exception) -> HikubeError:
    """Any other exception as an error of ours: a full disk and a missing permission in words, the rest as a bug of ours."""
    import errno
    import os
    import traceback

    if isinstance(error, HikubeError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "quota" if error.errno == errno.EDQUOT else "file system"
        return HikubeError("HK604", f"no space: the {what} is full", str(error), "free space and run it again")
    if isinstance(error, PermissionError):
        return HikubeError("HK608", f"not permitted: {error}")
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(frame.filename)}:{frame.lineno}"
    what = f"a bug in hikube-local: {type(error).__name__} at {where}"
    return HikubeError("HK999", what, str(error)[:500], "run it again with --debug and report what it prints")
