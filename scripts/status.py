"""`robustlab status` from a checkout: `python scripts/status.py outputs/`."""

import sys

from robustlab.commands.status import main

if __name__ == "__main__":
    sys.exit(main())
