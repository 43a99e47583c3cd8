"""`robustlab export` from a checkout: `python scripts/export.py outputs/<run>/seed0`."""

import sys

from robustlab.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
