"""The program's way in; everything heavy is imported later."""

import gc
import sys


def main() -> None:
    # Nearly all that a short command makes lives to its end: looking through it again and again takes another tenth.
    gc.set_threshold(100_000)
    from hikube_local import errors
    from hikube_local.cli.main import run

    errors.own_process = True
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
