"""What --debug shows: each program that is run, each call that changes something in libvirt, each step and its reason.

Python's logging, below the name `hikube_local`; silent unless somebody listens, and not even loaded before (with all that
it brings it is a twentieth of a short command).
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from hikube_local import timings
from hikube_local.text import mask_url, one_line


class Room:
    """One logger of Python's, asked for once somebody has loaded logging."""

    def __init__(self, name: str) -> None:
        self._name = f"hikube_local.{name}"

    @property
    def heard(self) -> bool:
        logging = sys.modules.get("logging")
        return logging is not None and logging.getLogger(self._name).isEnabledFor(logging.DEBUG)

    def debug(self, message: str, *words: object) -> None:
        if self.heard:
            sys.modules["logging"].getLogger(self._name).debug(message, *words)


PROGRAMS = Room("programs")
LIBVIRT = Room("libvirt")
STEPS = Room("steps")
SENT = Room("requests")  # to another machine's API
MOST = 300  # characters of a word that are shown
# The methods of libvirt's binding with which we change something (libvirt.org/html/libvirt-libvirt-domain.html).
CHANGES = {
    "virConnect": ("defineXMLFlags", "restoreFlags"),
    "virDomain": (
        *(
            "createWithFlags",
            "destroy",
            "shutdown",
            "suspend",
            "resume",
            "reboot",
            "undefineFlags",
            "setLifecycleAction",
        ),
        *("attachDeviceFlags", "detachDeviceFlags", "updateDeviceFlags", "blockCommit", "blockResize"),
        *("setVcpusFlags", "setMetadata"),
        *("snapshotCreateXML", "setTime", "authorizedSSHKeysSet"),
    ),
}


def to_stderr() -> None:
    """Show it, from now on: seconds since the program began, the room, and the message in one line."""
    import logging

    class Line(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            room = record.name.rpartition(".")[2]
            return f"debug {record.relativeCreated / 1000:8.3f}  {room}: {one_line(record.getMessage())}"

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line())
    logger = logging.getLogger("hikube_local")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG)
    logger.propagate = False


def _words(argv: Sequence[str | Path]) -> str:
    """A command line as a shell would read it, without what in its URLs is secret."""
    return shlex.join(mask_url(str(word))[:MOST] for word in argv)


def started(argv: Sequence[str | Path]) -> None:
    """A program that stays, or that this process becomes."""
    if PROGRAMS.heard:
        PROGRAMS.debug("%s (goes on)", _words(argv))


def ended(argv: Sequence[str | Path], code: int | None, begin: float) -> None:
    """A program that ended: its exit code, or None where it was ended for taking too long; `begin` by time.monotonic."""
    timings.add("program", Path(str(argv[0])).name, begin)
    if PROGRAMS.heard:
        how = "took too long" if code is None else f"exit {code}"
        PROGRAMS.debug("%s (%s, %.2f s)", _words(argv), how, time.monotonic() - begin)


def watch(binding: Any) -> None:
    """Have libvirt's binding tell each call that changes something; without --debug and --timings it is left as it is."""
    timings.watch(binding)
    if not LIBVIRT.heard or hasattr(binding, "_told_by_hikube_local"):
        return
    binding._told_by_hikube_local = True
    for kind, names in CHANGES.items():
        for name in names:
            if method := getattr(getattr(binding, kind), name, None):
                setattr(getattr(binding, kind), name, _told(kind, name, method))


def _told(kind: str, name: str, method: Any) -> Any:
    @wraps(method)
    def call(self: Any, *words: Any, **more: Any) -> Any:
        begin, of = time.monotonic(), f"{self.name()}." if kind == "virDomain" else ""
        try:
            answer = method(self, *words, **more)
        except Exception as e:
            LIBVIRT.debug("%s%s refused after %.2f s: %s", of, name, time.monotonic() - begin, e)
            raise
        LIBVIRT.debug("%s%s (%.2f s)", of, name, time.monotonic() - begin)
        return answer

    return call
