"""`robustlab submit` from a checkout: `python scripts/submit.py method=erm,elr seed=0,1`."""

import sys

from robustlab.commands.submit import main

if __name__ == "__main__":
    sys.exit(main())
