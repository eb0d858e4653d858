"""The program `bibench`, which `python -m bibench_deploy` is too, with this Python."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line.

    An interruption while it is still being loaded ends in one line too.
    """
    try:
        from bibench_deploy.cli.app import app
    except KeyboardInterrupt:
        print("bibench: interrupted before it did anything", file=sys.stderr)
        sys.exit(2)
    app()


if __name__ == "__main__":
    main()
