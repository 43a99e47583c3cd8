"""`robustlab prepare-data` from a checkout: `python scripts/prepare_data.py cifar10`."""

import sys

from robustlab.commands.prepare_data import main

if __name__ == "__main__":
    sys.exit(main())
