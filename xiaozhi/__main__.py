"""`python -m xiaozhi` is the command line."""

import sys

from xiaozhi.cli import main

if __name__ == "__main__":
    sys.exit(main())
