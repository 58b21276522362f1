"""In place of msvcrt: what of it is called."""

import os
import sys


def setmode(fd: int, flags: int) -> int:
    return 0


def getwch() -> str:
    """One key, unechoed. A terminal that is no console has its own ways: the test's is raw already."""
    return os.read(sys.stdin.fileno(), 1).decode("latin-1")
