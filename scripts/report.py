"""`robustlab report` from a checkout: `python scripts/report.py outputs/`."""

import sys

from robustlab.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
