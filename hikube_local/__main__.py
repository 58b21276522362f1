"""The program's way in; everything heavy is imported later."""

import sys


def main() -> None:
    from hikube_local.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
