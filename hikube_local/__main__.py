"""The program's way in; everything heavy is imported later."""

import os
import sys


def main() -> None:
    # pydantic would look for plugins among all installed packages, which takes a tenth of a short command.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from hikube_local.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
