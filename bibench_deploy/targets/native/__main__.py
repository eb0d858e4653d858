"""`python -m bibench_deploy.targets.native` builds the library for this machine."""

import sys

from bibench_deploy.targets.native.build import main

if __name__ == "__main__":
    sys.exit(main())
