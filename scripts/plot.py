"""`robustlab plot` from a checkout: `python scripts/plot.py outputs/`."""

import sys

from robustlab.commands.plot import main

if __name__ == "__main__":
    sys.exit(main())
