"""`python -m bibench_deploy` is `bibench`, with this Python."""

from __future__ import annotations

from bibench_deploy.cli.app import main

if __name__ == "__main__":
    main()
