"""`python -m robustlab <verb>`."""

import sys

from robustlab.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
