"""The program's way in and out; everything heavy is imported later."""

import atexit
import gc
import os
import sys
import threading
from typing import NoReturn


def main() -> None:
    # Nearly all that a short command makes lives to its end: looking through it again and again takes another tenth.
    gc.set_threshold(100_000)
    from hikube_local import errors
    from hikube_local.cli.main import run

    errors.own_process = True
    leave(run(sys.argv[1:]))


def leave(code: int) -> NoReturn:
    """End this process as sys.exit does, but for taking a thousand dead objects apart: a tenth of a short command.

    What runs at exit runs, and what was printed goes out. Where a thread is still at work, a stream is broken or somebody
    traces the program, sys.exit itself.
    """
    if threading.active_count() == 1 and not (sys.gettrace() or sys.getprofile()):
        atexit._run_exitfuncs()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):  # a broken, a closed, none at all
            sys.exit(code)
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
