"""`robustlab sync` from a checkout: `python scripts/sync.py outputs/`."""

import sys

from robustlab.commands.sync import main

if __name__ == "__main__":
    sys.exit(main())
